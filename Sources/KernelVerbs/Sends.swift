import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

/// The posting of send work requests by POST_SEND commands (`struct ib_uverbs_post_send`), for a device whose send
/// queue is in the kernel. Each queue pair has a command buffer; a list of work requests is posted in as few commands
/// as the buffer allows. The kernel processes the requests of a command in order.
///
/// The layout of the command buffer:
///
/// | byte | content |
/// |---|---|
/// | 0 | `struct ib_uverbs_cmd_hdr`, for write(2) only |
/// | 8 | `struct ib_uverbs_post_send` |
/// | 32 | `struct ib_uverbs_send_wr` of each request |
/// | after the requests | `struct ib_uverbs_sge` of each SGE, in the same order |
/// | capacity | `struct ib_uverbs_post_send_resp` |
public struct SendCommand {
    private static let leastCapacity = 8192

    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    private let queuePair: UInt32
    private let maxSGE: UInt32
    /// Bit n: opcode n of `enum ibv_wr_opcode` may be posted.
    private let allowed: UInt32
    private let isDatagram: Bool

    /// Allocates the command buffer of a queue pair. `free` frees it.
    /// - Parameters:
    ///   - queuePair: The kernel's handle (`qp_handle`).
    ///   - type: The transport service (`enum ibv_qp_type`).
    ///   - maxSGE: The maximum number of SGEs of a work request (`max_send_sge`); at most 1024.
    public init(queuePair: UInt32, type: ibv_qp_type, maxSGE: UInt32) {
        self.queuePair = queuePair
        self.maxSGE = min(maxSGE, 1024)
        allowed = commandOpcodes(type)
        isDatagram = type == IBV_QPT_UD
        let one = Int(KERNEL_SEND_REQUESTS + KERNEL_SEND_SIZE) + Int(KERNEL_SEND_SGE_SIZE) * Int(self.maxSGE)
        capacity = max(Self.leastCapacity, one)
        memory = .allocate(byteCount: capacity + MemoryLayout<UInt32>.size, alignment: 16)
    }

    /// Frees the command buffer.
    public func free() { memory.deallocate() }

    /// Posts a list of work requests (`ibv_post_send`).
    /// - Returns: 0, or an errno value; `bad` (`bad_wr`) is then the first request that was not posted.
    @inline(__always)
    public func post(
        _ first: UnsafeMutablePointer<ibv_send_wr>?, to device: borrowing KernelDevice,
        bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_send_wr>?>?
    ) -> Int32 {
        var batch = first
        while let start = batch {
            let (count, next, fault) = write(start)
            if count > 0 {
                let (refusal, refused) = send(device)
                if _slowPath(refusal != 0) {
                    bad?.pointee = start.following(refused, of: count)
                    return refusal
                }
            }
            if _slowPath(fault != 0) {
                bad?.pointee = next
                return fault
            }
            batch = next
        }
        return 0
    }

    // MARK: - Writing

    /// Writes as many requests of a list as fit into the buffer. Returns their number, the next request, and the errno
    /// value of the next request if it is invalid.
    @inline(__always)
    private func write(
        _ first: UnsafeMutablePointer<ibv_send_wr>
    ) -> (count: UInt32, next: UnsafeMutablePointer<ibv_send_wr>?, fault: Int32) {
        var (count, sgeCount, fault): (UInt32, UInt32, Int32) = (0, 0, 0)
        var room = capacity &- Int(KERNEL_SEND_REQUESTS)
        var next: UnsafeMutablePointer<ibv_send_wr>? = first
        while let request = next {
            fault = check(request)
            if _slowPath(fault != 0) { break }
            let more = UInt32(bitPattern: request.pointee.num_sge)
            room &-= Int(KERNEL_SEND_SIZE) &+ Int(KERNEL_SEND_SGE_SIZE) &* Int(more)
            if room < 0 { break }
            count &+= 1
            sgeCount &+= more
            next = request.pointee.next
        }
        var entry = memory + Int(KERNEL_SEND_REQUESTS)
        var list = entry + Int(KERNEL_SEND_SIZE) &* Int(count)
        var current = first
        for index in 0..<Int(count) {
            list = write(current, to: entry, list)
            entry += Int(KERNEL_SEND_SIZE)
            if index &+ 1 < Int(count) { current = current.pointee.next.unsafelyUnwrapped }
        }
        let command = memory.assumingMemoryBound(to: kernel_post_send.self)
        command.pointee.qp_handle = queuePair
        command.pointee.wr_count = count
        command.pointee.sge_count = sgeCount
        command.pointee.wqe_size = UInt32(KERNEL_SEND_SIZE)
        return (count, next, fault)
    }

    /// Checks a request for errors that the kernel does not check or cannot attribute to a request. Returns 0, EINVAL,
    /// or EOPNOTSUPP. The kernel checks the state, the lengths and the keys.
    @inline(__always)
    private func check(_ request: UnsafeMutablePointer<ibv_send_wr>) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard opcode < 32, allowed & (1 << opcode) != 0, count <= maxSGE,
            count == 0 || request.pointee.sg_list != nil, !isDatagram || request.pointee.wr.ud.ah != nil
        else { return EINVAL }
        let known = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue
        let others = request.pointee.send_flags & ~known
        // No inline data: struct ib_uverbs_send_wr has no room for it.
        return others == 0 ? 0 : others == IBV_SEND_INLINE.rawValue ? EINVAL : EOPNOTSUPP
    }

    /// Writes a request and its SGEs. Returns the address of the next request's SGEs.
    @inline(__always)
    private func write(
        _ request: UnsafeMutablePointer<ibv_send_wr>, to entry: UnsafeMutableRawPointer, _ list: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        entry.put(request.pointee.wr_id, at: Int(KERNEL_SEND_WR_ID))
        entry.put(request.pointee.num_sge, at: Int(KERNEL_SEND_SGE_COUNT))
        entry.put(request.pointee.opcode.rawValue, at: Int(KERNEL_SEND_OPCODE))
        entry.put(request.pointee.send_flags, at: Int(KERNEL_SEND_FLAGS))
        entry.put(request.pointee.imm_data, at: Int(KERNEL_SEND_EX))
        if isDatagram {
            let handle = request.pointee.wr.ud.ah.unsafelyUnwrapped.pointee.handle
            entry.put(handle, at: Int(KERNEL_SEND_UD_AH))
            entry.put(request.pointee.wr.ud.remote_qpn, at: Int(KERNEL_SEND_UD_QPN))
            entry.put(UInt64(request.pointee.wr.ud.remote_qkey), at: Int(KERNEL_SEND_UD_QKEY))
        } else {
            withUnsafePointer(to: &request.pointee.wr) { operands in
                let operands = UnsafeRawPointer(operands)
                entry.put(operands.get16(0), at: Int(KERNEL_SEND_OPERANDS))
                entry.put(operands.get16(16), at: Int(KERNEL_SEND_OPERANDS) + 16)
            }
        }
        var target = list
        var sge = UnsafeRawPointer(request.pointee.sg_list)
        for _ in 0..<Int(request.pointee.num_sge) {
            target.put(sge.unsafelyUnwrapped.get16(0), at: 0)
            sge = sge.unsafelyUnwrapped + Int(KERNEL_SEND_SGE_SIZE)
            target += Int(KERNEL_SEND_SGE_SIZE)
        }
        return target
    }

    /// Executes the command in the buffer. Returns 0, or an errno value; `refused` is then the number, from 1, of the
    /// first request that was not posted (`bad_wr`), or 0 if the kernel failed before it processed the requests.
    private func send(_ device: borrowing KernelDevice) -> (refusal: Int32, refused: UInt32) {
        let command = memory.assumingMemoryBound(to: kernel_post_send.self)
        let count =
            Int(KERNEL_SEND_REQUESTS) &+ Int(KERNEL_SEND_SIZE) &* Int(command.pointee.wr_count)
            &+ Int(KERNEL_SEND_SGE_SIZE) &* Int(command.pointee.sge_count)
        let response = memory + capacity
        response.storeBytes(of: 0, as: UInt32.self)
        command.pointee.response = UInt64(UInt(bitPattern: response))
        let refusal = device.post(
            UnsafeMutableRawBufferPointer(start: memory, count: count),
            UnsafeMutableRawBufferPointer(start: response, count: MemoryLayout<UInt32>.size))
        return (refusal, response.load(as: UInt32.self))
    }
}

/// The opcodes that the kernel's POST_SEND supports for a transport service: bit n is opcode n of `enum ibv_wr_opcode`.
public func commandOpcodes(_ type: ibv_qp_type) -> UInt32 {
    func bits(_ opcodes: ibv_wr_opcode...) -> UInt32 {
        var all: UInt32 = 0
        for opcode in opcodes { all |= 1 << opcode.rawValue }
        return all
    }
    let sends = bits(IBV_WR_SEND, IBV_WR_SEND_WITH_IMM)
    switch type {
    case IBV_QPT_RC:
        return sends
            | bits(
                IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
                IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_SEND_WITH_INV)
    case IBV_QPT_UC: return sends | bits(IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM)
    case IBV_QPT_UD: return sends
    default: return 0
    }
}

extension UnsafeMutablePointer<ibv_send_wr> {
    /// The request of a number in the list, where this request is number 1; this request if the number is not 1 to
    /// `count`.
    fileprivate func following(_ number: UInt32, of count: UInt32) -> UnsafeMutablePointer<ibv_send_wr> {
        var request = self
        guard number > 0, number <= count else { return request }
        for _ in 1..<number { request = request.pointee.next.unsafelyUnwrapped }
        return request
    }
}

extension KernelDevice {
    /// Executes a POST_SEND command that begins with memory for its header. Returns 0, or a positive errno value.
    fileprivate borrowing func post(
        _ command: UnsafeMutableRawBufferPointer, _ response: UnsafeMutableRawBufferPointer
    ) -> Int32 {
        if !isWritten(.postSend) {
            let headerSize = Int(KERNEL_SEND_HEADER_SIZE)
            var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(WriteCommand.postSend.rawValue))
            method.input(
                UVERBS_ATTR_CORE_IN,
                from: UnsafeRawBufferPointer(
                    start: command.baseAddress.unsafelyUnwrapped + headerSize, count: command.count - headerSize))
            method.output(UVERBS_ATTR_CORE_OUT, into: response)
            let error = method.call(descriptor, driver: driver, calls)
            if !notes(error, of: .postSend) { return error }
        }
        let header = command.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: kernel_post_send.self)
        header.pointee.command = WriteCommand.postSend.rawValue
        header.pointee.in_words = UInt16(truncatingIfNeeded: command.count / 4)
        header.pointee.out_words = UInt16(truncatingIfNeeded: response.count / 4)
        return calls.write(descriptor, command.baseAddress, command.count)
    }
}
