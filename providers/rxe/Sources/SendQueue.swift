import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

/// The send queue of a queue pair, and how a work request becomes an entry of it (`struct rxe_send_wqe`).
///
/// Of an entry only what the kernel reads for its operation is written. The fields in which the kernel keeps its own
/// account (status, state, has_rd_atomic, the rest of dma) start at 0; the words that no operation uses stay as they are.
struct SendQueue {
    var ring = Ring.absent
    /// At most so many elements in a list, so many bytes inline.
    private(set) var maximumElements: UInt32 = 0
    private(set) var maximumInline: UInt32 = 0
    /// Bit n: the opcode n of enum ibv_wr_opcode may be posted.
    var allowed: UInt32 = 0
    var isDatagram = false
    /// Number of the next request (`ssn`), counted from 0.
    var sequence: UInt32 = 0

    /// Where the doorbell rings, and what is written there.
    var descriptor: Int32 = -1
    fileprivate var doorbell = rxe_doorbell()
    /// Where the kernel writes the answer to a doorbell, which nobody reads.
    fileprivate var answer: UInt32 = 0

    var builder = SendBuilder()

    /// False when the entries have no room for that.
    mutating func setLimits(_ limits: ibv_qp_cap) -> Bool {
        let room = ring.entrySize - Int(RXE_SEND_DATA)
        guard Int(limits.max_send_sge) <= room / Int(RXE_SGE_SIZE), Int(limits.max_inline_data) <= room else {
            return false
        }
        maximumElements = limits.max_send_sge
        maximumInline = limits.max_inline_data
        return true
    }
}

/// The opcodes that rxe takes for a service type, as `SendQueue.allowed`.
func allowedOpcodes(_ type: ibv_qp_type) -> UInt32 {
    func bits(_ opcodes: ibv_wr_opcode...) -> UInt32 {
        var all: UInt32 = 0
        for opcode in opcodes { all |= 1 << opcode.rawValue }
        return all
    }
    let sends = bits(IBV_WR_SEND, IBV_WR_SEND_WITH_IMM)
    let connected = sends | bits(IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_LOCAL_INV, IBV_WR_BIND_MW)
    switch type {
    case IBV_QPT_RC:
        return connected
            | bits(IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD)
    case IBV_QPT_UC: return connected
    case IBV_QPT_UD: return sends
    default: return 0
    }
}

/// The opcodes whose data may stand in the request itself (ibv_post_send(3), IBV_SEND_INLINE).
let inlineOpcodes: UInt32 =
    1 << IBV_WR_SEND.rawValue | 1 << IBV_WR_SEND_WITH_IMM.rawValue | 1 << IBV_WR_SEND_WITH_INV.rawValue
    | 1 << IBV_WR_RDMA_WRITE.rawValue | 1 << IBV_WR_RDMA_WRITE_WITH_IMM.rawValue

/// The flags that say nothing about where the data is.
private let plainFlags = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue

extension UnsafeMutablePointer<SendQueue> {
    // MARK: - One request

    /// Writes a work request into an entry: 0, or EINVAL or EOPNOTSUPP, and then the entry does not count.
    @inline(__always)
    func write(_ request: UnsafeMutablePointer<ibv_send_wr>, to entry: UnsafeMutableRawPointer) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        guard opcode < 32, pointee.allowed & (1 << opcode) != 0 else { return EINVAL }
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= pointee.maximumElements else { return EINVAL }
        let place = request.pointee.send_flags & ~plainFlags
        let copied: UInt32?
        if _fastPath(place == 0) {
            copied = copyElements(request.pointee.sg_list, count, to: entry + Int(RXE_SEND_DATA))
        } else {
            guard place == IBV_SEND_INLINE.rawValue else { return EOPNOTSUPP }
            guard inlineOpcodes & (1 << opcode) != 0 else { return EINVAL }
            copied = copyInline(request.pointee.sg_list, count, to: entry + Int(RXE_SEND_DATA))
        }
        guard let length = copied else { return EINVAL }
        if opcode &- IBV_WR_ATOMIC_CMP_AND_SWP.rawValue <= 1 {
            guard length >= 8, request.pointee.wr.atomic.remote_addr & 7 == 0 else { return EINVAL }
        }
        entry.put(request.pointee.wr_id, at: RXE_SEND_WR_ID)
        entry.put(opcode, at: RXE_SEND_OPCODE)
        entry.put(request.pointee.send_flags, at: RXE_SEND_FLAGS)
        entry.put(request.pointee.imm_data, at: RXE_SEND_EX)
        if pointee.isDatagram {
            guard writeAddress(request, to: entry) else { return EINVAL }
        } else if _slowPath(opcode == IBV_WR_BIND_MW.rawValue) {
            guard writeBinding(request, to: entry) else { return EINVAL }
        } else {
            // RDMA and atomic requests name the same things in the same order on both sides.
            withUnsafePointer(to: &request.pointee.wr) { operands in
                let operands = UnsafeRawPointer(operands)
                entry.put(operands.get16(0), at: RXE_SEND_RDMA_ADDRESS)
                entry.put(operands.get16(16), at: RXE_SEND_RDMA_ADDRESS + 16)
            }
            entry.put(request.pointee.wr.rdma.remote_addr, at: RXE_SEND_IOVA)
        }
        startAccount(of: entry, length: length, elements: count)
        return 0
    }

    /// Starts the account that the kernel keeps of an entry, and gives the entry its number.
    @inline(__always)
    func startAccount(of entry: UnsafeMutableRawPointer, length: UInt32, elements: UInt32) {
        entry.put(0 as UInt64, at: RXE_SEND_STATUS)
        // With it, has_rd_atomic.
        entry.put(UInt64(pointee.sequence), at: RXE_SEND_SSN)
        pointee.sequence &+= 1
        let account = entry + Int(RXE_SEND_DMA)
        account.put(length, at: RXE_DMA_LENGTH)
        account.put(length, at: RXE_DMA_RESID)
        account.put(UInt64(elements) << 32, at: RXE_DMA_CURRENT_SGE)
        account.put(0 as UInt64, at: RXE_DMA_SGE_OFFSET)
    }

    /// Copies inline data: the number of bytes, or nil when there is no room for them.
    @inline(__always)
    private func copyInline(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, to data: UnsafeMutableRawPointer
    ) -> UInt32? {
        guard count != 0 else { return 0 }
        guard var element = list else { return nil }
        var target = data
        var room = pointee.maximumInline
        var rest = count
        repeat {
            let length = element.pointee.length
            guard length <= room else { return nil }
            if length != 0 {
                guard let bytes = UnsafeRawPointer(bitPattern: UInt(element.pointee.addr)) else { return nil }
                target.copyMemory(from: bytes, byteCount: Int(length))
            }
            target += Int(length)
            room &-= length
            element += 1
            rest &-= 1
        } while rest != 0
        return pointee.maximumInline &- room
    }

    @inline(__always)
    private func writeAddress(
        _ request: UnsafeMutablePointer<ibv_send_wr>, to entry: UnsafeMutableRawPointer
    ) -> Bool {
        guard let ah = request.pointee.wr.ud.ah else { return false }
        entry.put(request.pointee.wr.ud.remote_qpn, at: RXE_SEND_UD_QPN)
        entry.put(request.pointee.wr.ud.remote_qkey, at: RXE_SEND_UD_QKEY)
        entry.put(UInt64(ah.rxe.pointee.number) << 32, at: RXE_SEND_UD_PKEY_INDEX)
        return true
    }

    /// A bind moves no data. False when it names no window or no region.
    @inline(never)
    private func writeBinding(
        _ request: UnsafeMutablePointer<ibv_send_wr>, to entry: UnsafeMutableRawPointer
    ) -> Bool {
        let binding = request.pointee.bind_mw
        guard request.pointee.num_sge == 0, request.pointee.imm_data == 0, let window = binding.mw,
            binding.bind_info.mr != nil
        else { return false }
        writeBinding(window, key: binding.rkey, binding.bind_info, to: entry)
        return true
    }

    /// What a bind of a memory window names.
    func writeBinding(
        _ window: UnsafeMutablePointer<ibv_mw>, key: UInt32, _ info: ibv_mw_bind_info,
        to entry: UnsafeMutableRawPointer
    ) {
        entry.put(info.addr, at: RXE_SEND_MW_ADDRESS)
        entry.put(info.length, at: RXE_SEND_MW_LENGTH)
        entry.put(info.mr.pointee.lkey, at: RXE_SEND_MW_MR_LKEY)
        entry.put(window.pointee.rkey, at: RXE_SEND_MW_MW_RKEY)
        entry.put(key, at: RXE_SEND_MW_RKEY)
        entry.put(info.mw_access_flags, at: RXE_SEND_MW_ACCESS)
    }

    // MARK: - The doorbell

    /// Prepares what is written whenever the doorbell rings.
    func prepareDoorbell(handle: UInt32) {
        pointee.doorbell.command = UInt32(RXE_DOORBELL_COMMAND)
        pointee.doorbell.in_words = UInt16(RXE_DOORBELL_IN_WORDS)
        pointee.doorbell.out_words = UInt16(RXE_DOORBELL_OUT_WORDS)
        pointee.doorbell.qp_handle = handle
        pointee.doorbell.wqe_size = UInt32(RXE_DOORBELL_WQE_SIZE)
        withUnsafeMutablePointer(to: &pointee.answer) { answer in
            pointee.doorbell.response = UInt64(UInt(bitPattern: answer))
        }
    }

    /// Tells the kernel that the queue has new entries: 0, or why it does not take them.
    @inline(__always)
    func ring() -> Int32 {
        let size = MemoryLayout<rxe_doorbell>.size
        let written = withUnsafePointer(to: &pointee.doorbell) { linux_write(pointee.descriptor, $0, size) }
        return _fastPath(written == size) ? 0 : written < 0 ? linux_errno() : EIO
    }
}

/// Copies a list of elements: the sum of their lengths, or nil when 32 bits do not hold it.
@inline(__always)
func copyElements(_ list: UnsafePointer<ibv_sge>?, _ count: UInt32, to data: UnsafeMutableRawPointer) -> UInt32? {
    guard count != 0 else { return 0 }
    guard let list = UnsafeRawPointer(list) else { return nil }
    data.put(list.get16(0), at: 0)
    var total = UInt64(list.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    if _slowPath(count > 1) {
        for index in 1..<Int(count) {
            data.put(list.get16(16 &* index), at: 16 &* index)
            total &+= UInt64(list.loadUnaligned(fromByteOffset: 16 &* index &+ 8, as: UInt32.self))
        }
        guard total <= UInt32.max else { return nil }
    }
    return UInt32(truncatingIfNeeded: total)
}
