import CIBVerbs
import CProviderABI
import CProviderCore
import Locking
import SystemPackage

/// A memory window: a range of a region with its own rkey, which work requests bind and invalidate
/// (`struct ibv_mw`, ibv_alloc_mw(3); IBTA volume 1, 10.6.7).
public final class MemoryWindow: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the struct behind it is written under `bound` only.

    /// The domain that it belongs to.
    public let protectionDomain: ProtectionDomain
    /// The type of the window (`ibv_mw.type`).
    public let type: MemoryWindowType
    let raw: UnsafeMutablePointer<ibv_mw>
    /// The region of the last binding. The window keeps it alive.
    private let bound = Locked<MemoryRegion?>(nil)

    init(_ raw: UnsafeMutablePointer<ibv_mw>, type: MemoryWindowType, protectionDomain: ProtectionDomain) {
        self.raw = raw
        self.type = type
        self.protectionDomain = protectionDomain
    }

    deinit {
        let context = protectionDomain.context
        let code = context.unsafeRaw.pointee.ops.dealloc_mw?(raw) ?? 0
        context.destroy(.deallocMW, object, keeping: [protectionDomain, bound.withLock { $0 }], code)
    }

    var object: VerbsObject { protectionDomain.context.object("memory window", raw.pointee.handle) }

    /// The current rkey (`ibv_mw.rkey`).
    public var rkey: UInt32 { bound.withLock { _ in raw.pointee.rkey } }

    /// Calls `post` with the current rkey. After success the window is bound to `region` with the rkey that `post`
    /// returned.
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

/// The type of a memory window (enum ibv_mw_type).
public enum MemoryWindowType: UInt32, Sendable {
    /// `IBV_MW_TYPE_1`: bound by ibv_bind_mw(3); the provider chooses the new rkey.
    case one = 1
    /// `IBV_MW_TYPE_2`: bound by a send work request; each binding increments the low byte of the rkey
    /// (`ibv_inc_rkey`).
    case two = 2
}

extension ProtectionDomain {
    /// Makes a memory window: ibv_alloc_mw(3). It gives no access until it is bound.
    public func makeMemoryWindow(_ type: MemoryWindowType) throws(VerbsError) -> MemoryWindow {
        let alloc = try context.entry(context.unsafeRaw.pointee.ops.alloc_mw, .allocMW, object)
        let raw = try context.made(.allocMW, object) { alloc(unsafeRaw, ibv_mw_type(rawValue: type.rawValue)) }
        return MemoryWindow(raw, type: type, protectionDomain: self)
    }
}

extension QueuePair {
    /// Binds a window to a range of a region: ibv_bind_mw(3), or IBV_WR_BIND_MW for a window of type 2. The bind
    /// completes with the opcode `bindMemoryWindow`; the rkey is valid from then on.
    ///
    /// - Parameters:
    ///   - window: The memory window. Its earlier binding ends.
    ///   - region: A region with `AccessFlags.memoryWindowBind`.
    ///   - range: The bytes of the region.
    ///   - access: The operations that peers may do.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Returns: The address, rkey and size for the peer.
    /// - Throws: `EINVAL` when the range lies outside the region, or as `post`.
    public mutating func bind(
        _ window: MemoryWindow, to region: MemoryRegion, _ range: Range<Int>, access: AccessFlags, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) -> RemoteMemory {
        let sge = try region.sge(range)
        guard let memory = region.unsafeRaw else {
            throw region.outside("it was re-registered: use the region that reregister returned")
        }
        let info = ibv_mw_bind_info(
            mr: memory, addr: sge.address, length: UInt64(range.count), mw_access_flags: access.rawValue)
        let queuePair = raw
        let bindOne = context.unsafeRaw.pointee.ops.bind_mw
        var code: Int32 = 0
        let key = try window.bind(to: region) { (window) throws(VerbsError) -> UInt32 in
            if typeOf(window) == .one {
                var request = ibv_mw_bind(wr_id: id, send_flags: flags.rawValue, bind_info: info)
                code = bindOne.map { $0(queuePair, window, &request) } ?? Int32(Errno.notSupported.rawValue)
            } else {
                code = rdma_post_bind_mw(queuePair, id, flags.rawValue, window, info)
            }
            if code != 0 { throw sendFailure(SendOperation.Opcode.bindMemoryWindow.rawValue, sgeCount: 0, code) }
            return typeOf(window) == .one ? window.pointee.rkey : rdma_next_rkey(window.pointee.rkey)
        }
        return RemoteMemory(address: sge.address, rkey: key, byteCount: UInt64(range.count))
    }
}

/// The type of the window (`ibv_mw.type`).
private func typeOf(_ window: UnsafeMutablePointer<ibv_mw>) -> MemoryWindowType {
    window.pointee.type == IBV_MW_TYPE_2 ? .two : .one
}
