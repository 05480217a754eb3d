import CIBVerbs
import Glibc
import PeerSupport

/// A chain of work requests that both libraries are given, one after the other; what is an object of one library is
/// put in before its turn.
final class Requests {
    static let capacity = 512
    static let elementCapacity = 40
    let sends = UnsafeMutablePointer<ibv_send_wr>.allocate(capacity: capacity)
    let receives = UnsafeMutablePointer<ibv_recv_wr>.allocate(capacity: capacity)
    let elements = UnsafeMutablePointer<ibv_sge>.allocate(capacity: capacity * elementCapacity)
    let buffers = UnsafeMutablePointer<ibv_data_buf>.allocate(capacity: elementCapacity)
    /// A region of any key: libraries look at nothing else of it.
    let region = UnsafeMutablePointer<ibv_mr>.allocate(capacity: 1)
    /// Which address handle a datagram names, which window is bound: for each request.
    var addresses = [Int](repeating: 0, count: capacity)
    var windows = [Int](repeating: 0, count: capacity)
    var landings = [[Landing]?](repeating: nil, count: capacity)

    init() { region.initialize(to: ibv_mr()) }

    deinit {
        sends.deallocate()
        receives.deallocate()
        elements.deallocate()
        buffers.deallocate()
        region.deallocate()
    }

    func list(_ index: Int) -> UnsafeMutablePointer<ibv_sge> { elements + index * Requests.elementCapacity }

    func linkSends(_ count: Int) {
        for index in 0..<count { sends[index].next = index + 1 < count ? sends + index + 1 : nil }
    }

    func linkReceives(_ count: Int) {
        for index in 0..<count { receives[index].next = index + 1 < count ? receives + index + 1 : nil }
    }

    /// Puts in the objects of a side.
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

/// What is wrong with the last request of a chain.
enum Defect: CaseIterable {
    case opcode, elements, inline, length

    /// libmlx5 has written a part of the request, and rings for those before it with what it wrote; and it forgets that
    /// the next request is to wait for a key that was changed.
    var isLate: Bool { self == .inline || self == .length }

    /// What the libraries answer: where they differ, that is known (README of the provider, "Differences").
    var errno: Twin<Int32> {
        switch self {
        case .opcode: Twin(EINVAL, EINVAL)
        case .elements, .inline: Twin(ENOMEM, EINVAL)
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

    /// A send request of any kind that the queue pair takes, but for its defect.
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
        case .elements: request.pointee.num_sge = Int32(pair.limits.max_send_sge) + 1 + random.any(Int32.self) & 7
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
            fillElements(index, Int(request.pointee.num_sge), withEmpty: true)
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

    /// Anything that a window may be bound to.
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

    /// Pieces of memory anywhere: the device is held and looks at none of them.
    func fillElements(_ index: Int, _ count: Int, withEmpty: Bool) {
        let list = requests.list(index)
        for place in 0..<count {
            let length: UInt32 = withEmpty && random.chance(15) ? 0 : max(1, random.any())
            list[place] = ibv_sge(addr: random.any(), length: length, lkey: random.any())
        }
    }

    /// Pieces of landing memory, to which a library copies what stands in a completion.
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
