import CIBVerbs
import CProviderABI
import Locking
import SystemPackage

/// A memory region (MR): registered memory that the device may access (`struct ibv_mr`; IBTA volume 1, 10.6).
///
/// A region that was made by `makeMemoryRegion` owns its bytes: whole pages, zeroed. They are freed only after the
/// region is deregistered, and the region is deregistered when its last reference is released. So a posted work request
/// can never make the device access memory that is in use for something else: if the region is released while the
/// request is outstanding, the request completes with a protection error. Keep the region for as long as requests on it
/// are outstanding.
///
/// The bytes are shared: the device writes a posted receive until it completes, and a peer that has the rkey may read
/// and write at any time. Spans over them are views, not snapshots. Where a peer may write at the same time, make a
/// copy (`copyBytes`), or read single words with `loadAcquiring`.
public final class MemoryRegion: @unchecked Sendable {
    // Unchecked: all fields but `registration` never change; the bytes are shared with the device by design.

    /// The origin of the bytes.
    enum Backing {
        case pages(Pages)
        /// Memory that the caller owns; the object, if any, keeps it mapped.
        case foreign(AnyObject?)
        case deviceMemory(DeviceMemory)
        /// No memory of this process: a dmabuf or the null region.
        case none
    }

    /// The domain that it belongs to.
    public let protectionDomain: ProtectionDomain
    /// The operations that are allowed on the region (`ibv_access_flags`).
    public let access: AccessFlags
    /// Size in bytes.
    public let byteCount: Int
    /// The address of the first byte in work requests and for peers (iova).
    public let address: UInt64
    /// The lkey, for SGEs of this process (`ibv_mr.lkey`).
    public let lkey: UInt32
    /// The rkey, for peers (`ibv_mr.rkey`).
    public let rkey: UInt32

    let backing: Backing
    private let host: UnsafeMutableRawBufferPointer
    /// The registration, until re-registration moves it to another object.
    private let registration: Locked<Registration>

    /// Makes the pointer `Sendable`.
    struct Registration: @unchecked Sendable {
        // Unchecked: it is only used under the mutex.
        var raw: UnsafeMutablePointer<ibv_mr>?
        /// The pages that children of fork(2) do not inherit because of this region.
        var marked: Range<UInt>?
        /// Memory of a re-registration that failed and left the region unusable: the device may still access it.
        var disputed: Pages?
    }

    init(
        _ raw: UnsafeMutablePointer<ibv_mr>, protectionDomain: ProtectionDomain, access: AccessFlags, byteCount: Int,
        address: UInt64, host: UnsafeMutableRawBufferPointer, backing: Backing, marked: Range<UInt>? = nil
    ) {
        self.protectionDomain = protectionDomain
        self.access = access
        self.byteCount = byteCount
        self.address = address
        self.host = host
        self.backing = backing
        lkey = raw.pointee.lkey
        rkey = raw.pointee.rkey
        registration = Locked(Registration(raw: raw, marked: marked))
    }

    deinit {
        let (raw, disputed, marked) = registration.withLock { ($0.raw, $0.disputed, $0.marked) }
        guard let raw, let dereg = context.table.dereg_mr else { return }
        if context.destroy(.deregMR, object, keeping: [protectionDomain, backing.owner, disputed], dereg(raw)) {
            ForkSupport.release(marked)
        }
    }

    /// Deregisters the memory and reports a failure: ibv_dereg_mr(3).
    ///
    /// Without this call the same happens when the last reference is released, and a failure is only logged. The bytes
    /// stay readable here until then. A work request that names the lkey or rkey afterwards completes with a protection
    /// error.
    ///
    /// - Throws: `EBUSY` while a memory window is bound to the region.
    public func close() throws(VerbsError) {
        try withRegistration { (state: inout Registration) throws(VerbsError) in
            guard let raw = state.raw, let dereg = context.table.dereg_mr else { return }
            try context.close(.deregMR, object, dereg(raw))
            state.raw = nil
            ForkSupport.release(state.marked)
        }
    }

    var context: Context { protectionDomain.context }
    /// The region, as errors name it.
    var object: VerbsObject { context.object("memory region with lkey", lkey) }

    /// Calls `body` with the registration, which `body` may change.
    func withRegistration<Result>(
        _ body: (inout Registration) throws(VerbsError) -> Result
    ) throws(VerbsError) -> Result {
        try registration.withLock { (state: inout Registration) throws(VerbsError) -> Result in try body(&state) }
    }

    /// The struct of verbs.h, for calls into C; nil after `reregister`.
    public var unsafeRaw: UnsafeMutablePointer<ibv_mr>? { registration.withLock { $0.raw } }
    /// The bytes in this process, for calls into C; empty when it has none. The pointer is valid as long as the region.
    public var unsafeBytes: UnsafeMutableRawBufferPointer { host }
}

extension MemoryRegion.Backing {
    /// The object that must stay alive as long as the device may write.
    var owner: AnyObject? {
        switch self {
        case .pages(let pages): return pages
        case .foreign(let owner): return owner
        case .deviceMemory(let memory): return memory
        case .none: return nil
        }
    }
}
