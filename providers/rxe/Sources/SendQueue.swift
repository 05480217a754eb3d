import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

/// The send queue of a queue pair. Writes work requests as WQEs (`struct rxe_send_wqe`).
///
/// Only the fields that the kernel reads for the opcode are written. The fields in which the kernel keeps its progress
/// (`status`, `state`, `has_rd_atomic`, the rest of `dma`) are set to 0; the fields that no operation uses are not
/// written.
struct SendQueue {
    var ring = Ring.absent
    /// `ibv_qp_cap.max_send_sge`, and `max_inline_data` in bytes.
    private(set) var maxSGE: UInt32 = 0
    private(set) var maxInlineData: UInt32 = 0
    /// Bit n: the opcode n of `ibv_wr_opcode` may be posted.
    var allowed: UInt32 = 0
    /// Whether the queue pair is UD.
    var isDatagram = false
    /// The send sequence number of the next WQE (`rxe_send_wqe.ssn`), counted from 0.
    var ssn: UInt32 = 0

    /// The uverbs file descriptor, and the command that is written to it as the doorbell.
    var descriptor: Int32 = -1
    fileprivate var doorbell = rxe_doorbell()
    /// The buffer for the kernel's response to a doorbell (`ib_uverbs_post_send_resp`), which is not read.
    fileprivate var response: UInt32 = 0

    var builder = SendBuilder()

    /// Sets `maxSGE` and `maxInlineData`. Returns false when a WQE is too small for them.
    mutating func setLimits(_ limits: ibv_qp_cap) -> Bool {
        let dataSize = ring.entrySize - Int(RXE_SEND_DATA)
        guard Int(limits.max_send_sge) <= dataSize / Int(RXE_SGE_SIZE), Int(limits.max_inline_data) <= dataSize else {
            return false
        }
        maxSGE = limits.max_send_sge
        maxInlineData = limits.max_inline_data
        return true
    }
}

/// The opcodes that rxe supports on a QP type, in the form of `SendQueue.allowed`.
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

/// The opcodes that allow inline data (IBV_SEND_INLINE, ibv_post_send(3)), one bit per opcode.
let inlineOpcodes: UInt32 =
    1 << IBV_WR_SEND.rawValue | 1 << IBV_WR_SEND_WITH_IMM.rawValue | 1 << IBV_WR_SEND_WITH_INV.rawValue
    | 1 << IBV_WR_RDMA_WRITE.rawValue | 1 << IBV_WR_RDMA_WRITE_WITH_IMM.rawValue

/// The send flags that are allowed with every opcode.
private let commonFlags = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue

extension UnsafeMutablePointer<SendQueue> {
    // MARK: - WQEs

    /// Writes a work request to a WQE. Returns 0, EINVAL or EOPNOTSUPP. After an error the WQE must not be posted.
    @inline(__always)
    func write(_ request: UnsafeMutablePointer<ibv_send_wr>, to wqe: UnsafeMutableRawPointer) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        guard opcode < 32, pointee.allowed & (1 << opcode) != 0 else { return EINVAL }
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= pointee.maxSGE else { return EINVAL }
        let otherFlags = request.pointee.send_flags & ~commonFlags
        let dataLength: UInt32?
        if _fastPath(otherFlags == 0) {
            dataLength = copySGEs(request.pointee.sg_list, count, to: wqe + Int(RXE_SEND_DATA))
        } else {
            guard otherFlags == IBV_SEND_INLINE.rawValue else { return EOPNOTSUPP }
            guard inlineOpcodes & (1 << opcode) != 0 else { return EINVAL }
            dataLength = copyInline(request.pointee.sg_list, count, to: wqe + Int(RXE_SEND_DATA))
        }
        guard let length = dataLength else { return EINVAL }
        if opcode &- IBV_WR_ATOMIC_CMP_AND_SWP.rawValue <= 1 {
            guard length >= 8, request.pointee.wr.atomic.remote_addr & 7 == 0 else { return EINVAL }
        }
        wqe.put(request.pointee.wr_id, at: RXE_SEND_WR_ID)
        wqe.put(opcode, at: RXE_SEND_OPCODE)
        wqe.put(request.pointee.send_flags, at: RXE_SEND_FLAGS)
        wqe.put(request.pointee.imm_data, at: RXE_SEND_EX)
        if pointee.isDatagram {
            guard writeAddress(request, to: wqe) else { return EINVAL }
        } else if _slowPath(opcode == IBV_WR_BIND_MW.rawValue) {
            guard writeBinding(request, to: wqe) else { return EINVAL }
        } else {
            // `ibv_send_wr.wr` and `rxe_send_wr.wr` have the same layout for RDMA and atomic operations.
            withUnsafePointer(to: &request.pointee.wr) { operands in
                let operands = UnsafeRawPointer(operands)
                wqe.put(operands.get16(0), at: RXE_SEND_RDMA_ADDRESS)
                wqe.put(operands.get16(16), at: RXE_SEND_RDMA_ADDRESS + 16)
            }
            wqe.put(request.pointee.wr.rdma.remote_addr, at: RXE_SEND_IOVA)
        }
        initializeState(of: wqe, length: length, sgeCount: count)
        return 0
    }

    /// Initialises the fields in which the kernel keeps its progress, and sets `ssn`.
    @inline(__always)
    func initializeState(of wqe: UnsafeMutableRawPointer, length: UInt32, sgeCount: UInt32) {
        wqe.put(0 as UInt64, at: RXE_SEND_STATUS)
        // 64 bits: ssn, and has_rd_atomic, which is 0.
        wqe.put(UInt64(pointee.ssn), at: RXE_SEND_SSN)
        pointee.ssn &+= 1
        let dma = wqe + Int(RXE_SEND_DMA)
        dma.put(length, at: RXE_DMA_LENGTH)
        dma.put(length, at: RXE_DMA_RESID)
        dma.put(UInt64(sgeCount) << 32, at: RXE_DMA_CURRENT_SGE)
        dma.put(0 as UInt64, at: RXE_DMA_SGE_OFFSET)
    }

    /// Copies the data of a scatter/gather list inline. Returns the number of bytes; nil when it exceeds
    /// `max_inline_data`, or an address is nil.
    @inline(__always)
    private func copyInline(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, to data: UnsafeMutableRawPointer
    ) -> UInt32? {
        guard count != 0 else { return 0 }
        guard var sge = list else { return nil }
        var target = data
        var available = pointee.maxInlineData
        var remaining = count
        repeat {
            let length = sge.pointee.length
            guard length <= available else { return nil }
            if length != 0 {
                guard let bytes = UnsafeRawPointer(bitPattern: UInt(sge.pointee.addr)) else { return nil }
                target.copyMemory(from: bytes, byteCount: Int(length))
            }
            target += Int(length)
            available &-= length
            sge += 1
            remaining &-= 1
        } while remaining != 0
        return pointee.maxInlineData &- available
    }

    @inline(__always)
    private func writeAddress(
        _ request: UnsafeMutablePointer<ibv_send_wr>, to wqe: UnsafeMutableRawPointer
    ) -> Bool {
        guard let ah = request.pointee.wr.ud.ah else { return false }
        wqe.put(request.pointee.wr.ud.remote_qpn, at: RXE_SEND_UD_QPN)
        wqe.put(request.pointee.wr.ud.remote_qkey, at: RXE_SEND_UD_QKEY)
        wqe.put(UInt64(ah.rxe.pointee.number) << 32, at: RXE_SEND_UD_PKEY_INDEX)
        return true
    }

    /// Writes an IBV_WR_BIND_MW, which has no SGEs. Returns false when the window or the memory region is nil.
    @inline(never)
    private func writeBinding(
        _ request: UnsafeMutablePointer<ibv_send_wr>, to wqe: UnsafeMutableRawPointer
    ) -> Bool {
        let binding = request.pointee.bind_mw
        guard request.pointee.num_sge == 0, request.pointee.imm_data == 0, let window = binding.mw,
            binding.bind_info.mr != nil
        else { return false }
        writeBinding(window, key: binding.rkey, binding.bind_info, to: wqe)
        return true
    }

    /// Writes the operands of IBV_WR_BIND_MW (`rxe_send_wr.wr.mw`).
    func writeBinding(
        _ window: UnsafeMutablePointer<ibv_mw>, key: UInt32, _ info: ibv_mw_bind_info,
        to wqe: UnsafeMutableRawPointer
    ) {
        wqe.put(info.addr, at: RXE_SEND_MW_ADDRESS)
        wqe.put(info.length, at: RXE_SEND_MW_LENGTH)
        wqe.put(info.mr.pointee.lkey, at: RXE_SEND_MW_MR_LKEY)
        wqe.put(window.pointee.rkey, at: RXE_SEND_MW_MW_RKEY)
        wqe.put(key, at: RXE_SEND_MW_RKEY)
        wqe.put(info.mw_access_flags, at: RXE_SEND_MW_ACCESS)
    }

    // MARK: - The doorbell

    /// Prepares the command that is written as the doorbell: an empty POST_SEND.
    func prepareDoorbell(handle: UInt32) {
        pointee.doorbell.command = UInt32(RXE_DOORBELL_COMMAND)
        pointee.doorbell.in_words = UInt16(RXE_DOORBELL_IN_WORDS)
        pointee.doorbell.out_words = UInt16(RXE_DOORBELL_OUT_WORDS)
        pointee.doorbell.qp_handle = handle
        pointee.doorbell.wqe_size = UInt32(RXE_DOORBELL_WQE_SIZE)
        withUnsafeMutablePointer(to: &pointee.response) { response in
            pointee.doorbell.response = UInt64(UInt(bitPattern: response))
        }
    }

    /// Rings the doorbell: the kernel reads the producer index. Returns 0 or the errno of write(2).
    @inline(__always)
    func ringDoorbell() -> Int32 {
        let size = MemoryLayout<rxe_doorbell>.size
        let written = withUnsafePointer(to: &pointee.doorbell) { linux_write(pointee.descriptor, $0, size) }
        return _fastPath(written == size) ? 0 : written < 0 ? linux_errno() : EIO
    }
}

/// Copies a scatter/gather list. Returns the sum of the lengths; nil when it exceeds 32 bits or the list is nil.
@inline(__always)
func copySGEs(_ list: UnsafePointer<ibv_sge>?, _ count: UInt32, to data: UnsafeMutableRawPointer) -> UInt32? {
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
