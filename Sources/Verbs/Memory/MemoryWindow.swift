import CIBVerbs
import CProviderABI
import ProviderLoader
import SystemPackage

/// A memory window: a piece of a region under a key of its own, which is given and taken away by work requests
/// (ibv_alloc_mw(3); IBTA volume 1, 10.6.7).
public final class MemoryWindow: @unchecked Sendable {
    // Unchecked: the pointer never changes, and what lies behind it is written under `bound` only.

    /// How a window is bound (enum ibv_mw_type).
    public enum Kind: UInt32, Sendable {
        /// Bound by a call of its own; the provider makes the new key.
        case one = 1
        /// Bound by a send work request; the key's low byte counts up.
        case two = 2
    }

    /// The domain that it belongs to.
    public let protectionDomain: ProtectionDomain
    /// How it is bound.
    public let kind: Kind
    let raw: UnsafeMutablePointer<ibv_mw>
    /// The region that it was last bound to: it stays as long as the window.
    private let bound = Locked<MemoryRegion?>(nil)

    init(_ raw: UnsafeMutablePointer<ibv_mw>, kind: Kind, protectionDomain: ProtectionDomain) {
        self.raw = raw
        self.kind = kind
        self.protectionDomain = protectionDomain
    }

    deinit {
        let context = protectionDomain.context
        let code = context.unsafeRaw.pointee.ops.dealloc_mw?(raw) ?? 0
        context.destroy(.deallocMW, object, keeping: [protectionDomain, bound.withLock { $0 }], code)
    }

    var object: VerbsObject { protectionDomain.context.object("memory window", raw.pointee.handle) }

    /// Its key now.
    public var rkey: UInt32 { bound.withLock { _ in raw.pointee.rkey } }

    /// Runs `post` with the key before; after success the window stands for `region` under the key that `post`
    /// answers.
    func bind(
        to region: MemoryRegion, _ post: (UnsafeMutablePointer<ibv_mw>) throws(VerbsError) -> UInt32
    ) throws(VerbsError) -> UInt32 {
        try bound.withLock { (bound: inout MemoryRegion?) throws(VerbsError) -> UInt32 in
            let key = try post(raw)
            raw.pointee.rkey = key
            bound = region
            return key
        }
    }
}

extension ProtectionDomain {
    /// Makes a memory window: ibv_alloc_mw(3). It stands for nothing until it is bound.
    public func makeMemoryWindow(_ kind: MemoryWindow.Kind) throws(VerbsError) -> MemoryWindow {
        let alloc = try context.entry(context.unsafeRaw.pointee.ops.alloc_mw, .allocMW, object)
        let raw = try context.made(.allocMW, object) { alloc(unsafeRaw, ibv_mw_type(rawValue: kind.rawValue)) }
        return MemoryWindow(raw, kind: kind, protectionDomain: self)
    }
}

extension QueuePair {
    /// Lets a window stand for a piece of a region: ibv_bind_mw(3), or IBV_WR_BIND_MW for a window of type 2. The
    /// queue pair gets a completion `bindMemoryWindow`; the key is good from then on.
    ///
    /// - Parameters:
    ///   - window: the window. What it stood for before, it does no more.
    ///   - region: a region with `AccessFlags.memoryWindowBind`.
    ///   - range: which bytes of it.
    ///   - access: what peers may do there.
    ///   - id: is in the completion.
    ///   - flags: how the work request is treated; reported by default.
    /// - Returns: what to tell the peer.
    /// - Throws: `EINVAL` when the range lies outside the region, or as `post`.
    public mutating func bind(
        _ window: MemoryWindow, to region: MemoryRegion, _ range: Range<Int>, access: AccessFlags, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) -> RemoteMemory {
        let slice = try region.slice(range)
        guard let memory = region.unsafeRaw else {
            throw region.outside("it was re-registered: use the region that reregister answered")
        }
        let info = ibv_mw_bind_info(
            mr: memory, addr: slice.address, length: UInt64(range.count), mw_access_flags: access.rawValue)
        let queuePair = raw
        let bindOne = context.unsafeRaw.pointee.ops.bind_mw
        var code: Int32 = 0
        let key = try window.bind(to: region) { (window) throws(VerbsError) -> UInt32 in
            if kindOf(window) == .one {
                var request = ibv_mw_bind(wr_id: id, send_flags: flags.rawValue, bind_info: info)
                code = bindOne.map { $0(queuePair, window, &request) } ?? Int32(Errno.notSupported.rawValue)
            } else {
                code = rdma_post_bind_mw(queuePair, id, flags.rawValue, window, info)
            }
            if code != 0 { throw sendFailure(SendOperation.Opcode.bindMemoryWindow.rawValue, slices: 0, code) }
            return kindOf(window) == .one ? window.pointee.rkey : rdma_next_rkey(window.pointee.rkey)
        }
        return RemoteMemory(address: slice.address, rkey: key, byteCount: UInt64(range.count))
    }
}

/// How the window is bound, as verbs.h keeps it.
private func kindOf(_ window: UnsafeMutablePointer<ibv_mw>) -> MemoryWindow.Kind {
    window.pointee.type == IBV_MW_TYPE_2 ? .two : .one
}
