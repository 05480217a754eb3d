// Where things lie in the memory that an mlx5 device shares with its driver. The source is infiniband/mlx5dv.h of
// rdma-core, whose structs are public; that header is also what the tests compare with. All words are big endian.

// MARK: - Send work requests: segments of 16 bytes, and what is more than one of them

/// The first segment of every work request.
enum ControlSegment {
    static var byteCount: Int { 16 }
    /// Number of the first block of 64 bytes since the queue began.
    static var index: Field<UInt32> { Field(0, 0, 8, 16) }
    /// Its modifier, the upper 8 bits of this word, is 0.
    static var opcode: Field<UInt32> { Field(1, 0, 0, 8) }
    static var queuePair: Field<UInt32> { Field(2, 4, 8, 24) }
    /// Size of the work request in units of 16 bytes.
    static var segments: Field<UInt32> { Field(3, 4, 0, 8) }
    /// In a word with signature and stream, which are 0.
    static var fence: Field<UInt32> { Field(4, 8, 5, 3) }
    static var completion: Field<UInt32> { Field(5, 8, 2, 2) }
    static var solicited: Field<UInt32> { Field(6, 8, 1, 1) }
    /// Immediate data, or a key.
    static var immediate: Field<UInt32> { Field(7, 12) }
}

/// Where an RDMA or atomic operation takes place.
enum RemoteAddressSegment {
    static var byteCount: Int { 16 }
    static var address: Field<UInt64> { Field(8, 0) }
    /// With the reserved word behind it.
    static var key: Field<UInt64> { Field(9, 8, 32, 32) }
}

/// The operands of an atomic operation.
enum AtomicSegment {
    static var byteCount: Int { 16 }
    static var swapOrAdd: Field<UInt64> { Field(10, 0) }
    static var compare: Field<UInt64> { Field(11, 8) }
}

/// A piece of memory, to read from or to write to.
enum DataSegment {
    static var byteCount: Int { 16 }
    static var length: Field<UInt32> { Field(12, 0) }
    static var key: Field<UInt32> { Field(13, 4) }
    static var address: Field<UInt64> { Field(14, 8) }
}

/// Data in the work request itself: this word, and behind it the bytes.
enum InlineSegment {
    static var headerByteCount: Int { 4 }
    static var isInline: Field<UInt32> { Field(15, 0, 31, 1) }
    static var length: Field<UInt32> { Field(16, 0, 0, 31) }
}

/// Where a datagram goes.
enum AddressVector {
    static var byteCount: Int { 48 }
    /// With the reserved word behind it.
    static var queueKey: Field<UInt64> { Field(17, 0, 32, 32) }
    static var isExtended: Field<UInt32> { Field(18, 8, 31, 1) }
    static var queuePair: Field<UInt32> { Field(19, 8, 0, 24) }
    static var staticRate: Field<UInt8> { Field(20, 12, 4, 4) }
    static var serviceLevel: Field<UInt8> { Field(21, 12, 0, 4) }
    static var pathBits: Field<UInt8> { Field(22, 13, 0, 7) }
    /// Destination LID, or with RoCEv2 the source port of UDP.
    static var remoteLID: Field<UInt16> { Field(23, 14) }
    static var remoteMAC: Field<UInt32> { Field(24, 20) }
    static var remoteMACEnd: Field<UInt16> { Field(25, 24) }
    static var trafficClass: Field<UInt8> { Field(26, 26) }
    static var hopLimit: Field<UInt8> { Field(27, 27) }
    static var hasGRH: Field<UInt32> { Field(28, 28, 30, 1) }
    static var sourceGIDIndex: Field<UInt32> { Field(29, 28, 20, 8) }
    static var flowLabel: Field<UInt32> { Field(30, 28, 0, 20) }
    static var remoteGID: Field<UInt64> { Field(31, 32) }
    static var remoteGIDEnd: Field<UInt64> { Field(32, 40) }
}

/// What a work request changes of a memory key.
enum KeyControlSegment {
    static var byteCount: Int { 48 }
    /// Its word holds the four flags and 28 bits that are reserved.
    static var isInline: Field<UInt32> { Field(33, 0, 31, 1) }
    static var checksFree: Field<UInt32> { Field(34, 0, 29, 1) }
    static var hasTranslationOffset: Field<UInt32> { Field(35, 0, 28, 1) }
    static var checksQueuePair: Field<UInt32> { Field(36, 0, 27, 1) }
    /// Size of the list of translations, in a word with the offset, which is 0.
    static var translations: Field<UInt32> { Field(37, 4, 16, 16) }
    static var mask: Field<UInt64> { Field(38, 8) }
}

/// The new state of a memory key.
enum KeyContextSegment {
    static var byteCount: Int { 64 }
    static var isFree: Field<UInt8> { Field(39, 0, 6, 1) }
    static var access: Field<UInt8> { Field(40, 2, 2, 5) }
    static var queuePair: Field<UInt32> { Field(41, 4, 8, 24) }
    static var key: Field<UInt32> { Field(42, 4, 0, 8) }
    static var address: Field<UInt64> { Field(43, 16) }
    static var length: Field<UInt64> { Field(44, 24) }
}

/// The memory behind a memory key: one translation, in a block of 64 bytes of which the rest is 0.
enum TranslationSegment {
    static var byteCount: Int { 64 }
    static var length: Field<UInt32> { Field(45, 0) }
    static var key: Field<UInt32> { Field(46, 4) }
    static var address: Field<UInt64> { Field(47, 8) }
}

// MARK: - Shared receive queues

/// In front of the pieces of memory of each work request.
enum NextSegment {
    static var byteCount: Int { 16 }
    static var next: Field<UInt16> { Field(48, 2) }
}

// MARK: - Completions

/// A completion: 64 bytes, in a queue of 128-byte entries the second half.
enum CompletionEntry {
    static var byteCount: Int { 64 }
    static var pathBits: Field<UInt8> { Field(49, 17, 0, 7) }
    static var sourceLID: Field<UInt16> { Field(50, 22) }
    static var hasGRH: Field<UInt32> { Field(51, 24, 28, 2) }
    static var serviceLevel: Field<UInt32> { Field(52, 24, 24, 4) }
    static var sourceQueuePair: Field<UInt32> { Field(53, 24, 0, 24) }
    /// Of the queue pair, in version 1; of the shared receive queue, in version 0, or 0.
    static var userIndex: Field<UInt32> { Field(54, 32, 0, 24) }
    /// Immediate data, an invalidated key, or a P_Key index.
    static var immediate: Field<UInt32> { Field(55, 36) }
    static var pkeyIndex: Field<UInt32> { Field(56, 36, 0, 16) }
    static var length: Field<UInt32> { Field(57, 44) }
    static var timestamp: Field<UInt64> { Field(58, 48) }
    /// In place of the last bytes of the time, after an error.
    static var vendorError: Field<UInt8> { Field(59, 54) }
    static var syndrome: Field<UInt8> { Field(60, 55) }
    static var sendOpcode: Field<UInt32> { Field(61, 56, 24, 8) }
    static var queuePair: Field<UInt32> { Field(62, 56, 0, 24) }
    /// Number of the block in which the work request began.
    static var index: Field<UInt16> { Field(63, 60) }
    static var opcode: Field<UInt8> { Field(64, 63, 4, 4) }
    /// Data in the completion itself: 1 is 32 bytes, 2 is 64 bytes in front of it.
    static var inlineData: Field<UInt8> { Field(65, 63, 2, 2) }
    static var owner: Field<UInt8> { Field(66, 63, 0, 1) }
}

// MARK: - Doorbells

/// The record of a completion queue: what of it is free, and what is asked for.
enum CompletionRecord {
    static var consumer: Field<UInt32> { Field(67, 0, 0, 24) }
    static var armSequence: Field<UInt32> { Field(68, 4, 28, 2) }
    static var solicitedOnly: Field<UInt32> { Field(69, 4, 24, 1) }
    static var armConsumer: Field<UInt32> { Field(70, 4, 0, 24) }
}

/// The record of a queue pair: how many work requests were posted, and how many blocks.
enum QueuePairRecord {
    static var receives: Field<UInt32> { Field(71, 0, 0, 16) }
    static var sends: Field<UInt32> { Field(72, 4, 0, 16) }
}

/// The record of a shared receive queue: how many work requests were posted.
enum SharedReceiveRecord {
    static var receives: Field<UInt32> { Field(73, 0) }
}

/// What rings for a completion queue, in a page of registers: the arm word of its record, and its number.
enum CompletionDoorbell {
    static var request: Field<UInt64> { Field(74, 0x20, 32, 32) }
    static var completionQueue: Field<UInt64> { Field(75, 0x20, 0, 32) }
}

/// How many fields there are.
let fieldCount = 76

// MARK: - Numbers

/// Operations, as in `MLX5_OPCODE_…`.
enum Opcode {
    static var sendInvalidate: UInt32 { 0x01 }
    static var write: UInt32 { 0x08 }
    static var writeImmediate: UInt32 { 0x09 }
    static var send: UInt32 { 0x0A }
    static var sendImmediate: UInt32 { 0x0B }
    static var read: UInt32 { 0x10 }
    static var compareSwap: UInt32 { 0x11 }
    static var fetchAdd: UInt32 { 0x12 }
    static var changeKey: UInt32 { 0x25 }
}

/// Values of ControlSegment's fence and completion.
enum Control {
    /// Waits for the READs and atomics before it.
    static var fence: UInt32 { 4 }
    /// Waits for the memory keys that were changed before it.
    static var keyFence: UInt32 { 1 }
    static var signaled: UInt32 { 2 }
}

/// Values of KeyControlSegment.mask, as in `MLX5_WQE_UMR_CTRL_MKEY_MASK_…`.
enum KeyMask {
    static var length: UInt64 { 1 << 0 }
    static var address: UInt64 { 1 << 6 }
    static var key: UInt64 { 1 << 13 }
    static var queuePair: UInt64 { 1 << 14 }
    /// Local write, remote read, remote write, atomic.
    static var access: UInt64 { 0xF << 18 }
    static var isFree: UInt64 { 1 << 29 }
}

/// The key that ends a list of pieces of memory.
let endOfListKey: UInt32 = 0x100

/// What a completion says, as in `MLX5_CQE_…`.
struct CompletionKind: Equatable {
    let rawValue: UInt8

    static var request: Self { Self(rawValue: 0) }
    static var writeImmediate: Self { Self(rawValue: 1) }
    static var send: Self { Self(rawValue: 2) }
    static var sendImmediate: Self { Self(rawValue: 3) }
    static var sendInvalidate: Self { Self(rawValue: 4) }
    static var resize: Self { Self(rawValue: 5) }
    static var requestError: Self { Self(rawValue: 13) }
    static var responseError: Self { Self(rawValue: 14) }
    /// The entry holds none.
    static var none: Self { Self(rawValue: 15) }
}
