import CIBVerbs
import ProviderKit

/// How many events about an object were read. Destroying it waits until as many were acknowledged. Each count is under
/// the lock of the queue that its events are read from.
struct EventsRead {
    let completions: UnsafeMutablePointer<UInt32>
    let others: UnsafeMutablePointer<UInt32>

    init() {
        completions = .allocate(capacity: 2)
        completions.initialize(repeating: 0, count: 2)
        others = completions + 1
    }

    func deallocate() { completions.deallocate() }
}

extension EventQueue {
    /// Drops the events about an object that goes away.
    /// - Returns: how many were read before.
    func drop(
        _ read: UnsafeMutablePointer<UInt32>, where isDropped: (UnsafePointer<ibv_async_event>) -> Bool
    ) -> UInt32 {
        var count: UInt32 = 0
        drop(where: isDropped) { count = read.pointee }
        return count
    }
}
