import CIBVerbs
import CProviderABI
import Glibc
import ProviderLoader

/// A native provider, through the loader and the provider ABI: one from RDMA_DRIVER_PATH, or a built-in one.
package final class NativeLibrary: Library {
    private let loader: ProviderLoader
    private(set) var ops: UnsafePointer<rdma_context_ops>! = nil
    /// The library file of the last opened device's provider; nil for a built-in one.
    package private(set) var module: String?

    package init(builtIn: [BuiltInProvider] = []) {
        loader = ProviderLoader(configuration: .standard(builtIn: builtIn))
    }

    package override func open(_ number: Int = 0) -> Context {
        let name = withDevice(number) { String(cString: ibv_get_device_name($0)) }
        do throws(LoaderError) {
            let opened = try loader.open(name)
            ops = opened.ops
            module = opened.provider.library
            return opened.context
        } catch {
            check(false, "\(error)")
            exit(1)
        }
    }

    /// Sets errno to EOPNOTSUPP, for a verb that the provider does not implement.
    private func missing<Result>() -> Result? {
        errno = EOPNOTSUPP
        return nil
    }

    package override func directQueues(_ pair: Pair, _ completions: Completions) -> DirectQueues {
        extensionQueues(pair, completions)
    }

    package override func close(_ context: Context) -> Int32 { ops.pointee.close_context(context) }
    package override func queryDevice(_ context: Context, _ device: inout ibv_device_attr) -> Int32 {
        var attributes = ibv_device_attr_ex()
        let error = ops.pointee.query_device_ex(context, nil, &attributes, MemoryLayout<ibv_device_attr_ex>.size)
        device = attributes.orig_attr
        return error
    }
    package override func queryPort(_ context: Context, _ port: inout ibv_port_attr) -> Int32 {
        ops.pointee.query_port(context, 1, &port, MemoryLayout<ibv_port_attr>.size)
    }
    package override func queryGID(_ context: Context, _ index: Int32, _ gid: inout ibv_gid) -> Int32 {
        var entry = ibv_gid_entry()
        let error = ops.pointee.query_gid_ex(
            context, 1, UInt32(index), &entry, 0, MemoryLayout<ibv_gid_entry>.size)
        gid = entry.gid
        return error
    }

    package override func allocateDomain(_ context: Context) -> Domain? { ops.pointee.alloc_pd(context) }
    package override func freeDomain(_ domain: Domain) -> Int32 { ops.pointee.dealloc_pd(domain) }
    package override func register(
        _ domain: Domain, _ memory: UnsafeMutableRawPointer, _ length: Int, _ access: Int32
    ) -> Region? { ops.pointee.reg_mr(domain, memory, length, UInt64(UInt(bitPattern: memory)), UInt32(access)) }
    package override func deregister(_ region: Region) -> Int32 { ops.pointee.dereg_mr(region) }
    package override func createAddress(_ domain: Domain, _ attributes: inout ibv_ah_attr) -> Address? {
        ops.pointee.create_ah(domain, &attributes)
    }
    package override func destroyAddress(_ address: Address) -> Int32 { ops.pointee.destroy_ah(address) }

    package override func createChannel(_ context: Context) -> Channel? { ops.pointee.create_comp_channel(context) }
    package override func destroyChannel(_ channel: Channel) -> Int32 { ops.pointee.destroy_comp_channel(channel) }
    package override func createCompletions(
        _ context: Context, _ entries: Int32, _ place: UnsafeMutableRawPointer?, _ channel: Channel?, _ vector: Int32
    ) -> Completions? { ops.pointee.create_cq(context, entries, place, channel, vector) }
    package override func createExtendedCompletions(
        _ context: Context, _ attributes: inout ibv_cq_init_attr_ex
    ) -> UnsafeMutablePointer<ibv_cq_ex>? { ops.pointee.create_cq_ex?(context, &attributes) ?? missing() }
    package override func resizeCompletions(_ queue: Completions, _ entries: Int32) -> Int32 {
        ops.pointee.resize_cq(queue, entries)
    }
    package override func destroyCompletions(_ queue: Completions) -> Int32 { ops.pointee.destroy_cq(queue) }

    package override func createShared(_ domain: Domain, _ attributes: inout ibv_srq_init_attr) -> Shared? {
        var extended = ibv_srq_init_attr_ex()
        extended.attr = attributes.attr
        extended.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        extended.pd = domain
        let queue = ops.pointee.create_srq_ex(domain.pointee.context, &extended)
        attributes.attr = extended.attr
        return queue
    }
    package override func modifyShared(_ queue: Shared, _ attributes: inout ibv_srq_attr, _ mask: Int32) -> Int32 {
        ops.pointee.modify_srq(queue, &attributes, mask)
    }
    package override func destroyShared(_ queue: Shared) -> Int32 { ops.pointee.destroy_srq(queue) }

    package override func createPair(_ domain: Domain, _ attributes: inout ibv_qp_init_attr) -> Pair? {
        var extended = ibv_qp_init_attr_ex()
        extended.qp_context = attributes.qp_context
        extended.send_cq = attributes.send_cq
        extended.recv_cq = attributes.recv_cq
        extended.srq = attributes.srq
        extended.cap = attributes.cap
        extended.qp_type = attributes.qp_type
        extended.sq_sig_all = attributes.sq_sig_all
        extended.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        extended.pd = domain
        let pair = ops.pointee.create_qp_ex(domain.pointee.context, &extended)
        attributes.cap = extended.cap
        return pair
    }
    package override func createExtendedPair(_ context: Context, _ attributes: inout ibv_qp_init_attr_ex) -> Pair? {
        ops.pointee.create_qp_ex(context, &attributes)
    }
    package override func builders(_ pair: Pair) -> UnsafeMutablePointer<ibv_qp_ex>? {
        ops.pointee.qp_to_qp_ex?(pair) ?? missing()
    }
    package override func modifyPair(_ pair: Pair, _ attributes: inout ibv_qp_attr, _ mask: Int32) -> Int32 {
        ops.pointee.modify_qp(pair, &attributes, mask)
    }
    package override func queryPair(
        _ pair: Pair, _ attributes: inout ibv_qp_attr, _ mask: Int32, _ initial: inout ibv_qp_init_attr
    ) -> Int32 { ops.pointee.query_qp(pair, &attributes, mask, &initial) }
    package override func destroyPair(_ pair: Pair) -> Int32 { ops.pointee.destroy_qp(pair) }

    // MARK: - Events, read as the core reads them

    package override func getCompletionEvent(_ channel: Channel, _ queue: inout Completions?) -> Int32 {
        var record = CompletionRecord()
        guard read(channel.pointee.fd, &record, MemoryLayout<CompletionRecord>.size) > 0 else { return -1 }
        queue = Completions(bitPattern: UInt(record.handle))
        if let queue { ops.pointee.cq_event?(queue) }
        return 0
    }

    package override func getAsynchronousEvent(_ context: Context, _ event: inout ibv_async_event) -> Int32 {
        var record = AsynchronousRecord()
        guard read(context.pointee.async_fd, &record, MemoryLayout<AsynchronousRecord>.size) > 0 else { return -1 }
        event.event_type = ibv_event_type(rawValue: record.type)
        switch event.event_type {
        case IBV_EVENT_CQ_ERR: event.element.cq = Completions(bitPattern: UInt(record.element))
        case IBV_EVENT_SRQ_ERR, IBV_EVENT_SRQ_LIMIT_REACHED:
            event.element.srq = Shared(bitPattern: UInt(record.element))
        case IBV_EVENT_DEVICE_FATAL: event.element.port_num = Int32(record.element)
        default: event.element.qp = Pair(bitPattern: UInt(record.element))
        }
        ops.pointee.async_event?(context, &event)
        return 0
    }
}

/// `struct ib_uverbs_comp_event_desc`
private struct CompletionRecord { var handle: UInt64 = 0 }

/// `struct ib_uverbs_async_event_desc`
private struct AsynchronousRecord {
    var element: UInt64 = 0
    var type: UInt32 = 0
    var reserved: UInt32 = 0
}
