import Testing
import ToolSupport

@Suite("verbs in a sandbox that forbids netlink sockets")
struct SandboxTests {
    /// Runs a program with a seccomp(2) filter that makes socket(2) fail with EACCES for AF_NETLINK, as systemd's
    /// RestrictAddressFamilies does.
    private static let sandbox = [
        "python3", "-c",
        """
        import ctypes, os, platform, struct, sys
        number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
        load, equal, result = 0x20, 0x15, 0x06
        program = [(load, 0, 0, 0), (equal, 0, 3, number), (load, 0, 0, 16), (equal, 0, 1, 16),
                   (result, 0, 0, 0x50000 | 13), (result, 0, 0, 0x7FFF0000)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
        filter = struct.pack("HP", len(program), ctypes.addressof(code))
        libc = ctypes.CDLL(None)
        assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
        os.execv(sys.argv[1], sys.argv[1:])
        """,
    ]

    @Test("every command reports that netlink is not available, and works without it")
    func works() async throws {
        let message =
            "cannot ask the kernel about RDMA devices: its netlink socket cannot be opened (Permission denied)"
        let devices = try await Tool.run("devices", by: Self.sandbox)
        #expect(devices.status == 0 && devices.output.contains("soft0"), "\(devices)")
        #expect(devices.output.contains(message) && devices.errors.isEmpty, "\(devices)")
        let doctor = try await Tool.run("doctor", by: Self.sandbox)
        #expect(doctor.output.contains(message) && doctor.output.contains("seccomp"), "\(doctor)")
        let ping = try await Tool.run("ping", "--count", "20", "--verify", by: Self.sandbox)
        #expect(ping.status == 0 && ping.output.contains("every byte correct"), "\(ping.errors)")
        let watch = try await Tool.run("watch", "--duration", "100ms", by: Self.sandbox)
        #expect(watch.status == 0 && watch.errors.contains(message), "\(watch)")
        let top = try await Tool.run("top", by: Self.sandbox)
        // The devices of soft that other tests have open are shown without the kernel.
        #expect([0, 2].contains(top.status) && top.errors.contains(message), "\(top)")
    }
}
