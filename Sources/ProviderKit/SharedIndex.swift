import Synchronization

/// A word of memory that a device or a kernel shares with this process, such as the index of a ring. What it holds is
/// whatever the other side wrote: mask it, or check it.
public struct SharedIndex {
    private let word: UnsafeMutablePointer<Atomic<UInt32>>

    /// The word at this address, which is a multiple of 4. An atomic has the layout of its value.
    @inline(__always)
    public init(at address: UnsafeMutableRawPointer) {
        word = address.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// The value, for the side that writes it.
    @inline(__always)
    public func loadOwn() -> UInt32 { word.pointee.load(ordering: .relaxed) }

    /// Adds 1, whoever else does.
    public func increment() { word.pointee.wrappingAdd(1, ordering: .relaxed) }

    /// The other side's value; what it wrote to the ring before can be read.
    @inline(__always)
    public func loadAcquiring() -> UInt32 { word.pointee.load(ordering: .acquiring) }

    /// Shows the other side a value, after everything that was written and read before.
    @inline(__always)
    public func storeReleasing(_ value: UInt32) { word.pointee.store(value, ordering: .releasing) }
}
