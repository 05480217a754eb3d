import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// A queue pair that both libraries create.
struct PairPlan {
    var type: ibv_qp_type
    /// Indexes of the completion queues, and of the shared receive queue.
    var sends: Int
    var receives: Int
    var shared: Int?
    var limits: ibv_qp_cap
    var signalsAll = false
    /// The queue pair has `ibv_wr_…` builders (`struct ibv_qp_ex`).
    var hasBuilders = false
}

/// The objects of a run, in the order of their creation.
enum Plan {
    /// Requested numbers of CQEs; the last queue is an extended one.
    static let completions: [Int32] = [15, 60, 31]
    static let extended = 2
    /// max_wr and max_sge.
    static let shared: [(UInt32, UInt32)] = [(20, 2), (100, 5)]
    static let addresses = 12
    /// The queue pair with the largest queues.
    static let large = 7

    static let pairs: [PairPlan] = {
        func limits(_ requests: UInt32, _ sges: UInt32, inline: UInt32, receives: UInt32 = 16) -> ibv_qp_cap {
            ibv_qp_cap(
                max_send_wr: requests, max_recv_wr: receives, max_send_sge: sges, max_recv_sge: min(sges, 5),
                max_inline_data: inline)
        }
        var plans = [
            PairPlan(type: IBV_QPT_RC, sends: 0, receives: 1, limits: limits(40, 4, inline: 0)),
            PairPlan(type: IBV_QPT_RC, sends: 1, receives: 1, shared: 0, limits: limits(24, 30, inline: 400)),
            PairPlan(type: IBV_QPT_UC, sends: 0, receives: 0, limits: limits(33, 3, inline: 90)),
            PairPlan(type: IBV_QPT_UD, sends: 0, receives: 1, limits: limits(30, 5, inline: 200)),
            PairPlan(
                type: IBV_QPT_RC, sends: 2, receives: 2, limits: limits(20, 6, inline: 64), hasBuilders: true),
            PairPlan(
                type: IBV_QPT_UD, sends: 2, receives: 1, limits: limits(16, 3, inline: 128), hasBuilders: true),
            PairPlan(
                type: IBV_QPT_UC, sends: 1, receives: 2, shared: 1, limits: limits(17, 2, inline: 30),
                hasBuilders: true),
            PairPlan(
                type: IBV_QPT_RC, sends: 1, receives: 0, limits: limits(512, 2, inline: 16, receives: 512),
                signalsAll: true),
        ]
        // More queue pairs than there are bfregs.
        for index in 0..<12 {
            plans.append(
                PairPlan(
                    type: IBV_QPT_RC, sends: index % 3, receives: 1, shared: index % 4 == 0 ? 1 : nil,
                    limits: limits(4, 1, inline: UInt32(index * 8))))
        }
        return plans
    }()

    static func operations(_ type: ibv_qp_type) -> UInt64 {
        let datagrams = UInt64(IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_SEND_WITH_IMM.rawValue)
        if type == IBV_QPT_UD { return datagrams }
        let unreliable =
            datagrams
            | UInt64(IBV_QP_EX_WITH_RDMA_WRITE.rawValue | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM.rawValue)
            | UInt64(IBV_QP_EX_WITH_LOCAL_INV.rawValue | IBV_QP_EX_WITH_BIND_MW.rawValue)
        if type == IBV_QPT_UC { return unreliable }
        return unreliable
            | UInt64(IBV_QP_EX_WITH_SEND_WITH_INV.rawValue | IBV_QP_EX_WITH_RDMA_READ.rawValue)
            | UInt64(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP.rawValue | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD.rawValue)
    }
}

/// Creates a device of a kind, and holds it.
func createDevice(_ kind: String) -> Int32 {
    let device = sim?.pointee.create(kind) ?? -1
    check(device >= 0, "there is no such kind of device: \(kind)")
    _ = sim?.pointee.hold(device, 1)
    return device
}

/// One library over one device.
protocol LibraryOverDevice {
    var library: Library { get }
    var completions: [Library.Completions] { get }
}

extension Twin where Value: LibraryOverDevice {
    /// Resizes a completion queue.
    func resizeCompletions(_ index: Int, to entries: Int32, _ operation: String) throws(Difference) {
        let errors = try both { (side) throws(Difference) -> Int32 in
            self[side].library.resizeCompletions(self[side].completions[index], entries)
        }
        try expectEqual(errors, "\(operation): errno value")
        let sizes = Twin<Int32>(vendor.completions[index].pointee.cqe, ours.completions[index].pointee.cqe)
        try expectEqual(sizes, "\(operation): size")
    }
}

/// One library over one device, with the objects that it has created.
final class Side: LibraryOverDevice {
    let library: Library
    let device: Int32
    let context: Library.Context
    let domain: Library.Domain
    let channel: Library.Channel
    let region: Library.Region
    private(set) var completions: [Library.Completions] = []
    let extended: UnsafeMutablePointer<ibv_cq_ex>
    private(set) var shared: [Library.Shared] = []
    /// One of type 1, and one of type 2.
    let windows: [UnsafeMutablePointer<ibv_mw>]
    private(set) var pairs: [Library.Pair] = []
    private(set) var limits: [ibv_qp_cap] = []
    private(set) var builders: [UnsafeMutablePointer<ibv_qp_ex>?] = []
    var addresses: [Library.Address] = []

    init(_ library: Library, device: Int32, memory: UnsafeMutableRawBufferPointer) {
        self.library = library
        self.device = device
        context = library.open(Int(device))
        domain = have(library.allocateDomain(context), "a protection domain")
        channel = have(library.createChannel(context), "a completion channel")
        let access = IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_MW_BIND.rawValue
        region = have(
            library.register(domain, memory.baseAddress!, memory.count, Int32(access)), "a memory region")
        for entries in Plan.completions.dropLast() {
            completions.append(have(library.createCompletions(context, entries, nil, channel, 0), "a queue"))
        }
        var wanted = ibv_cq_init_attr_ex()
        wanted.cqe = UInt32(Plan.completions[Plan.extended])
        wanted.channel = channel
        wanted.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS) | UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue)
        extended = have(library.createExtendedCompletions(context, &wanted), "an extended completion queue")
        completions.append(have(ibv_cq_ex_to_cq(extended), "its plain form"))
        windows = [IBV_MW_TYPE_1, IBV_MW_TYPE_2].map { [domain] in have(ibv_alloc_mw(domain, $0), "a window") }
        for (requests, sges) in Plan.shared {
            var attributes = ibv_srq_init_attr()
            attributes.attr.max_wr = requests
            attributes.attr.max_sge = sges
            shared.append(have(library.createShared(domain, &attributes), "a shared receive queue"))
        }
        for plan in Plan.pairs { make(plan) }
    }

    private func make(_ plan: PairPlan) {
        var attributes = ibv_qp_init_attr_ex()
        attributes.send_cq = completions[plan.sends]
        attributes.recv_cq = completions[plan.receives]
        attributes.srq = plan.shared.map { shared[$0] }
        attributes.cap = plan.limits
        attributes.qp_type = plan.type
        attributes.sq_sig_all = plan.signalsAll ? 1 : 0
        attributes.pd = domain
        attributes.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        if plan.hasBuilders {
            attributes.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attributes.send_ops_flags = Plan.operations(plan.type)
        }
        let pair = have(library.createExtendedPair(context, &attributes), "a queue pair")
        limits.append(attributes.cap)
        pairs.append(pair)
        builders.append(plan.hasBuilders ? have(library.builders(pair), "builders") : nil)
        connect(pairs.count - 1)
    }

    func connect(_ index: Int) { library.connect(pairs[index], Plan.pairs[index].type) }

    func modify(_ index: Int, _ attributes: inout ibv_qp_attr, _ mask: [ibv_qp_attr_mask]) {
        library.modify(pairs[index], &attributes, mask)
    }

    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer {
        sharedMemory(device, area, number)
    }

    /// Destroys all objects and closes the device.
    func close() {
        for address in addresses { equal(library.destroyAddress(address), 0, "destroying an address handle") }
        for pair in pairs { equal(library.destroyPair(pair), 0, "destroying a queue pair") }
        for queue in shared { equal(library.destroyShared(queue), 0, "destroying a shared receive queue") }
        for window in windows { equal(ibv_dealloc_mw(window), 0, "freeing a window") }
        for queue in completions { equal(library.destroyCompletions(queue), 0, "destroying a completion queue") }
        equal(library.deregister(region), 0, "deregistering")
        equal(library.destroyChannel(channel), 0, "destroying the channel")
        equal(library.freeDomain(domain), 0, "freeing the domain")
        equal(library.close(context), 0, "closing the device")
    }
}
