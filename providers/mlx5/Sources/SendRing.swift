import ProviderKit

/// What is kept of a posted work request until it has completed.
struct PostedSend {
    var id: UInt64
    /// Number of the request, counted from 0.
    var number: UInt32
    /// `enum ibv_wc_opcode`, for the operations that the device calls alike.
    var opcode: UInt32
}

/// The memory of a send queue: blocks of 64 bytes, a power of two of them. A work request begins with a block and goes on
/// at the beginning behind the end, in units of 16 bytes. Nothing here changes once the queue pair is made.
struct SendRing {
    static var blockSize: Int { 64 }

    let start: UnsafeMutableRawPointer
    let end: UnsafeMutableRawPointer
    /// The number of blocks less one.
    let mask: UInt32
    /// What was posted, at the number of the block in which it begins.
    let posted: UnsafeMutablePointer<PostedSend>
    /// How many requests have completed, which the completion queue's side writes.
    let retired: SharedIndex

    /// - Parameters:
    ///   - memory: 64 bytes for each block, at a multiple of 64.
    ///   - blocks: a power of two.
    ///   - posted: room for as many.
    ///   - retired: a word.
    init(
        memory: UnsafeMutableRawPointer, blocks: UInt32, posted: UnsafeMutablePointer<PostedSend>,
        retired: UnsafeMutableRawPointer
    ) {
        start = memory
        end = memory + Self.blockSize * Int(blocks)
        mask = blocks - 1
        self.posted = posted
        self.retired = SharedIndex(at: retired)
    }

    /// The block of a number, whatever it is.
    @inline(__always)
    func block(_ number: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(number & mask) &<< 6)
    }

    /// A place behind the last segment is the first.
    @inline(__always)
    func wrapped(_ segment: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer { segment == end ? start : segment }
}
