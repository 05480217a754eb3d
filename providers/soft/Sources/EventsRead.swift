import CIBVerbs
import ProviderKit

/// Counts of the events of an object that were read. Destroying the object waits until as many were acknowledged. Each
/// count is guarded by the lock of the queue that its events are read from.
struct EventsRead {
    /// Completion events.
    let completions: UnsafeMutablePointer<UInt32>
    /// Asynchronous events.
    let others: UnsafeMutablePointer<UInt32>

    init() {
        completions = .allocate(capacity: 2)
        completions.initialize(repeating: 0, count: 2)
        others = completions + 1
    }

    func deallocate() { completions.deallocate() }
}

extension EventQueue {
    /// Drops the unread events of an object that is destroyed.
    /// - Returns: How many were read before.
    func drop(
        _ read: UnsafeMutablePointer<UInt32>, where isDropped: (UnsafePointer<ibv_async_event>) -> Bool
    ) -> UInt32 {
        var count: UInt32 = 0
        drop(where: isDropped) { count = read.pointee }
        return count
    }
}
