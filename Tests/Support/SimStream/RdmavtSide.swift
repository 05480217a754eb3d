import CIBVerbs
import CSimulatorABI
import PeerSupport

/// Like `Side`, with the objects that hfi1 supports.
final class RdmavtSide: LibraryOverDevice {
    static let types = [IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, IBV_QPT_RC]
    static let completions: [Int32] = [15, 50]
    static let sges = 4
    static let requests = 30
    static let sharedRequests = 45
    static let addressCount = 4

    /// Whether a queue pair uses the shared receive queue.
    static func isSharing(_ index: Int) -> Bool { index == 1 }
    static func sendQueue(_ index: Int) -> Int { index % 2 }
    static func receiveQueue(_ index: Int) -> Int { index / 2 % 2 }

    let library: Library
    let device: Int32
    private let context: Library.Context
    private let domain: Library.Domain
    private let region: Library.Region
    private(set) var completions: [Library.Completions] = []
    let shared: Library.Shared
    private(set) var pairs: [Library.Pair] = []
    private(set) var addresses: [Library.Address] = []

    var key: UInt32 { region.pointee.lkey }
    func number(_ index: Int) -> UInt32 { pairs[index].pointee.qp_num }

    init(_ library: Library, device: Int32, memory: UnsafeMutableRawBufferPointer) {
        self.library = library
        self.device = device
        context = library.open(Int(device))
        domain = have(library.allocateDomain(context), "a protection domain")
        region = have(
            library.register(domain, memory.baseAddress!, memory.count, Int32(IBV_ACCESS_LOCAL_WRITE.rawValue)),
            "a memory region")
        for entries in Self.completions {
            completions.append(have(library.createCompletions(context, entries, nil, nil, 0), "a completion queue"))
        }
        var attributes = ibv_srq_init_attr()
        attributes.attr.max_wr = UInt32(Self.sharedRequests)
        attributes.attr.max_sge = UInt32(Self.sges)
        shared = have(library.createShared(domain, &attributes), "a shared receive queue")
        for index in 0..<Self.addressCount {
            var attributes = ibv_ah_attr()
            attributes.port_num = 1
            attributes.dlid = UInt16(index + 1)
            attributes.sl = UInt8(index)
            addresses.append(have(library.createAddress(domain, &attributes), "an address handle"))
        }
        for index in Self.types.indices { make(index) }
    }

    private func make(_ index: Int) {
        var attributes = ibv_qp_init_attr()
        attributes.send_cq = completions[Self.sendQueue(index)]
        attributes.recv_cq = completions[Self.receiveQueue(index)]
        attributes.srq = Self.isSharing(index) ? shared : nil
        attributes.cap = ibv_qp_cap(
            max_send_wr: 60, max_recv_wr: UInt32(Self.requests), max_send_sge: UInt32(Self.sges),
            max_recv_sge: UInt32(Self.sges), max_inline_data: 0)
        attributes.qp_type = Self.types[index]
        pairs.append(have(library.createPair(domain, &attributes), "a queue pair"))
        connect(index)
    }

    func connect(_ index: Int) { library.connect(pairs[index], Self.types[index]) }

    func enterReset(_ index: Int) {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_RESET
        library.modify(pairs[index], &attributes, [IBV_QP_STATE])
    }

    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer {
        sharedMemory(device, area, number)
    }

    func close() {
        for address in addresses { equal(library.destroyAddress(address), 0, "destroying an address handle") }
        for pair in pairs { equal(library.destroyPair(pair), 0, "destroying a queue pair") }
        equal(library.destroyShared(shared), 0, "destroying the shared receive queue")
        for queue in completions { equal(library.destroyCompletions(queue), 0, "destroying a completion queue") }
        equal(library.deregister(region), 0, "deregistering")
        equal(library.freeDomain(domain), 0, "freeing the domain")
        equal(library.close(context), 0, "closing the device")
    }
}
