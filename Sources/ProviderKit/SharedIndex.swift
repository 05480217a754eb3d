import Synchronization

/// A 32-bit word of memory that a device or the kernel shares with this process, such as a producer or consumer index.
/// The value is not trusted: the caller masks or checks it.
public struct SharedIndex {
    private let word: UnsafeMutablePointer<Atomic<UInt32>>

    /// Accesses the word at `address`, a multiple of 4. `Atomic` has the layout of its value.
    @inline(__always)
    public init(at address: UnsafeMutableRawPointer) {
        word = address.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Loads the value (relaxed). For the writer of the word.
    @inline(__always)
    public func loadOwn() -> UInt32 { word.pointee.load(ordering: .relaxed) }

    /// Atomically adds 1.
    public func increment() { word.pointee.wrappingAdd(1, ordering: .relaxed) }

    /// Loads the value that the device or kernel stored (acquire): the ring entries that it wrote before can be read.
    @inline(__always)
    public func loadAcquiring() -> UInt32 { word.pointee.load(ordering: .acquiring) }

    /// Stores a value for the device or kernel (release), after all earlier loads and stores.
    @inline(__always)
    public func storeReleasing(_ value: UInt32) { word.pointee.store(value, ordering: .releasing) }
}
