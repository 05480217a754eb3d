import CIBVerbs

/// What a send work request does, apart from its data: `post(.write(to: peer), slice)`.
///
/// A plain value that is built in place and costs nothing.
@frozen public struct SendOperation: Sendable {
    @usableFromInline let opcodeRaw: UInt32
    /// Immediate data in network byte order, or the key to invalidate.
    @usableFromInline let immediate: UInt32
    // The union `wr` of struct ibv_send_wr.
    @usableFromInline let word0: UInt64
    @usableFromInline let word1: UInt64
    @usableFromInline let word2: UInt64
    @usableFromInline let word3: UInt64
    /// XRC: number of the peer's shared receive queue.
    @usableFromInline let remoteSRQ: UInt32

    @inlinable @inline(__always)
    init(
        _ opcode: UInt32, immediate: UInt32 = 0, _ word0: UInt64 = 0, _ word1: UInt64 = 0, _ word2: UInt64 = 0,
        _ word3: UInt64 = 0, remoteSRQ: UInt32 = 0
    ) {
        opcodeRaw = opcode
        self.immediate = immediate
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
        self.remoteSRQ = remoteSRQ
    }

    /// Whether it names anything beyond its data.
    @inlinable @inline(__always)
    var hasOperands: Bool { word0 | word1 | word2 | word3 != 0 || remoteSRQ != 0 }

    /// Its opcode.
    @inlinable public var opcode: Opcode { Opcode(rawValue: opcodeRaw) }

    /// Sends the data to a receive of the peer. RC, UC, UD (with a destination), XRC.
    @inlinable public static var send: SendOperation {
        @inline(__always) get { SendOperation(2) }
    }

    /// Sends the data and 32 bits beside it, in host byte order. RC, UC, UD (with a destination), XRC.
    @inlinable @inline(__always)
    public static func send(immediate: UInt32) -> SendOperation { SendOperation(3, immediate: immediate.bigEndian) }

    /// Sends the data and invalidates a key of the peer. RC.
    @inlinable @inline(__always)
    public static func send(invalidating rkey: UInt32) -> SendOperation { SendOperation(9, immediate: rkey) }

    /// Writes the data to the peer's memory. The peer is not told. RC, UC, XRC.
    @inlinable @inline(__always)
    public static func write(to remote: RemoteMemory) -> SendOperation {
        SendOperation(0, remote.address, UInt64(remote.rkey))
    }

    /// Writes the data to the peer's memory, takes one of its receives and hands it 32 bits. RC, UC, XRC.
    @inlinable @inline(__always)
    public static func write(to remote: RemoteMemory, immediate: UInt32) -> SendOperation {
        SendOperation(1, immediate: immediate.bigEndian, remote.address, UInt64(remote.rkey))
    }

    /// Reads the peer's memory into the slices. RC, XRC.
    @inlinable @inline(__always)
    public static func read(from remote: RemoteMemory) -> SendOperation {
        SendOperation(4, remote.address, UInt64(remote.rkey))
    }

    /// Compares 8 bytes of the peer's memory with `expected`, puts `desired` there if they are equal, and in any
    /// case answers what was there, into an 8-byte slice. RC, XRC; the address must be a multiple of 8.
    @inlinable @inline(__always)
    public static func compareAndSwap(
        at remote: RemoteMemory, expected: UInt64, desired: UInt64
    ) -> SendOperation {
        SendOperation(5, remote.address, expected, desired, UInt64(remote.rkey))
    }

    /// Adds to 8 bytes of the peer's memory and answers what was there, into an 8-byte slice. RC, XRC; the address
    /// must be a multiple of 8.
    @inlinable @inline(__always)
    public static func fetchAndAdd(at remote: RemoteMemory, adding value: UInt64) -> SendOperation {
        SendOperation(6, remote.address, value, 0, UInt64(remote.rkey))
    }

    /// Writes 8 bytes at once to the peer's memory. RC; the address must be a multiple of 8.
    @inlinable @inline(__always)
    public static func atomicWrite(to remote: RemoteMemory) -> SendOperation {
        SendOperation(15, remote.address, UInt64(remote.rkey))
    }

    /// Invalidates a key of this side, of a memory window of type 2. Has no data.
    @inlinable @inline(__always)
    public static func localInvalidate(_ rkey: UInt32) -> SendOperation { SendOperation(7, immediate: rkey) }

    /// The same operation for an XRC queue pair, which names the shared receive queue that it goes to.
    @inlinable @inline(__always)
    public func to(sharedReceiveQueue number: UInt32) -> SendOperation {
        SendOperation(opcodeRaw, immediate: immediate, word0, word1, word2, word3, remoteSRQ: number)
    }

    /// The same operation to a destination of datagrams. Whoever uses it keeps the address handle alive.
    @inlinable @inline(__always)
    func to(_ handle: UnsafeMutablePointer<ibv_ah>, _ number: UInt32, _ queueKey: UInt32) -> SendOperation {
        SendOperation(
            opcodeRaw, immediate: immediate, UInt64(UInt(bitPattern: handle)),
            UInt64(number) | UInt64(queueKey) << 32, remoteSRQ: remoteSRQ)
    }
}
