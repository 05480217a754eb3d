import CProviderABI
import CProviderCore
import SystemPackage

extension MemoryRegion {
    /// The bytes, to be read. Empty for a region without memory in this process (device memory, dmabuf, null).
    ///
    /// A posted receive or read, and a peer with the rkey, may change them at any time.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        get {
            let bytes = unsafeBytes
            return _overrideLifetime(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes)), borrowing: self)
        }
    }

    /// The bytes, to be written. Empty for a region without memory in this process.
    /// Nothing prevents concurrent writes: two tasks, or a task and the device, that write the same bytes are a data
    /// race.
    public var mutableBytes: MutableRawSpan {
        @_lifetime(borrow self)
        get { _overrideLifetime(MutableRawSpan(_unsafeBytes: unsafeBytes), borrowing: self) }
    }

    /// A copy of the bytes as they are now.
    ///
    /// - Throws: `EINVAL` when the range lies outside the region.
    public func copyBytes(_ range: Range<Int>) throws(VerbsError) -> [UInt8] {
        try requireHostBytes(range)
        return Array(unsafeBytes[range])
    }

    /// Copies bytes into the region.
    ///
    /// - Throws: `EINVAL` when they do not fit.
    public func copyBytes(from source: RawSpan, at offset: Int = 0) throws(VerbsError) {
        try requireHostBytes(offset..<max(offset, offset &+ source.byteCount))
        source.withUnsafeBytes { source in
            UnsafeMutableRawBufferPointer(rebasing: unsafeBytes[offset...]).copyMemory(from: source)
        }
    }

    /// Reads 8 bytes atomically, in host byte order, that a peer or the device may be writing. Later loads see the data
    /// that was written before these bytes (acquire).
    ///
    /// - Throws: `EINVAL` when `offset` is not a multiple of 8 within the region.
    public func loadAcquiring(at offset: Int) throws(VerbsError) -> UInt64 {
        try requireWord(offset)
        return rdma_load_acquire(unsafeBytes.baseAddress! + offset)
    }

    /// Writes 8 bytes atomically, in host byte order, that a peer or the device may be reading. Earlier stores are
    /// visible before them (release).
    ///
    /// - Throws: `EINVAL` when `offset` is not a multiple of 8 within the region.
    public func storeReleasing(_ value: UInt64, at offset: Int) throws(VerbsError) {
        try requireWord(offset)
        rdma_store_release(unsafeBytes.baseAddress! + offset, value)
    }

    private func requireWord(_ offset: Int) throws(VerbsError) {
        guard offset >= 0, offset % 8 == 0, offset <= unsafeBytes.count - 8 else {
            throw outside("offset \(offset) is not a multiple of 8 within the region's \(unsafeBytes.count) bytes")
        }
    }

    private func requireHostBytes(_ range: Range<Int>) throws(VerbsError) {
        guard range.lowerBound >= 0, range.upperBound <= unsafeBytes.count else {
            throw outside("bytes \(range) lie outside the region's \(unsafeBytes.count) bytes in this process")
        }
    }

    /// The error for a range outside the region.
    func outside(_ hint: String) -> VerbsError {
        VerbsError("MemoryRegion", errno: .invalidArgument, object: object, hint: hint)
    }
}
