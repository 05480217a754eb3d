import Testing

/// The simulated device with the vendors' unchanged C libraries: Debian's libibverbs, libhfi1verbs, libmlx5 and libcxgb4.
@Suite("Simulator: with the vendors' C libraries", .enabled(if: Peer.canPreload))
struct VendorTests {
    /// Every word of the description, alone and in combination with the words that affect the same code.
    static let devices = [
        "hfi1", "hfi1 write", "mlx5", "mlx5 write", "mlx5 static", "mlx5 cqe0", "mlx5 roce", "mlx5 write cqe0 roce",
        "mlx5 static cqe0",
    ]

    /// The same of cxgb4, with scenarios of their own.
    static let iWARPDevices = [
        "cxgb4", "cxgb4 t4", "cxgb4 t6", "cxgb4 t4 write", "cxgb4 t5 write", "cxgb4 t6 write", "cxgb4 t4 onchip",
        "cxgb4 t4 cqe32", "cxgb4 t5 cqe32 write", "cxgb4 t6 cqe32", "cxgb4 t5 dense", "cxgb4 t4 dense onchip",
        "cxgb4 t5 reorder", "cxgb4 t6 reorder dense", "cxgb4 t4 reorder cqe32", "cxgb4 t4 notrap",
        "cxgb4 t5 notrap write", "cxgb4 t6 notrap",
    ]

    /// Devices that run at each store to a UAR page, and the environment variables of the library.
    static let trapped: [(device: String, environment: [String: String])] = [
        ("mlx5 trap", [:]), ("mlx5 trap static cqe0", [:]), ("mlx5 trap roce", ["MLX5_CQE_SIZE": "128"]),
        ("mlx5 trap", ["MLX5_SHUT_UP_BF": "1", "MLX5_SCATTER_TO_CQE": "0"]),
    ]

    @Test("Debian's ibv_devinfo finds the device and its port", arguments: VendorTests.devices)
    func devinfo(device: String) throws {
        let outcome = try Peer.run("ibv_devinfo", ["-v"], over: device)
        #expect(outcome.status == 0)
        #expect(outcome.output.contains("hca_id:\t\(device.prefix(4))_0"))
        #expect(outcome.output.contains("PORT_ACTIVE"))
        #expect(outcome.output.contains(device.contains("roce") ? "Ethernet" : "link_layer:\t\tInfiniBand"))
    }

    @Test("Debian's ibv_devinfo finds each generation of cxgb4", arguments: [(4, 17409), (5, 21505), (6, 25601)])
    func iWARPDevinfo(chip: Int, part: Int) throws {
        for more in ["", " write"] {
            let outcome = try Peer.run("ibv_devinfo", ["-v"], over: "cxgb4 t\(chip)\(more)")
            #expect(outcome.status == 0)
            for text in [
                "hca_id:\tcxgb4_0", "iWARP (1)", "fw_ver:\t\t\t\t1.27.1.0", "0207:43ff:fe10:0001",
                "vendor_part_id:\t\t\t\(part)", "PORT_ACTIVE", "Ethernet",
            ] {
                #expect(outcome.output.contains(text), "\(text): \(outcome.output)")
            }
        }
    }

    @Test("libcxgb4 passes every iWARP scenario of sim-peer", arguments: VendorTests.iWARPDevices)
    func iWARP(device: String) throws {
        try Peer.scenarios(over: device)
    }

    @Test("libcxgb4 passes every scenario without write-combining doorbells, and with its workaround for T4")
    func iWARPForms() throws {
        for device in ["cxgb4 t5", "cxgb4 t6 reorder"] { try Peer.scenarios(over: device, ["T5_ENABLE_WC": "0"]) }
        try Peer.scenarios(over: "cxgb4 t4 onchip", ["CXGB4_MA_WR": "1"])
    }

    @Test("the vendor's library passes every scenario of sim-peer", arguments: VendorTests.devices)
    func scenarios(device: String) throws {
        try Peer.scenarios(over: device)
    }

    @Test("every scenario passes with trapped doorbells", .enabled(if: canTrap), arguments: VendorTests.trapped)
    func trapping(device: String, environment: [String: String]) throws {
        try Peer.scenarios(over: device, environment)
    }

    @Test("every scenario passes with CQEs of 128 bytes, and without scatter to CQE")
    func forms() throws {
        try Peer.scenarios(over: "mlx5", ["MLX5_CQE_SIZE": "128"])
        try Peer.scenarios(over: "mlx5 cqe0", ["MLX5_SCATTER_TO_CQE": "0"])
    }

    @Test("messages are correct after the 16-bit indexes wrap")
    func wraps() throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["wraps"], over: "mlx5")
        #expect(outcome.status == 0, "\(outcome.output)")
    }

    #if arch(x86_64)
        static let canTrap = true
    #else
        static let canTrap = false
    #endif

    @Test("libibverbs refuses a device whose kernel driver has another ABI version, with a message")
    func kernelABI() throws {
        for device in ["mlx5 abi=9", "mlx5 abi=0"] {
            let outcome = try Peer.run("ibv_devices", over: device)
            #expect(outcome.output.contains("does not support the kernel ABI"), "\(outcome.output)")
            #expect(!outcome.output.contains("0002c903"))
        }
    }

    @Test("an invalid description ends the program with a message")
    func description() throws {
        for description in [
            "mlx6", "write", "hfi1 roce", "hfi1,trap", "hfi1 nonsense", "mlx5 abi=x", "mlx5 t5", "cxgb4 t7", "cxgb4 t3",
            "cxgb4 t5 onchip", "cxgb4 roce", "cxgb4 t",
        ] {
            let outcome = try Peer.run("ibv_devinfo", over: description)
            #expect(outcome.status == 2 && outcome.output.contains("UVERBS_SIM"), "\(description)")
        }
    }
}
