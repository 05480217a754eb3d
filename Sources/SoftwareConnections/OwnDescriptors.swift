import CLinux
import Glibc
import Synchronization

/// The descriptors of the service. A program knows nothing of them and may close every number that it has not opened
/// itself: they have high numbers, which programs seldom name, and this list tells the drop-in library which numbers it
/// does not close for the program.
package enum OwnDescriptors {
    /// Numbers from here on are not used. The drop-in library's table has this size, too.
    private static let end: Int32 = 65536
    /// Numbers from here on are tried first.
    private static let start: Int32 = 1024

    /// One bit for each number.
    private static nonisolated(unsafe) let words: UnsafeMutablePointer<Atomic<UInt64>> = {
        let words = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: Int(end) / 64)
        for index in 0..<Int(end) / 64 { (words + index).initialize(to: Atomic(0)) }
        // A child of fork(2) would keep the names of mailboxes in use after its parent has closed them.
        pthread_atfork(nil, nil, { OwnDescriptors.closeInChild() })
        return words
    }()

    /// Set in a child of fork(2).
    private static let child = Atomic(false)

    /// Whether this is a child of fork(2) of a process that had such descriptors: they are closed.
    static var isInChild: Bool { child.load(ordering: .relaxed) }

    /// Takes a descriptor over: gives it another number and notes that. A negative errno value is passed on. Returns the
    /// descriptor, or a negative errno value, with which the given one is closed.
    static func keep(_ given: Int32) -> Int32 {
        if given < 0 { return given }
        // A quarter of the numbers is left where they are few.
        let least = min(start, Int32(clamping: linux_descriptor_limit() / 4 * 3))
        var descriptor = fcntl(given, F_DUPFD_CLOEXEC, least)
        if descriptor < 0 {
            // The high numbers are in use.
            descriptor = given
        } else {
            Glibc.close(given)
        }
        guard descriptor < end else {
            Glibc.close(descriptor)
            return -EMFILE
        }
        let (word, bit) = place(descriptor)
        words[word].bitwiseOr(bit, ordering: .relaxed)
        return descriptor
    }

    /// Closes a descriptor of `keep`. One that is not noted any more has another owner.
    static func close(_ descriptor: Int32) {
        if forget(descriptor) { Glibc.close(descriptor) }
    }

    /// Takes a number out of the list without closing it: another file may have it. Returns whether it was there.
    @discardableResult
    static func forget(_ descriptor: Int32) -> Bool {
        guard (0..<end).contains(descriptor) else { return false }
        let (word, bit) = place(descriptor)
        return words[word].bitwiseAnd(~bit, ordering: .relaxed).oldValue & bit != 0
    }

    /// The first of these descriptors with a number in the range; -1 if there is none. Takes no lock and allocates nothing
    /// once there has been a descriptor.
    package static func first(from first: UInt32, through last: UInt32) -> Int32 {
        var number = Int(first)
        let end = min(Int(last) + 1, Int(end))
        while number < end {
            let rest = words[number / 64].load(ordering: .relaxed) >> UInt64(number % 64)
            if rest != 0 {
                number += rest.trailingZeroBitCount
                return number < end ? Int32(number) : -1
            }
            number = (number / 64 + 1) * 64
        }
        return -1
    }

    private static func place(_ descriptor: Int32) -> (word: Int, bit: UInt64) {
        (Int(descriptor) / 64, 1 << UInt64(descriptor % 64))
    }

    /// Calls only what a signal handler may call, as fork(2) demands in a process with threads.
    private static func closeInChild() {
        child.store(true, ordering: .relaxed)
        while true {
            let descriptor = first(from: 0, through: .max)
            guard descriptor >= 0 else { return }
            close(descriptor)
        }
    }
}
