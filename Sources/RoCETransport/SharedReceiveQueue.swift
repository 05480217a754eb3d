/// What a shared receive queue is made of.
struct SharedReceiveQueueStorage: ~Copyable {
    let ring: Ring
    let elements: UInt32
    let protectionDomain: UInt32
    let core: UnsafeMutablePointer<Core>
    let event: UnsafeMutablePointer<EventNode>
    let userData: UnsafeMutableRawPointer?
    /// An event is due when fewer than so many receives are left; 0 asks for none.
    var limit: UInt32
    var users = 0
}

/// A shared receive queue. A plain handle; it is dead after `Engine.destroy`.
///
/// `stageReceive` and `commitReceives` need not be under the lock that guards the engine, but only one thread at a time
/// may post.
@frozen
public struct SharedReceiveQueue: Hashable, @unchecked Sendable {
    /// The engine's storage, opaque outside; the same value names the same object.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<SharedReceiveQueueStorage> {
        identity.assumingMemoryBound(to: SharedReceiveQueueStorage.self)
    }

    init(_ storage: UnsafeMutablePointer<SharedReceiveQueueStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// How many receives it holds.
    public var capacity: Int { Int(storage.pointee.ring.limit) }

    /// How many pieces of memory a receive may have.
    public var elements: Int { Int(storage.pointee.elements) }

    /// The pointer that was given to `Engine.createSharedReceiveQueue`.
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// Puts a receive into the queue; the engine does not see it before `commitReceives`.
    ///
    /// - Parameters:
    ///   - id: `wr_id`, comes back in the completion.
    ///   - elements: the pieces of memory, `count` of them; the list is copied.
    ///   - count: how many pieces: 0 to `elements`.
    /// - Returns: `.success`; ENOMEM when the queue is full; EINVAL for too many pieces.
    public func stageReceive(id: UInt64, elements: UnsafePointer<ScatterGatherElement>?, count: Int) -> Errno {
        storage.pointee.ring.stageReceive(
            id: id, elements: elements, count: count, most: Int(storage.pointee.elements))
    }

    /// Shows the engine what was staged. Queue pairs that wait for receives ask again by themselves.
    public func commitReceives() { _ = storage.pointee.ring.publish() }
}
