import CIBVerbs
import CProviderABI

/// The opcode of a send work request with its operands, without its data (`ibv_send_wr.opcode`, `wr`):
/// `postSend(.write(to: remote), sge)`.
///
/// A plain value without references.
@frozen public struct SendOperation: Hashable, Sendable {
    @usableFromInline let opcodeRaw: UInt32
    /// Immediate data in network byte order (`imm_data`), or the rkey to invalidate (`invalidate_rkey`).
    @usableFromInline let immediate: UInt32
    // The union `wr` of struct ibv_send_wr: `wr.rdma` (`remote_addr`, `rkey`), `wr.atomic` (`remote_addr`,
    // `compare_add`, `swap`, `rkey`) or `wr.ud` (`ah`, `remote_qpn`, `remote_qkey`). Of a flush, which has no place there:
    // `remote_addr`, `rkey`, `len`, and `type` and `level` in the low two bytes.
    @usableFromInline let word0: UInt64
    @usableFromInline let word1: UInt64
    @usableFromInline let word2: UInt64
    @usableFromInline let word3: UInt64
    /// XRC: number of the peer's shared receive queue (`qp_type.xrc.remote_srqn`).
    @usableFromInline let remoteSRQ: UInt32

    @inlinable @inline(__always)
    init(
        _ opcode: ibv_wr_opcode, immediate: UInt32 = 0, _ word0: UInt64 = 0, _ word1: UInt64 = 0, _ word2: UInt64 = 0,
        _ word3: UInt64 = 0, remoteSRQ: UInt32 = 0
    ) {
        opcodeRaw = opcode.rawValue
        self.immediate = immediate
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
        self.remoteSRQ = remoteSRQ
    }

    /// Whether it has operands besides its data.
    @inlinable @inline(__always)
    var hasOperands: Bool { word0 | word1 | word2 | word3 != 0 || remoteSRQ != 0 }

    /// Its opcode.
    @inlinable public var opcode: Opcode { Opcode(rawValue: opcodeRaw) }

    /// Sends the data to a posted receive of the peer (`IBV_WR_SEND`). RC, UC, UD (with a destination), XRC.
    @inlinable public static var send: SendOperation {
        @inline(__always) get { SendOperation(IBV_WR_SEND) }
    }

    /// Sends the data with 32 bits of immediate data in host byte order (`IBV_WR_SEND_WITH_IMM`). RC, UC, UD (with a
    /// destination), XRC.
    @inlinable @inline(__always)
    public static func send(immediate: UInt32) -> SendOperation {
        SendOperation(IBV_WR_SEND_WITH_IMM, immediate: immediate.bigEndian)
    }

    /// Sends the data and invalidates an rkey of the peer (`IBV_WR_SEND_WITH_INV`). RC, UC, XRC.
    @inlinable @inline(__always)
    public static func send(invalidating rkey: UInt32) -> SendOperation {
        SendOperation(IBV_WR_SEND_WITH_INV, immediate: rkey)
    }

    /// Writes the data to the peer's memory, without a completion at the peer (`IBV_WR_RDMA_WRITE`). RC, UC, XRC.
    @inlinable @inline(__always)
    public static func write(to remote: RemoteMemory) -> SendOperation {
        SendOperation(IBV_WR_RDMA_WRITE, remote.address, UInt64(remote.rkey))
    }

    /// Writes the data to the peer's memory, consumes one posted receive at the peer and delivers 32 bits of immediate
    /// data (`IBV_WR_RDMA_WRITE_WITH_IMM`). RC, UC, XRC.
    @inlinable @inline(__always)
    public static func write(to remote: RemoteMemory, immediate: UInt32) -> SendOperation {
        SendOperation(IBV_WR_RDMA_WRITE_WITH_IMM, immediate: immediate.bigEndian, remote.address, UInt64(remote.rkey))
    }

    /// Reads the peer's memory into the SGEs (`IBV_WR_RDMA_READ`). RC, XRC.
    @inlinable @inline(__always)
    public static func read(from remote: RemoteMemory) -> SendOperation {
        SendOperation(IBV_WR_RDMA_READ, remote.address, UInt64(remote.rkey))
    }

    /// Compares 8 bytes of the peer's memory with `expected`, writes `desired` if they are equal, and in any case
    /// returns the original value in an 8-byte SGE (`IBV_WR_ATOMIC_CMP_AND_SWP`). RC, XRC; the address must be a
    /// multiple of 8.
    @inlinable @inline(__always)
    public static func compareAndSwap(
        at remote: RemoteMemory, expected: UInt64, desired: UInt64
    ) -> SendOperation {
        SendOperation(IBV_WR_ATOMIC_CMP_AND_SWP, remote.address, expected, desired, UInt64(remote.rkey))
    }

    /// Atomically adds to 8 bytes of the peer's memory and returns the original value in an 8-byte SGE
    /// (`IBV_WR_ATOMIC_FETCH_AND_ADD`). RC, XRC; the address must be a multiple of 8.
    @inlinable @inline(__always)
    public static func fetchAndAdd(at remote: RemoteMemory, adding value: UInt64) -> SendOperation {
        SendOperation(IBV_WR_ATOMIC_FETCH_AND_ADD, remote.address, value, 0, UInt64(remote.rkey))
    }

    /// Writes 8 bytes atomically to the peer's memory (`IBV_WR_ATOMIC_WRITE`). RC; the address must be a multiple of 8.
    @inlinable @inline(__always)
    public static func atomicWrite(to remote: RemoteMemory) -> SendOperation {
        SendOperation(IBV_WR_ATOMIC_WRITE, remote.address, UInt64(remote.rkey))
    }

    /// Completes when what this queue pair wrote before to the peer's memory is visible to the peer's whole host, or
    /// persistent (`IBV_WR_FLUSH`, `ibv_wr_flush`). RC, without data, and only with `postExtended`.
    ///
    /// - Parameters:
    ///   - remote: The range. The memory region and the queue pair of the peer need the access `.flushGlobal` or
    ///     `.flushPersistent`.
    ///   - placement: Visible or persistent (`type`).
    ///   - selectivity: The range or the whole memory region (`level`).
    @inlinable @inline(__always)
    public static func flush(
        _ remote: RemoteMemory, placement: FlushPlacement = .globalVisibility, selectivity: FlushSelectivity = .range
    ) -> SendOperation {
        let level = UInt64(UInt8(clamping: selectivity.rawValue))
        return SendOperation(
            ibv_wr_opcode(Opcode.flush.rawValue), remote.address, UInt64(remote.rkey), remote.byteCount,
            UInt64(placement.rawValue) | level << 8)
    }

    /// Invalidates a local rkey, of a memory window of type 2 (`IBV_WR_LOCAL_INV`). It has no data.
    @inlinable @inline(__always)
    public static func localInvalidate(_ rkey: UInt32) -> SendOperation {
        SendOperation(IBV_WR_LOCAL_INV, immediate: rkey)
    }

    /// The same operation for an XRC queue pair, with the number of the peer's shared receive queue
    /// (`ibv_send_wr.qp_type.xrc.remote_srqn`).
    @inlinable @inline(__always)
    public func to(sharedReceiveQueue number: UInt32) -> SendOperation {
        SendOperation(ibv_wr_opcode(opcodeRaw), immediate: immediate, word0, word1, word2, word3, remoteSRQ: number)
    }

    /// The same operation to a destination of datagrams. The caller keeps the address handle alive.
    @inlinable @inline(__always)
    func to(_ handle: UnsafeMutablePointer<ibv_ah>, _ number: UInt32, _ qkey: UInt32) -> SendOperation {
        SendOperation(
            ibv_wr_opcode(opcodeRaw), immediate: immediate, UInt64(UInt(bitPattern: handle)),
            UInt64(number) | UInt64(qkey) << 32, remoteSRQ: remoteSRQ)
    }
}
