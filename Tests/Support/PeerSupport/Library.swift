import CIBVerbs
import Glibc

/// The verbs that are functions of a library: libibverbs. The scenarios call the functions of `ibv_context.ops`
/// (posting, polling, arming, memory windows) directly, because those are the same for every provider.
package class Library {
    package typealias Context = UnsafeMutablePointer<ibv_context>
    package typealias Domain = UnsafeMutablePointer<ibv_pd>
    package typealias Channel = UnsafeMutablePointer<ibv_comp_channel>
    package typealias Completions = UnsafeMutablePointer<ibv_cq>
    package typealias Shared = UnsafeMutablePointer<ibv_srq>
    package typealias Pair = UnsafeMutablePointer<ibv_qp>
    package typealias Region = UnsafeMutablePointer<ibv_mr>
    package typealias Address = UnsafeMutablePointer<ibv_ah>

    package init() {}

    /// Opens the device with this number.
    package func open(_ number: Int = 0) -> Context {
        withDevice(number) { have(ibv_open_device($0), "opening the device") }
    }

    /// Calls `body` with the device whose name ends with this number.
    func withDevice<Result>(_ number: Int, _ body: (UnsafeMutablePointer<ibv_device>) -> Result) -> Result {
        var count: Int32 = 0
        let devices = have(ibv_get_device_list(&count), "the list of devices")
        defer { ibv_free_device_list(devices) }
        for index in 0..<Int(count) {
            guard let device = devices[index] else { continue }
            if String(cString: ibv_get_device_name(device)).hasSuffix("_\(number)") { return body(device) }
        }
        check(false, "there is no device of number \(number)")
        exit(1)
    }

    /// The memory of the queues, for direct access; only for an mlx5 device.
    package func directQueues(_ pair: Pair, _ completions: Completions) -> DirectQueues {
        vendorQueues(pair, completions)
    }

    package func close(_ context: Context) -> Int32 { ibv_close_device(context) }
    package func queryDevice(_ context: Context, _ device: inout ibv_device_attr) -> Int32 {
        ibv_query_device(context, &device)
    }
    package func queryPort(_ context: Context, _ port: inout ibv_port_attr) -> Int32 {
        ___ibv_query_port(context, 1, &port)
    }
    package func queryGID(_ context: Context, _ index: Int32, _ gid: inout ibv_gid) -> Int32 {
        ibv_query_gid(context, 1, index, &gid)
    }

    package func allocateDomain(_ context: Context) -> Domain? { ibv_alloc_pd(context) }
    package func freeDomain(_ domain: Domain) -> Int32 { ibv_dealloc_pd(domain) }
    package func register(
        _ domain: Domain, _ memory: UnsafeMutableRawPointer, _ length: Int, _ access: Int32
    ) -> Region? { ibv_reg_mr(domain, memory, length, access) }
    package func deregister(_ region: Region) -> Int32 { ibv_dereg_mr(region) }
    package func createAddress(_ domain: Domain, _ attributes: inout ibv_ah_attr) -> Address? {
        ibv_create_ah(domain, &attributes)
    }
    package func destroyAddress(_ address: Address) -> Int32 { ibv_destroy_ah(address) }

    package func createChannel(_ context: Context) -> Channel? { ibv_create_comp_channel(context) }
    package func destroyChannel(_ channel: Channel) -> Int32 { ibv_destroy_comp_channel(channel) }
    package func createCompletions(
        _ context: Context, _ entries: Int32, _ place: UnsafeMutableRawPointer?, _ channel: Channel?, _ vector: Int32
    ) -> Completions? { ibv_create_cq(context, entries, place, channel, vector) }
    package func createExtendedCompletions(
        _ context: Context, _ attributes: inout ibv_cq_init_attr_ex
    ) -> UnsafeMutablePointer<ibv_cq_ex>? { ibv_create_cq_ex(context, &attributes) }
    package func resizeCompletions(_ queue: Completions, _ entries: Int32) -> Int32 { ibv_resize_cq(queue, entries) }
    package func destroyCompletions(_ queue: Completions) -> Int32 { ibv_destroy_cq(queue) }
    package func getCompletionEvent(_ channel: Channel, _ queue: inout Completions?) -> Int32 {
        var place: UnsafeMutableRawPointer?
        return ibv_get_cq_event(channel, &queue, &place)
    }
    package func getAsynchronousEvent(_ context: Context, _ event: inout ibv_async_event) -> Int32 {
        ibv_get_async_event(context, &event)
    }

    package func createShared(_ domain: Domain, _ attributes: inout ibv_srq_init_attr) -> Shared? {
        ibv_create_srq(domain, &attributes)
    }
    package func modifyShared(_ queue: Shared, _ attributes: inout ibv_srq_attr, _ mask: Int32) -> Int32 {
        ibv_modify_srq(queue, &attributes, mask)
    }
    package func destroyShared(_ queue: Shared) -> Int32 { ibv_destroy_srq(queue) }

    package func createPair(_ domain: Domain, _ attributes: inout ibv_qp_init_attr) -> Pair? {
        ibv_create_qp(domain, &attributes)
    }
    package func createExtendedPair(_ context: Context, _ attributes: inout ibv_qp_init_attr_ex) -> Pair? {
        ibv_create_qp_ex(context, &attributes)
    }
    package func builders(_ pair: Pair) -> UnsafeMutablePointer<ibv_qp_ex>? { ibv_qp_to_qp_ex(pair) }
    package func modifyPair(_ pair: Pair, _ attributes: inout ibv_qp_attr, _ mask: Int32) -> Int32 {
        ibv_modify_qp(pair, &attributes, mask)
    }
    package func queryPair(
        _ pair: Pair, _ attributes: inout ibv_qp_attr, _ mask: Int32, _ initial: inout ibv_qp_init_attr
    ) -> Int32 { ibv_query_qp(pair, &attributes, mask, &initial) }
    package func destroyPair(_ pair: Pair) -> Int32 { ibv_destroy_qp(pair) }
}

/// The library of the scenarios.
package nonisolated(unsafe) var library = Library()
