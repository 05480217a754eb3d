import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// A queue pair of cxgb4 that both libraries create.
struct Cxgb4Plan {
    var sends: Int
    var receives: Int
    var isSharing = false
    var requests: UInt32
    var signalsAll = false
}

/// Like `Side`, with the objects that cxgb4 supports.
final class Cxgb4Side: LibraryOverDevice {
    static let entries: [Int32] = [31, 200]
    static let sharedRequests = 40
    static let sendSGEs: UInt32 = 4
    /// The most SGEs of a receive (T4_MAX_RECV_SGE), and the most inline data (T4_MAX_SEND_INLINE).
    static let receiveSGEs: UInt32 = 4
    static let inline: UInt32 = 280

    /// The queue pairs; those that share receives only where the device has shared receive queues.
    static func plans(sharing: Bool) -> [Cxgb4Plan] {
        var plans = [
            Cxgb4Plan(sends: 0, receives: 1, requests: 30),
            Cxgb4Plan(sends: 1, receives: 1, requests: 60, signalsAll: true),
            Cxgb4Plan(sends: 1, receives: 0, requests: 4),
        ]
        if sharing {
            plans += [
                Cxgb4Plan(sends: 0, receives: 0, isSharing: true, requests: 20),
                Cxgb4Plan(sends: 1, receives: 1, isSharing: true, requests: 50),
            ]
        }
        return plans
    }

    let library: Library
    let device: Int32
    let plans: [Cxgb4Plan]
    private let context: Library.Context
    private let domain: Library.Domain
    private let channel: Library.Channel
    private let region: Library.Region
    private(set) var completions: [Library.Completions] = []
    private(set) var shared: Library.Shared?
    private(set) var pairs: [Library.Pair] = []
    private(set) var limits: [ibv_qp_cap] = []

    func number(_ index: Int) -> UInt32 { pairs[index].pointee.qp_num }

    init(_ library: Library, device: Int32, sharing: Bool, memory: UnsafeMutableRawBufferPointer) {
        self.library = library
        self.device = device
        plans = Self.plans(sharing: sharing)
        context = library.open(Int(device))
        domain = have(library.allocateDomain(context), "a protection domain")
        channel = have(library.createChannel(context), "a completion channel")
        region = have(
            library.register(domain, memory.baseAddress!, memory.count, Int32(IBV_ACCESS_LOCAL_WRITE.rawValue)),
            "a memory region")
        for entries in Self.entries {
            completions.append(
                have(library.createCompletions(context, entries, nil, channel, 0), "a completion queue"))
        }
        if sharing {
            var attributes = ibv_srq_init_attr()
            attributes.attr.max_wr = UInt32(Self.sharedRequests)
            attributes.attr.max_sge = Self.receiveSGEs
            shared = have(library.createShared(domain, &attributes), "a shared receive queue")
        }
        for index in plans.indices {
            pairs.append(make(index))
        }
    }

    /// Creates a queue pair in RTS. The device is held, so that the peer need not exist.
    private func make(_ index: Int) -> Library.Pair {
        let plan = plans[index]
        var attributes = ibv_qp_init_attr()
        attributes.send_cq = completions[plan.sends]
        attributes.recv_cq = completions[plan.receives]
        attributes.srq = plan.isSharing ? shared : nil
        attributes.cap = ibv_qp_cap(
            max_send_wr: plan.requests, max_recv_wr: plan.requests, max_send_sge: Self.sendSGEs,
            max_recv_sge: Self.receiveSGEs, max_inline_data: Self.inline)
        attributes.qp_type = IBV_QPT_RC
        attributes.sq_sig_all = plan.signalsAll ? 1 : 0
        let pair = have(library.createPair(domain, &attributes), "a queue pair")
        if limits.count == index { limits.append(attributes.cap) }
        let result = sim!.pointee.connect(device, pair.pointee.qp_num, 0, pair.pointee.qp_num, 1)
        equal(result, 0, "connecting a queue pair")
        return pair
    }

    /// Destroys a queue pair and makes it again.
    func replace(_ index: Int) {
        equal(library.destroyPair(pairs[index]), 0, "destroying a queue pair")
        pairs[index] = make(index)
    }

    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer {
        sharedMemory(device, area, number)
    }

    func close() {
        for pair in pairs { equal(library.destroyPair(pair), 0, "destroying a queue pair") }
        if let shared { equal(library.destroyShared(shared), 0, "destroying the shared receive queue") }
        for queue in completions { equal(library.destroyCompletions(queue), 0, "destroying a completion queue") }
        equal(library.deregister(region), 0, "deregistering")
        equal(library.destroyChannel(channel), 0, "destroying the channel")
        equal(library.freeDomain(domain), 0, "freeing the domain")
        equal(library.close(context), 0, "closing the device")
    }
}
