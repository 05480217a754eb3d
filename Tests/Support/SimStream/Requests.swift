import CIBVerbs
import Glibc
import PeerSupport

/// A list of work requests that is posted with both libraries, one after the other; `adopt` sets the objects of one
/// library before.
final class Requests {
    static let capacity = 512
    static let sgeCapacity = 40
    let sends = UnsafeMutablePointer<ibv_send_wr>.allocate(capacity: capacity)
    let receives = UnsafeMutablePointer<ibv_recv_wr>.allocate(capacity: capacity)
    let sges = UnsafeMutablePointer<ibv_sge>.allocate(capacity: capacity * sgeCapacity)
    let buffers = UnsafeMutablePointer<ibv_data_buf>.allocate(capacity: sgeCapacity)
    /// A region with a random lkey; the libraries read no other field.
    let region = UnsafeMutablePointer<ibv_mr>.allocate(capacity: 1)
    /// For each request, the index of the datagram's address handle, and of the window to bind.
    var addresses = [Int](repeating: 0, count: capacity)
    var windows = [Int](repeating: 0, count: capacity)
    var landings = [[Landing]?](repeating: nil, count: capacity)

    init() { region.initialize(to: ibv_mr()) }

    deinit {
        sends.deallocate()
        receives.deallocate()
        sges.deallocate()
        buffers.deallocate()
        region.deallocate()
    }

    func list(_ index: Int) -> UnsafeMutablePointer<ibv_sge> { sges + index * Requests.sgeCapacity }

    func linkSends(_ count: Int) {
        for index in 0..<count { sends[index].next = index + 1 < count ? sends + index + 1 : nil }
    }

    func linkReceives(_ count: Int) {
        for index in 0..<count { receives[index].next = index + 1 < count ? receives + index + 1 : nil }
    }

    /// Sets the address handles and windows of one library.
    func adopt(_ count: Int, _ side: Side, _ plan: PairPlan) {
        for index in 0..<count {
            if plan.type == IBV_QPT_UD {
                sends[index].wr.ud.ah = side.addresses[addresses[index]]
            } else if sends[index].opcode == IBV_WR_BIND_MW {
                sends[index].bind_mw.mw = side.windows[windows[index]]
            }
        }
    }
}

/// Posts a list of `count` requests with both libraries, and compares the errno values and the numbers of accepted
/// requests.
/// - Parameters:
///   - first: The first request of the list, which is an array.
///   - post: Posts the list with one library; its arguments are the library's index and `bad_wr`.
/// - Returns: The number of accepted requests.
func postBoth<Request>(
    _ count: Int, _ first: UnsafeMutablePointer<Request>, _ operation: String,
    _ post: (Int, inout UnsafeMutablePointer<Request>?) -> Int32
) throws(Difference) -> Int {
    let results = try both { (side) throws(Difference) -> (errno: Int32, accepted: Int) in
        var bad: UnsafeMutablePointer<Request>?
        let error = post(side, &bad)
        return (error, error == 0 ? count : bad.map { $0 - first } ?? -1)
    }
    try expectEqual(Twin(results.vendor.errno, results.ours.errno), "\(operation): errno value")
    try expectEqual(Twin(results.vendor.accepted, results.ours.accepted), "\(operation): how many were taken")
    return results.ours.accepted
}

/// The defect of the last request of a list.
enum Defect: CaseIterable {
    case opcode, sges, inline, length

    /// libmlx5 detects the defect after it has written a part of the WQE: it rings the doorbell of the earlier requests
    /// with that WQE's first bytes, and drops the fence of an earlier UMR WQE.
    var isLate: Bool { self == .inline || self == .length }

    /// The errno values of the libraries; the differences are listed in the provider's README ("Differences").
    var errno: Twin<Int32> {
        switch self {
        case .opcode: Twin(EINVAL, EINVAL)
        case .sges, .inline: Twin(ENOMEM, EINVAL)
        case .length: Twin(EOPNOTSUPP, EOPNOTSUPP)
        }
    }
}

extension Stream {
    private static let connected: [ibv_wr_opcode] = [
        IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_LOCAL_INV,
        IBV_WR_BIND_MW,
    ]
    private static let reliable: [ibv_wr_opcode] =
        connected + [
            IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_READ, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
            IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD,
        ]

    private func opcodes(_ plan: PairPlan) -> [ibv_wr_opcode] {
        switch plan.type {
        case IBV_QPT_RC: Stream.reliable
        case IBV_QPT_UC: Stream.connected
        default: [IBV_WR_SEND, IBV_WR_SEND_WITH_IMM]
        }
    }

    /// Fills a random send request that the queue pair accepts, except for its defect.
    func fillSend(_ index: Int, _ pair: PairModel, _ defect: Defect?) {
        let request = requests.sends + index
        request.initialize(to: ibv_send_wr())
        request.pointee.wr_id = random.any()
        request.pointee.sg_list = requests.list(index)
        for flag in [IBV_SEND_SIGNALED, IBV_SEND_FENCE, IBV_SEND_SOLICITED] where random.chance(35) {
            request.pointee.send_flags |= flag.rawValue
        }
        switch defect {
        case .length: request.pointee.opcode = IBV_WR_BIND_MW
        case .inline: request.pointee.opcode = IBV_WR_SEND
        default: request.pointee.opcode = random.pick(opcodes(pair.plan))
        }
        requests.landings[index] = nil
        fillOperation(index, pair, defect)
        let opcode = request.pointee.opcode
        if opcode != IBV_WR_LOCAL_INV && opcode != IBV_WR_BIND_MW { fillData(index, pair, defect) }
        switch defect {
        case .sges: request.pointee.num_sge = Int32(pair.limits.max_send_sge) + 1 + random.any(Int32.self) & 7
        case .opcode: request.pointee.opcode = ibv_wr_opcode(rawValue: random.pick([12, 15, 31, 99]))
        default: break
        }
    }

    private func fillData(_ index: Int, _ pair: PairModel, _ defect: Defect?) {
        let request = requests.sends + index
        let opcode = request.pointee.opcode
        let fetches =
            opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD
        if defect == .inline || (!fetches && pair.limits.max_inline_data > 0 && random.chance(40)) {
            fillInline(index, pair, isTooLong: defect == .inline)
        } else if fetches && pair.limits.max_send_sge > 0 && random.chance(60) {
            fillLanding(index, pair, isAtomic: opcode != IBV_WR_RDMA_READ)
        } else {
            let most = Int(pair.limits.max_send_sge)
            request.pointee.num_sge = Int32(random.chance(50) ? min(1, most) : random.below(most + 1))
            fillSGEs(index, Int(request.pointee.num_sge), withEmpty: true)
        }
    }

    private func fillOperation(_ index: Int, _ pair: PairModel, _ defect: Defect?) {
        let request = requests.sends + index
        switch request.pointee.opcode {
        case IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE_WITH_IMM: request.pointee.imm_data = random.any()
        case IBV_WR_SEND_WITH_INV, IBV_WR_LOCAL_INV: request.pointee.invalidate_rkey = random.any()
        default: break
        }
        switch request.pointee.opcode {
        case IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ:
            request.pointee.wr.rdma.remote_addr = random.any()
            request.pointee.wr.rdma.rkey = random.any()
        case IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD:
            request.pointee.wr.atomic.remote_addr = random.any()
            request.pointee.wr.atomic.rkey = random.any()
            request.pointee.wr.atomic.compare_add = random.any()
            request.pointee.wr.atomic.swap = random.any()
        case IBV_WR_BIND_MW:
            requests.windows[index] = pair.plan.hasBuilders ? 1 : random.below(2)
            request.pointee.bind_mw.rkey = random.any()
            requests.region.pointee.lkey = random.any()
            request.pointee.bind_mw.bind_info = binding(requests.region)
            if defect == .length { request.pointee.bind_mw.bind_info.length = 1 << 31 + 1 + random.next() >> 33 }
        default: break
        }
        guard pair.plan.type == IBV_QPT_UD else { return }
        requests.addresses[index] = random.below(Plan.addresses)
        request.pointee.wr.ud.remote_qpn = random.any(UInt32.self) & 0xFF_FFFF
        request.pointee.wr.ud.remote_qkey = random.any()
    }

    /// A random binding of a window.
    func binding(_ region: UnsafeMutablePointer<ibv_mr>) -> ibv_mw_bind_info {
        let length: UInt64 =
            switch random.below(5) {
            case 0: 0
            case 1: 1 << 31
            default: random.next() >> 33 + 1
            }
        let flags = [
            IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_ATOMIC,
            IBV_ACCESS_ZERO_BASED,
        ]
        var access: UInt32 = 0
        for flag in flags where random.chance(50) { access |= flag.rawValue }
        return ibv_mw_bind_info(mr: region, addr: random.any(), length: length, mw_access_flags: access)
    }

    /// Fills SGEs with random addresses: the device is held and accesses none of them.
    func fillSGEs(_ index: Int, _ count: Int, withEmpty: Bool) {
        let list = requests.list(index)
        for place in 0..<count {
            let length: UInt32 = withEmpty && random.chance(15) ? 0 : max(1, random.any())
            list[place] = ibv_sge(addr: random.any(), length: length, lkey: random.any())
        }
    }

    /// Fills SGEs in `Memory.landing`, to which a library copies data from CQEs.
    func fillLanding(_ index: Int, count: Int, isAtomic: Bool) -> [Landing] {
        let list = requests.list(index)
        var landings: [Landing] = []
        for place in 0..<count {
            let length = isAtomic ? 8 : 1 + random.below(40)
            let offset = random.below(Memory.landingCount - length)
            landings.append(Landing(offset: offset, length: length))
            list[place] = ibv_sge(
                addr: UInt64(UInt(bitPattern: memory.landing + offset)), length: UInt32(length), lkey: random.any())
        }
        return landings
    }

    private func fillLanding(_ index: Int, _ pair: PairModel, isAtomic: Bool) {
        let count = isAtomic ? 1 : 1 + random.below(Int(pair.limits.max_send_sge))
        requests.landings[index] = fillLanding(index, count: count, isAtomic: isAtomic)
        requests.sends[index].num_sge = Int32(count)
    }

    private func fillInline(_ index: Int, _ pair: PairModel, isTooLong: Bool) {
        let request = requests.sends + index
        request.pointee.send_flags |= IBV_SEND_INLINE.rawValue
        let most = max(1, Int(pair.limits.max_send_sge))
        let count = 1 + random.below(most)
        var rest = random.below(Int(pair.limits.max_inline_data) + 1)
        if isTooLong { rest = Int(pair.limits.max_inline_data) + 1 + random.below(40) }
        request.pointee.num_sge = Int32(count)
        for place in 0..<count {
            let length = place == count - 1 ? rest : random.below(rest + 1)
            rest -= length
            let source = memory.source + random.below(Memory.sourceCount - length)
            requests.list(index)[place] = ibv_sge(
                addr: UInt64(UInt(bitPattern: source)), length: UInt32(length), lkey: random.any())
        }
    }
}
