import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

/// The way to the send queue of a device whose send queue is the kernel's own: work requests go there by a command
/// (POST_SEND). A list goes in as few commands as there is room for in the memory that each queue pair has for it; the
/// kernel takes the requests of one in order.
///
/// Where the memory is:
///
/// | byte | what |
/// |---|---|
/// | 0 | `struct ib_uverbs_cmd_hdr`, which only write(2) takes |
/// | 8 | `struct ib_uverbs_post_send` |
/// | 32 | `struct ib_uverbs_send_wr` of each request |
/// | behind | `struct ib_uverbs_sge` of each element, in the same order |
/// | capacity | `struct ib_uverbs_post_send_resp`, the answer |
public struct SendCommand {
    private static let leastCapacity = 8192

    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    private let queuePair: UInt32
    private let maximumElements: UInt32
    /// Bit n: the opcode n of enum ibv_wr_opcode may be posted.
    private let allowed: UInt32
    private let isDatagram: Bool

    /// The way to the send queue of a queue pair. `free` gives its memory back.
    /// - Parameters:
    ///   - queuePair: the kernel's handle.
    ///   - type: its transport service.
    ///   - maximumElements: of a request's list; at most 1024.
    public init(queuePair: UInt32, type: ibv_qp_type, maximumElements: UInt32) {
        self.queuePair = queuePair
        self.maximumElements = min(maximumElements, 1024)
        allowed = commandOpcodes(type)
        isDatagram = type == IBV_QPT_UD
        let one = Int(KERNEL_SEND_REQUESTS + KERNEL_SEND_SIZE) + Int(KERNEL_SEND_SGE_SIZE) * Int(self.maximumElements)
        capacity = max(Self.leastCapacity, one)
        memory = .allocate(byteCount: capacity + MemoryLayout<UInt32>.size, alignment: 16)
    }

    /// Gives the memory back.
    public func free() { memory.deallocate() }

    /// Posts a list of requests. 0, or an errno value; `bad` then gets the first request that was not taken.
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

    /// Writes as many requests of a list as there is room for: how many, which is the first of the others, and what is
    /// wrong with that one if anything is.
    @inline(__always)
    private func write(
        _ first: UnsafeMutablePointer<ibv_send_wr>
    ) -> (count: UInt32, next: UnsafeMutablePointer<ibv_send_wr>?, fault: Int32) {
        var (count, elements, fault): (UInt32, UInt32, Int32) = (0, 0, 0)
        var room = capacity &- Int(KERNEL_SEND_REQUESTS)
        var next: UnsafeMutablePointer<ibv_send_wr>? = first
        while let request = next {
            fault = check(request)
            if _slowPath(fault != 0) { break }
            let more = UInt32(bitPattern: request.pointee.num_sge)
            room &-= Int(KERNEL_SEND_SIZE) &+ Int(KERNEL_SEND_SGE_SIZE) &* Int(more)
            if room < 0 { break }
            count &+= 1
            elements &+= more
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
        command.pointee.sge_count = elements
        command.pointee.wqe_size = UInt32(KERNEL_SEND_SIZE)
        return (count, next, fault)
    }

    /// What the kernel must not get to see, because it does not look or cannot say which request it was: 0, EINVAL, or
    /// EOPNOTSUPP. It looks for itself at the state, the lengths and the keys.
    @inline(__always)
    private func check(_ request: UnsafeMutablePointer<ibv_send_wr>) -> Int32 {
        let opcode = request.pointee.opcode.rawValue
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard opcode < 32, allowed & (1 << opcode) != 0, count <= maximumElements,
            count == 0 || request.pointee.sg_list != nil, !isDatagram || request.pointee.wr.ud.ah != nil
        else { return EINVAL }
        let known = IBV_SEND_FENCE.rawValue | IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue
        let others = request.pointee.send_flags & ~known
        // No inline data: there are no bytes inside a request.
        return others == 0 ? 0 : others == IBV_SEND_INLINE.rawValue ? EINVAL : EOPNOTSUPP
    }

    /// Writes a request and its list of elements; where the next list goes.
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
        var element = UnsafeRawPointer(request.pointee.sg_list)
        for _ in 0..<Int(request.pointee.num_sge) {
            target.put(element.unsafelyUnwrapped.get16(0), at: 0)
            element = element.unsafelyUnwrapped + Int(KERNEL_SEND_SGE_SIZE)
            target += Int(KERNEL_SEND_SGE_SIZE)
        }
        return target
    }

    /// Gives what was written to the kernel. 0, or an errno value; `refused` then is the number of the first request that
    /// was not taken, from 1, where the kernel got so far as to look at requests.
    private func send(_ device: borrowing KernelDevice) -> (refusal: Int32, refused: UInt32) {
        let command = memory.assumingMemoryBound(to: kernel_post_send.self)
        let count =
            Int(KERNEL_SEND_REQUESTS) &+ Int(KERNEL_SEND_SIZE) &* Int(command.pointee.wr_count)
            &+ Int(KERNEL_SEND_SGE_SIZE) &* Int(command.pointee.sge_count)
        let answer = memory + capacity
        answer.storeBytes(of: 0, as: UInt32.self)
        command.pointee.response = UInt64(UInt(bitPattern: answer))
        let refusal = device.post(
            UnsafeMutableRawBufferPointer(start: memory, count: count),
            UnsafeMutableRawBufferPointer(start: answer, count: MemoryLayout<UInt32>.size))
        return (refusal, answer.load(as: UInt32.self))
    }
}

/// The opcodes that POST_SEND has for a transport service (`ib_uverbs_post_send` of the kernel), as bits.
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
    /// The request of a number, counted from this one as 1; this one where the number is none of theirs.
    fileprivate func following(_ number: UInt32, of count: UInt32) -> UnsafeMutablePointer<ibv_send_wr> {
        var request = self
        guard number > 0, number <= count else { return request }
        for _ in 1..<number { request = request.pointee.next.unsafelyUnwrapped }
        return request
    }
}

extension KernelDevice {
    /// Gives a POST_SEND to the kernel that lies in memory as it would be written, header and all. 0, or a positive errno
    /// value.
    fileprivate borrowing func post(
        _ command: UnsafeMutableRawBufferPointer, _ answer: UnsafeMutableRawBufferPointer
    ) -> Int32 {
        if !isWritten(.postSend) {
            let headerSize = Int(KERNEL_SEND_HEADER_SIZE)
            var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(WriteCommand.postSend.rawValue))
            method.input(
                UVERBS_ATTR_CORE_IN,
                from: UnsafeRawBufferPointer(
                    start: command.baseAddress.unsafelyUnwrapped + headerSize, count: command.count - headerSize))
            method.output(UVERBS_ATTR_CORE_OUT, into: answer)
            let error = method.call(descriptor, driver: driver, calls)
            if !notes(error, of: .postSend) { return error }
        }
        let header = command.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: kernel_post_send.self)
        header.pointee.command = WriteCommand.postSend.rawValue
        header.pointee.in_words = UInt16(truncatingIfNeeded: command.count / 4)
        header.pointee.out_words = UInt16(truncatingIfNeeded: answer.count / 4)
        return calls.write(descriptor, command.baseAddress, command.count)
    }
}
