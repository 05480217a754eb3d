import ProviderKit

/// The state of a posted send WQE until its completion.
struct PostedSend {
    /// `wr_id`.
    var id: UInt64
    /// The number of the WQE, counted from 0.
    var number: UInt32
    /// The `ibv_wc_opcode` of a UMR WQE, which its CQE does not have; 0 for other WQEs.
    var opcode: UInt32
}

/// The memory of a send queue: a power of two of WQEBBs (64 bytes, `MLX5_SEND_WQE_BB`). A WQE begins at a WQEBB, and
/// wraps from the end of the ring to its start. The ring does not change after the queue pair is created.
struct SendRing {
    static var wqebbSize: Int { 64 }

    let start: UnsafeMutableRawPointer
    let end: UnsafeMutableRawPointer
    /// The number of WQEBBs minus one.
    let mask: UInt32
    /// The state of the posted WQEs, each at the index of its first WQEBB.
    let posted: UnsafeMutablePointer<PostedSend>
    /// The number of retired WQEs. The thread that polls the completion queue writes it.
    let retired: SharedIndex

    /// - Parameters:
    ///   - memory: 64 bytes for each WQEBB, aligned to 64 bytes.
    ///   - wqebbs: The number of WQEBBs, a power of two.
    ///   - posted: Memory for one `PostedSend` for each WQEBB.
    ///   - retired: Memory for a 32-bit word.
    init(
        memory: UnsafeMutableRawPointer, wqebbs: UInt32, posted: UnsafeMutablePointer<PostedSend>,
        retired: UnsafeMutableRawPointer
    ) {
        start = memory
        end = memory + Self.wqebbSize * Int(wqebbs)
        mask = wqebbs - 1
        self.posted = posted
        self.retired = SharedIndex(at: retired)
    }

    /// The WQEBB of any number, modulo the queue size.
    @inline(__always)
    func wqebb(_ number: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(number & mask) &<< 6)
    }

    /// The address of a segment: the start of the ring if `segment` is its end.
    @inline(__always)
    func wrapped(_ segment: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer { segment == end ? start : segment }
}
