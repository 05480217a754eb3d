import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// Like `Side`, with the objects that cxgb4 supports.
final class Cxgb4Side: LibraryOverDevice {
    /// A queue pair: its completion queues, whether it uses the shared receive queue, its numbers of work requests.
    struct Plan {
        var sends = 0
        var receives = 0
        var isSharing = false
        var requests: UInt32 = 15
        var signalsAll = false
    }

    static func plans(_ hasShared: Bool) -> [Plan] {
        var plans = [
            Plan(requests: 7), Plan(receives: 1, requests: 20), Plan(sends: 1, receives: 1, requests: 60),
            Plan(sends: 1, requests: 33, signalsAll: true), Plan(sends: 1, receives: 1, requests: 200),
        ]
        if hasShared {
            plans.append(Plan(isSharing: true))
            plans.append(Plan(sends: 1, receives: 1, isSharing: true, requests: 40))
        }
        return plans
    }

    let library: Library
    let device: Int32
    let context: Library.Context
    let domain: Library.Domain
    let region: Library.Region
    private(set) var completions: [Library.Completions] = []
    private(set) var shared: Library.Shared?
    private(set) var pairs: [Library.Pair] = []
    private(set) var limits: [ibv_qp_cap] = []
    let plans: [Plan]

    init(_ library: Library, device: Int32, memory: UnsafeMutableRawBufferPointer, hasShared: Bool) {
        self.library = library
        self.device = device
        context = library.open(Int(device))
        domain = have(library.allocateDomain(context), "a protection domain")
        let access = IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue
        region = have(
            library.register(domain, memory.baseAddress!, memory.count, Int32(access)), "a memory region")
        for entries in [63, 400] as [Int32] {
            completions.append(have(library.createCompletions(context, entries, nil, nil, 0), "a queue"))
        }
        plans = Cxgb4Side.plans(hasShared)
        if hasShared {
            var attributes = ibv_srq_init_attr()
            attributes.attr.max_wr = 30
            attributes.attr.max_sge = 4
            shared = have(library.createShared(domain, &attributes), "a shared receive queue")
        }
        for plan in plans {
            let made = make(plan)
            pairs.append(made.0)
            limits.append(made.1)
        }
        for index in pairs.indices { connect(index) }
    }

    private func make(_ plan: Plan) -> (Library.Pair, ibv_qp_cap) {
        var attributes = ibv_qp_init_attr()
        attributes.send_cq = completions[plan.sends]
        attributes.recv_cq = completions[plan.receives]
        attributes.srq = plan.isSharing ? shared : nil
        attributes.cap = ibv_qp_cap(
            max_send_wr: plan.requests, max_recv_wr: plan.requests, max_send_sge: 4, max_recv_sge: 4,
            max_inline_data: 280)
        attributes.qp_type = IBV_QPT_RC
        attributes.sq_sig_all = plan.signalsAll ? 1 : 0
        return (have(library.createPair(domain, &attributes), "a queue pair"), attributes.cap)
    }

    /// Replaces a queue pair by a new one.
    func replace(_ index: Int) {
        equal(library.destroyPair(pairs[index]), 0, "destroying a queue pair")
        pairs[index] = make(plans[index]).0
        connect(index)
    }

    /// The held device executes nothing, so the queue pair may be its own peer.
    private func connect(_ index: Int) {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_INIT
        library.modify(pairs[index], &attributes, [IBV_QP_STATE, IBV_QP_ACCESS_FLAGS])
        equal(sim!.pointee.connect(device, number(index), 0, number(index), 0), 0, "connecting")
    }

    func number(_ index: Int) -> UInt32 { pairs[index].pointee.qp_num }

    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer {
        sharedMemory(device, area, number)
    }

    func close() {
        for pair in pairs { equal(library.destroyPair(pair), 0, "destroying a queue pair") }
        if let shared { equal(library.destroyShared(shared), 0, "destroying the shared receive queue") }
        for queue in completions { equal(library.destroyCompletions(queue), 0, "destroying a completion queue") }
        equal(library.deregister(region), 0, "deregistering")
        equal(library.freeDomain(domain), 0, "freeing the domain")
        equal(library.close(context), 0, "closing the device")
    }
}
