import CIBVerbs
import CProviderABI
import Glibc
import Locking
import ProviderLoader
import Verbs

/// A provider in Swift whose objects have no function: it records the core's calls, and fails those in `failures`.
///
/// Its devices: `fake0` and `fake1` have every entry of the control table, `bare0` only close_context; `roce0`, `roce6`
/// and `link0` have GID tables to choose from, `ib0` is InfiniBand, `down0` has no active port.
///
/// Tests that use it are serialized (`FakeTests`).
enum Fake {
    struct State {
        var calls: [String] = []
        var failures: [String: Int32] = [:]
        /// The errno value and message that a call passes to `rdma_explain`.
        var explanations: [String: (error: Int32, message: String)] = [:]
        var modifications: [(mask: UInt32, attributes: ibv_qp_attr)] = []
        var flows: [[UInt8]] = []
        var lastKey: UInt32 = 0x100
    }

    private static let state = Locked(State())

    static func with<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        state.withLock { state in body(&state) }
    }

    /// Clears the recorded calls and the configured failures.
    static func reset() { with { $0 = State() } }

    /// The calls since the last reset.
    static var calls: [String] { with { $0.calls } }

    /// Records a call. Returns the errno value with which it must fail, or 0.
    static func call(_ name: String) -> Int32 {
        if let explanation = with({ $0.explanations[name] }) {
            _ = rdma_explain(core, explanation.error, explanation.message)
        }
        return with { state in
            let failure = state.failures[name] ?? 0
            state.calls.append(failure == 0 ? name : "\(name) fails")
            return failure
        }
    }

    /// The addresses of the objects that it refused to destroy, which it still owns, as a real provider does.
    private static let kept = Locked<[UInt]>([])

    static func keep(_ object: UnsafeRawPointer?) { kept.withLock { $0.append(UInt(bitPattern: object)) } }

    /// Opens a device of the fake provider through the loader.
    static func open(_ name: String = "fake0") throws(VerbsError) -> Context {
        try Device.named(name, from: loader).open()
    }

    /// The core that was passed to the provider's entry function.
    nonisolated(unsafe) static var core: UnsafePointer<rdma_core>?

    static let loader: ProviderLoader = {
        var configuration = LoaderConfiguration()
        configuration.sysfsPath = "/nonexistent"
        configuration.builtIn = [
            BuiltInProvider(
                name: "fake",
                entry: { core, _ in
                    Fake.core = core
                    return UnsafePointer(provider)
                })
        ]
        configuration.overrideDirectory = "/nonexistent"
        configuration.mainDirectory = "/nonexistent"
        return ProviderLoader(configuration: configuration)
    }()

    static let deviceNames = ["fake0", "fake1", "bare0", "roce0", "roce6", "link0", "ib0", "down0"]

    nonisolated(unsafe) static let provider: UnsafeMutablePointer<rdma_provider> = {
        let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
        provider.initialize(to: rdma_provider())
        provider.pointee.size = UInt32(MemoryLayout<rdma_provider>.size)
        provider.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
        provider.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
        provider.pointee.name = UnsafePointer(strdup("fake"))
        provider.pointee.version = UnsafePointer(strdup("1.0"))
        provider.pointee.vendor = UnsafePointer(strdup("tests"))
        provider.pointee.kernel_abi_max = .max
        provider.pointee.list_devices = { devices, stride, capacity, count in
            count?.pointee = UInt32(Fake.deviceNames.count)
            guard let devices else { return 0 }
            for (index, name) in Fake.deviceNames.enumerated() where index < Int(capacity) {
                let device = (UnsafeMutableRawPointer(devices) + index * stride)
                    .assumingMemoryBound(to: rdma_software_device.self)
                device.pointee = rdma_software_device()
                withUnsafeMutableBytes(of: &device.pointee.name) { $0.copyBytes(from: Array(name.utf8)) }
                device.pointee.node_type = UInt32(IBV_NODE_CA.rawValue)
            }
            return 0
        }
        provider.pointee.open_device = { device, _, opened, why in
            let error = Fake.call("open_device")
            guard error == 0, let device = device?.pointee, let opened else {
                rdma_set_reason(why, "was told to fail")
                return error
            }
            let name = withUnsafeBytes(of: device.device.pointee.name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let verbs = UnsafeMutablePointer<verbs_context>.allocate(capacity: 1)
            memset(verbs, 0, MemoryLayout<verbs_context>.size)
            opened.pointee.context = rdma_init_context(verbs, device.device, -1, -1, 2)
            opened.pointee.context.pointee.ops.alloc_mw = { pd, type in
                let window = make("alloc_mw", ibv_mw.self)
                window?.pointee.type = type
                window?.pointee.rkey = 0x1ff
                return window
            }
            opened.pointee.context.pointee.ops.dealloc_mw = { unmake("dealloc_mw", $0) }
            opened.pointee.context.pointee.ops.bind_mw = { _, window, _ in
                window?.pointee.rkey = 0x5500
                return Fake.call("bind_mw")
            }
            opened.pointee.context.pointee.ops.post_send = { _, request, bad in
                let error = Fake.call("post_send \(request?.pointee.opcode.rawValue ?? 99)")
                if error != 0 { bad?.pointee = request }
                return error
            }
            opened.pointee.ops = UnsafePointer(name == "bare0" ? bareTable : fullTable)
            return 0
        }
        return provider
    }()

    nonisolated(unsafe) static let bareTable: UnsafeMutablePointer<rdma_context_ops> = {
        let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
        table.initialize(to: rdma_context_ops())
        table.pointee.size = UInt32(MemoryLayout<rdma_context_ops>.size)
        table.pointee.close_context = { context in
            let verbs = verbs_get_ctx(context)
            rdma_fini_context(context)
            return unmake("close_context", verbs)
        }
        return table
    }()

    nonisolated(unsafe) static let fullTable: UnsafeMutablePointer<rdma_context_ops> = {
        let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
        table.initialize(to: bareTable.pointee)
        addFakeQueries(&table.pointee)
        addFakeMemory(&table.pointee)
        addFakeQueues(&table.pointee)
        addFakeRest(&table.pointee)
        return table
    }()
}

/// Returns a zeroed object, or nil with `errno` set.
private func make<Object>(_ name: String, _ type: Object.Type) -> UnsafeMutablePointer<Object>? {
    let error = Fake.call(name)
    guard error == 0 else {
        errno = error
        return nil
    }
    let byteCount = MemoryLayout<Object>.size + Int(RDMA_OBJECT_ROOM)
    let object = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 16)
    memset(object, 0, byteCount)
    return object.bindMemory(to: Object.self, capacity: 1)
}

private func unmake<Object>(_ name: String, _ object: UnsafeMutablePointer<Object>?) -> Int32 {
    let error = Fake.call(name)
    if error == 0 { object?.deallocate() } else { Fake.keep(object) }
    return error
}

private func name(of context: UnsafeMutablePointer<ibv_context>?) -> String {
    guard let device = context?.pointee.device else { return "" }
    return withUnsafeBytes(of: device.pointee.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// The GID tables of the fake devices, all of port 2 (port 1 of `ib0`).
private func gids(of device: String) -> [(String, UInt32)] {
    switch device {
    case "roce0":
        [
            ("fe80::1", 1), ("fe80::1", 2), ("2001:db8::1", 1), ("2001:db8::1", 2), ("::ffff:192.0.2.1", 1),
            ("::ffff:192.0.2.1", 2),
        ]
    case "roce6": [("fe80::1", 1), ("fe80::1", 2), ("2001:db8::1", 1), ("2001:db8::1", 2), ("::ffff:192.0.2.1", 1)]
    case "link0": [("fe80::1", 1), ("fe80::1", 2)]
    case "ib0": [("fe80::5:6", 0)]
    default: [("::ffff:127.0.0.1", 2)]
    }
}

private func addFakeQueries(_ table: inout rdma_context_ops) {
    table.query_device_ex = { context, _, attributes, size in
        var result = ibv_device_attr_ex()
        result.orig_attr.phys_port_cnt = name(of: context) == "ib0" ? 1 : 2
        result.orig_attr.max_qp_rd_atom = 16
        result.orig_attr.max_qp_init_rd_atom = 32
        result.orig_attr.max_qp_wr = 1000
        memcpy(attributes!, &result, min(size, MemoryLayout.size(ofValue: result)))
        return Fake.call("query_device_ex")
    }
    table.query_port = { context, port, attributes, size in
        var result = ibv_port_attr()
        let device = name(of: context)
        let isInfiniBand = device == "ib0"
        let isActive = isInfiniBand ? port == 1 : port == 2 && device != "down0"
        result.state = isActive ? IBV_PORT_ACTIVE : IBV_PORT_DOWN
        result.active_mtu = IBV_MTU_2048
        result.link_layer = UInt8(isInfiniBand ? 1 : 2)
        result.lid = isInfiniBand ? 7 : 0
        result.gid_tbl_len = 8
        memcpy(attributes!, &result, min(size, MemoryLayout.size(ofValue: result)))
        return (1...2).contains(port) ? 0 : EINVAL
    }
    table.query_gid_ex = { context, port, index, entry, _, size in
        let table = gids(of: name(of: context))
        guard index < 8 else { return EINVAL }
        // Indexes beyond the table are empty entries.
        guard Int(index) < table.count else { return ENODATA }
        var result = ibv_gid_entry()
        let gid = GID(table[Int(index)].0)!
        result.gid.global.subnet_prefix = gid.prefix.bigEndian
        result.gid.global.interface_id = gid.interfaceID.bigEndian
        result.gid_index = index
        result.port_num = port
        result.gid_type = table[Int(index)].1
        memcpy(entry!, &result, min(size, MemoryLayout.size(ofValue: result)))
        return 0
    }
    table.query_gid_table = { _, _, _, _, _ in -Int(EPERM) }
    table.query_pkey = { _, _, index, pkey in
        pkey?.pointee = UInt16(0x8001).bigEndian
        return index == 0 ? 0 : EINVAL
    }
    table.query_rt_values = { _, values in
        values?.pointee.raw_clock.tv_sec = 0
        values?.pointee.raw_clock.tv_nsec = 12345
        return Fake.call("query_rt_values")
    }
}

private func makeRegion(_ name: String, _ pd: UnsafeMutablePointer<ibv_pd>?) -> UnsafeMutablePointer<ibv_mr>? {
    let region = make(name, ibv_mr.self)
    region?.pointee.pd = pd
    region?.pointee.lkey = Fake.with {
        $0.lastKey += 1
        return $0.lastKey
    }
    region?.pointee.rkey = region?.pointee.lkey ?? 0
    return region
}

private func addFakeMemory(_ table: inout rdma_context_ops) {
    table.alloc_pd = { _ in make("alloc_pd", ibv_pd.self) }
    table.dealloc_pd = { unmake("dealloc_pd", $0) }
    table.alloc_parent_domain = { _, attributes in
        make(attributes?.pointee.td == nil ? "alloc_parent_domain" : "alloc_parent_domain td", ibv_pd.self)
    }
    table.alloc_td = { _, _ in make("alloc_td", ibv_td.self) }
    table.dealloc_td = { unmake("dealloc_td", $0) }
    table.reg_mr = { pd, _, _, _, _ in makeRegion("reg_mr", pd) }
    table.reg_dmabuf_mr = { pd, _, _, _, fd, _ in makeRegion("reg_dmabuf_mr \(fd)", pd) }
    table.rereg_mr = { region, flags, _, _, _, _ in
        let error = Fake.call("rereg_mr \(flags)")
        if error == 0 { region?.pointee.lkey += 0x1000 }
        return error
    }
    table.dereg_mr = { unmake("dereg_mr", $0) }
    table.alloc_null_mr = { makeRegion("alloc_null_mr", $0) }
    table.advise_mr = { _, advice, flags, _, count in Fake.call("advise_mr \(advice.rawValue) \(flags) \(count)") }
    table.alloc_dm = { _, attributes in
        let memory = make("alloc_dm \(attributes?.pointee.log_align_req ?? 99)", ibv_dm.self)
        memory?.pointee.memcpy_to_dm = { _, offset, _, length in Fake.call("memcpy_to_dm \(offset) \(length)") }
        memory?.pointee.memcpy_from_dm = { to, _, offset, length in
            memset(to!, 7, length)
            return Fake.call("memcpy_from_dm \(offset) \(length)")
        }
        return memory
    }
    table.free_dm = { unmake("free_dm", $0) }
    table.reg_dm_mr = { pd, _, offset, length, access in makeRegion("reg_dm_mr \(offset) \(length) \(access)", pd) }
}

private func addFakeQueues(_ table: inout rdma_context_ops) {
    table.create_comp_channel = { _ in
        let channel = make("create_comp_channel", ibv_comp_channel.self)
        channel?.pointee.fd = open("/dev/null", O_RDONLY)
        return channel
    }
    table.destroy_comp_channel = { channel in
        if let channel { close(channel.pointee.fd) }
        return unmake("destroy_comp_channel", channel)
    }
    table.create_cq = { context, count, _, _, _ in
        let queue = make("create_cq", ibv_cq.self)
        queue?.pointee.context = context
        queue?.pointee.cqe = count
        return queue
    }
    table.create_cq_ex = { context, attributes in
        let queue = make("create_cq_ex \(attributes?.pointee.comp_mask ?? 99)", ibv_cq_ex.self)
        queue?.pointee.context = context
        return queue
    }
    table.resize_cq = { queue, count in
        queue?.pointee.cqe = count
        return Fake.call("resize_cq \(count)")
    }
    table.modify_cq = { _, attributes in
        Fake.call(
            "modify_cq \(attributes?.pointee.moderate.cq_count ?? 0) \(attributes?.pointee.moderate.cq_period ?? 0)")
    }
    table.destroy_cq = { unmake("destroy_cq", $0) }
    table.create_srq_ex = { context, attributes in
        let queue = make(
            attributes?.pointee.srq_type == IBV_SRQT_XRC ? "create_srq_ex xrc" : "create_srq_ex", ibv_srq.self)
        queue?.pointee.context = context
        attributes?.pointee.attr.max_wr = 256
        return queue
    }
    table.modify_srq = { _, attributes, mask in Fake.call("modify_srq \(mask) \(attributes?.pointee.srq_limit ?? 0)") }
    table.query_srq = { _, attributes in
        attributes?.pointee = ibv_srq_attr(max_wr: 256, max_sge: 2, srq_limit: 3)
        return Fake.call("query_srq")
    }
    table.get_srq_num = { _, number in
        number?.pointee = 77
        return Fake.call("get_srq_num")
    }
    table.destroy_srq = { unmake("destroy_srq", $0) }
    table.create_qp_ex = { context, attributes in
        let pair = make("create_qp_ex \(attributes?.pointee.qp_type.rawValue ?? 99)", ibv_qp_ex.self)
        guard let pair, let attributes = attributes?.pointee else { return nil }
        pair.pointee.qp_base.context = context
        pair.pointee.qp_base.qp_num = 0x11
        pair.pointee.qp_base.qp_type = attributes.qp_type
        if attributes.send_ops_flags != 0 { addFakeWorkRequests(&pair.pointee) }
        if attributes.send_ops_flags & UInt64(RDMA_QP_EX_WITH_FLUSH) != 0 {
            rdma_wr_flush_place(pair).pointee = { pair, rkey, address, length, type, level in
                _ = Fake.call("wr_flush id \(pair!.pointee.wr_id) flags \(pair!.pointee.wr_flags)")
                _ = Fake.call("rkey \(rkey) address \(address) length \(length) type \(type) level \(level)")
            }
        }
        return UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp.self)
    }
    table.qp_to_qp_ex = { pair in UnsafeMutableRawPointer(pair)?.assumingMemoryBound(to: ibv_qp_ex.self) }
    table.modify_qp = { pair, attributes, mask in
        let error = Fake.call("modify_qp")
        guard error == 0, let pair, let attributes else { return error }
        Fake.with { $0.modifications.append((UInt32(bitPattern: mask), attributes.pointee)) }
        if mask & 1 != 0 { pair.pointee.state = attributes.pointee.qp_state }
        return 0
    }
    table.query_qp = { _, attributes, _, _ in
        attributes?.pointee.qp_state = ibv_qp_state(rawValue: 42)
        attributes?.pointee.retry_cnt = 5
        return Fake.call("query_qp")
    }
    table.destroy_qp = { unmake("destroy_qp", $0) }
}

/// The `ibv_wr_*` functions of an extended queue pair. They record their arguments, and the bytes behind a pointer.
private func addFakeWorkRequests(_ pair: inout ibv_qp_ex) {
    pair.wr_start = { _ in _ = Fake.call("wr_start") }
    pair.wr_complete = { _ in Fake.call("wr_complete") }
    pair.wr_abort = { _ in _ = Fake.call("wr_abort") }
    pair.wr_atomic_write = { pair, rkey, address, bytes in
        let data = Array(UnsafeRawBufferPointer(start: bytes, count: 8))
        _ = Fake.call("wr_atomic_write id \(pair!.pointee.wr_id) flags \(pair!.pointee.wr_flags)")
        _ = Fake.call("rkey \(rkey) address \(address) data \(data)")
    }
    pair.wr_send_tso = { pair, header, count, segment in
        let bytes = Array(UnsafeRawBufferPointer(start: header, count: Int(count)))
        _ = Fake.call("wr_send_tso id \(pair!.pointee.wr_id) flags \(pair!.pointee.wr_flags)")
        _ = Fake.call("header \(bytes) mss \(segment)")
    }
    pair.wr_set_sge_list = { _, count, list in
        let list = UnsafeBufferPointer(start: list, count: count)
        _ = Fake.call("wr_set_sge_list \(list.map { "\($0.addr)+\($0.length) lkey \($0.lkey)" })")
    }
}

private func addFakeRest(_ table: inout rdma_context_ops) {
    table.open_xrcd = { _, attributes in make("open_xrcd \(attributes?.pointee.fd ?? 99)", ibv_xrcd.self) }
    table.close_xrcd = { unmake("close_xrcd", $0) }
    table.open_qp = { context, attributes in
        let pair = make("open_qp \(attributes?.pointee.qp_num ?? 0)", ibv_qp_ex.self)
        pair?.pointee.qp_base.context = context
        return UnsafeMutableRawPointer(pair)?.assumingMemoryBound(to: ibv_qp.self)
    }
    table.modify_qp_rate_limit = { _, attributes in
        Fake.call("modify_qp_rate_limit \(attributes?.pointee.rate_limit ?? 0)")
    }
    table.query_qp_data_in_order = { _, opcode, _ in opcode == IBV_WR_RDMA_WRITE ? 1 : 0 }
    table.query_ece = { _, ece, _ in
        ece?.pointee.vendor_id = 0x15b3
        ece?.pointee.options = 6
        return Fake.call("query_ece")
    }
    table.set_ece = { _, ece, _ in Fake.call("set_ece \(ece?.pointee.options ?? 0)") }
    table.create_ah = { _, attributes in make("create_ah \(attributes?.pointee.dlid ?? 0)", ibv_ah.self) }
    table.destroy_ah = { unmake("destroy_ah", $0) }
    table.attach_mcast = { _, _, lid in Fake.call("attach_mcast \(lid)") }
    table.detach_mcast = { _, _, lid in Fake.call("detach_mcast \(lid)") }
    table.create_wq = { context, attributes in
        let queue = make("create_wq", ibv_wq.self)
        queue?.pointee.context = context
        queue?.pointee.wq_num = 9
        queue?.pointee.post_recv = { _, request, bad in
            let error = Fake.call("post_wq_recv \(request?.pointee.wr_id ?? 0)")
            if error != 0 { bad?.pointee = request }
            return error
        }
        return queue
    }
    table.modify_wq = { _, attributes in Fake.call("modify_wq \(attributes?.pointee.attr_mask ?? 0)") }
    table.destroy_wq = { unmake("destroy_wq", $0) }
    table.create_rwq_ind_table = { _, attributes in
        make("create_rwq_ind_table \(attributes?.pointee.log_ind_tbl_size ?? 99)", ibv_rwq_ind_table.self)
    }
    table.destroy_rwq_ind_table = { unmake("destroy_rwq_ind_table", $0) }
    table.create_flow = { _, attributes in
        if let attributes {
            let bytes = Array(UnsafeRawBufferPointer(start: attributes, count: Int(attributes.pointee.size)))
            Fake.with { $0.flows.append(bytes) }
        }
        return make("create_flow", ibv_flow.self)
    }
    table.destroy_flow = { unmake("destroy_flow", $0) }
    table.create_counters = { _, _ in make("create_counters", ibv_counters.self) }
    table.attach_counters_point_flow = { _, attributes, _ in
        Fake.call("attach_counters \(attributes?.pointee.counter_desc.rawValue ?? 9) \(attributes?.pointee.index ?? 9)")
    }
    table.read_counters = { _, values, count, flags in
        for index in 0..<Int(count) { values?[index] = UInt64(index + 10) }
        return Fake.call("read_counters \(flags)")
    }
    table.destroy_counters = { unmake("destroy_counters", $0) }
}
