import CIBVerbs
import CProviderABI
import ProviderLoader
import SystemPackage

/// Memory that the device may read and write, under a key (IBTA volume 1, 10.6).
///
/// A region that was made by `makeMemoryRegion` owns its bytes: whole pages, zeroed. They are given back only
/// after the region is deregistered, and the region is deregistered when its last reference goes. So a posted
/// work request can never make the device touch memory that is in use for something else: if the region goes
/// while the request is outstanding, the request completes with a protection error. Keep the region for as long
/// as requests on it are outstanding.
///
/// The bytes are shared: the device writes a posted receive until it completes, and a peer that was given the
/// rkey may read and write whenever it likes. Spans over them are views, not snapshots. Where a peer may write
/// meanwhile, take a copy (`copyBytes`), or read single words with `loadAcquiring`.
public final class MemoryRegion: @unchecked Sendable {
    // Unchecked: all fields but `registration` never change; the bytes are shared with the device by design.

    /// Where the bytes come from.
    enum Backing {
        case pages(Pages)
        /// Somebody else's memory; the object, if any, keeps it there.
        case foreign(AnyObject?)
        case deviceMemory(DeviceMemory)
        /// Nothing in this process: a dmabuf, the null region.
        case none
    }

    /// The domain that it belongs to.
    public let protectionDomain: ProtectionDomain
    /// Who may do what with it.
    public let access: AccessFlags
    /// Size in bytes.
    public let byteCount: Int
    /// The address by which work requests and peers name the first byte (iova).
    public let address: UInt64
    /// Key for work requests of this process.
    public let lkey: UInt32
    /// Key to give to peers.
    public let rkey: UInt32

    let backing: Backing
    private let host: UnsafeMutableRawBufferPointer
    /// The region, until another object takes it over by re-registration.
    private let registration: Locked<Registration>

    /// Lets the pointer across threads.
    struct Registration: @unchecked Sendable {
        // Unchecked: it is only used under the mutex.
        var raw: UnsafeMutablePointer<ibv_mr>?
        /// Memory of a re-registration that failed half-way: the device may refer to it.
        var disputed: Pages?
    }

    init(
        _ raw: UnsafeMutablePointer<ibv_mr>, protectionDomain: ProtectionDomain, access: AccessFlags, byteCount: Int,
        address: UInt64, host: UnsafeMutableRawBufferPointer, backing: Backing
    ) {
        self.protectionDomain = protectionDomain
        self.access = access
        self.byteCount = byteCount
        self.address = address
        self.host = host
        self.backing = backing
        lkey = raw.pointee.lkey
        rkey = raw.pointee.rkey
        registration = Locked(Registration(raw: raw))
    }

    deinit {
        let (raw, disputed) = registration.withLock { ($0.raw, $0.disputed) }
        guard let raw, let dereg = context.table.dereg_mr else { return }
        context.destroy(.deregMR, object, keeping: [protectionDomain, backing.owner, disputed], dereg(raw))
    }

    var context: Context { protectionDomain.context }
    /// The region, as errors name it.
    var object: VerbsObject { context.object("memory region with lkey", lkey) }

    /// Hands the registration to `body`, which may take it.
    func withRegistration<Result>(
        _ body: (inout Registration) throws(VerbsError) -> Result
    ) throws(VerbsError) -> Result {
        try registration.withLock { (state: inout Registration) throws(VerbsError) -> Result in try body(&state) }
    }

    /// The struct of verbs.h, for calls into C; nil after `reregister`.
    public var unsafeRaw: UnsafeMutablePointer<ibv_mr>? { registration.withLock { $0.raw } }
    /// Its bytes in this process, for calls into C; empty where it has none. Valid as long as the region is.
    public var unsafeBytes: UnsafeMutableRawBufferPointer { host }
}

extension MemoryRegion.Backing {
    /// What must stay as long as the device may write.
    var owner: AnyObject? {
        switch self {
        case .pages(let pages): return pages
        case .foreign(let owner): return owner
        case .deviceMemory(let memory): return memory
        case .none: return nil
        }
    }
}
