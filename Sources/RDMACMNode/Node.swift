import CIBVerbs
import CLinux
import CRDMACM
import CRDMACMNode
import Glibc
import Locking
import SoftwareConnections
import SystemPackage

/// The kernel's interface of rdma_cm, /dev/infiniband/rdma_cm (`drivers/infiniband/core/ucma.c`), for the software devices
/// of this process: the distribution's librdmacm works on it unchanged.
///
/// A program opens the node, writes commands to the descriptor, and reads events with the command GET_EVENT. poll(2)
/// reports the descriptor as readable while an event waits: it is a counter (`EFD_SEMAPHORE`), and the caller takes one
/// with read(2), which blocks or not as the descriptor's `O_NONBLOCK` says, before it passes GET_EVENT on.
///
/// An open file is known by the node's own descriptor of it. The caller gives the program copies (dup(2)), and closes the
/// file after the last of them.
///
/// Numbers of identifiers and memberships are the smallest that are free, as the kernel's.
package final class Node: Sendable {
    let service: SoftwareService
    /// Reports to the user that an identifier listens, for scripts that wait for it.
    let report: @Sendable (String) -> Void
    private let state = Locked(State())

    /// The open files by descriptor, the identifiers and the memberships.
    struct State {
        var files: [Int32: File] = [:]
        var identifiers = Table<Identifier>()
        var memberships = Table<Membership>()
        /// The numbers of `identifiers` by the objects of the service.
        var numbers: [ObjectIdentifier: UInt32] = [:]
    }

    package init(_ service: SoftwareService, report: @escaping @Sendable (String) -> Void) {
        self.service = service
        self.report = report
    }

    /// open(2) of the node. Returns the descriptor of the file, which the node keeps until `close`, or a negative errno
    /// value.
    ///
    /// - Parameter flags: `O_NONBLOCK`, which copies of the descriptor have too, or 0; others are ignored.
    package func open(flags: Int32) -> Int32 {
        let code = service.start()
        guard code == 0 else { return -code }
        guard
            let channel = SoftwareChannel(
                nonblocking: flags & O_NONBLOCK != 0, dropsEventsBeforeAcceptance: true, isKept: true)
        else { return -errno }
        state.withLock { $0.files[channel.descriptor] = File(channel: channel) }
        return channel.descriptor
    }

    /// close(2) of a file: destroys its identifiers. In a child of fork(2) it does nothing.
    package func close(_ descriptor: Int32) {
        if service.isInChild { return }
        let channel: SoftwareChannel? = state.withLock { state in
            guard let file = state.files.removeValue(forKey: descriptor) else { return nil }
            for identifier in state.identifiers.values where identifier.file === file {
                destroy(identifier, &state)
            }
            return file.channel
        }
        channel?.drain()
    }

    /// write(2) of a command. Returns 0, or an errno value: `EAGAIN` for GET_EVENT when no event waits, although the caller
    /// has read the descriptor; `EPERM` in a child of fork(2), which has no copy of the service. With any other error of
    /// GET_EVENT the event still waits.
    package func write(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Int32 {
        if service.isInChild { return EPERM }
        do throws(Errno) {
            let command = try Command(bytes)
            try state.withLock { state throws(Errno) in
                guard let file = state.files[descriptor] else { throw .badFileDescriptor }
                try perform(command, file, &state)
            }
            return 0
        } catch {
            return error.rawValue
        }
    }
}

/// An open file of the node (`struct ucma_file`).
final class File: Sendable {
    let channel: SoftwareChannel

    init(channel: SoftwareChannel) { self.channel = channel }
}

/// An identifier of a program (`struct ucma_context`).
final class Identifier: @unchecked Sendable {
    // Unchecked, as the class below: used under the lock of the node.
    let number: UInt32
    var file: File
    let software: SoftwareIdentifier
    /// The program's own word, which events carry; 0 until a request is accepted.
    var userWord: UInt64
    /// The number of its events that the program has read.
    var eventsReported: UInt32 = 0

    init(number: UInt32, file: File, software: SoftwareIdentifier, userWord: UInt64) {
        self.number = number
        self.file = file
        self.software = software
        self.userWord = userWord
    }
}

/// The membership of an identifier in a multicast group (`struct ucma_multicast`).
final class Membership: @unchecked Sendable {
    let number: UInt32
    let identifier: Identifier
    let userWord: UInt64
    let group: SocketAddress
    var eventsReported: UInt32 = 0

    init(number: UInt32, identifier: Identifier, userWord: UInt64, group: SocketAddress) {
        self.number = number
        self.identifier = identifier
        self.userWord = userWord
        self.group = group
    }
}

/// Objects by number; a new one has the smallest that is free.
struct Table<Object: AnyObject & Sendable>: Sendable {
    private var objects: [Object?] = []

    /// The number of the next object.
    var next: UInt32 { UInt32(objects.firstIndex { $0 == nil } ?? objects.count) }

    var values: [Object] { objects.compactMap(\.self) }

    subscript(number: UInt32) -> Object? {
        get { Int(number) < objects.count ? objects[Int(number)] : nil }
        set {
            if Int(number) == objects.count { objects.append(nil) }
            objects[Int(number)] = newValue
            while objects.last.map({ $0 == nil }) == true { objects.removeLast() }
        }
    }
}
