import CIBVerbs
import CLinux
import CSoftExtension
import Foundation
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Management datagrams")
    struct ManagementTests {
        private static let loopback = RawPeer.mapped([127, 0, 0, 1])
        /// Of this process only, since the processes of a user share the names of mailboxes.
        private static let service = 0x0106 << 32 | UInt64(getpid())

        /// An open device with its mailbox.
        private final class Port {
            let device: OpenDevice
            let functions: UnsafePointer<rdma_soft_management>
            let mailbox: Int32
            var number: UInt8 { UInt8(functions.pointee.device_number(device.context)) }

            /// - Parameter usesNetwork: Whether messages to this host are sent over UDP.
            init(usesNetwork: Bool = false) throws {
                device = try OpenDevice()
                if usesNetwork { device.useDatagrams(port: 47_915) }
                functions = try #require(device.table.query_extension(device.context, "soft-management", 1))
                    .assumingMemoryBound(to: rdma_soft_management.self)
                mailbox = functions.pointee.open(device.context)
                if mailbox < 0 { throw Refusal(errno) }
            }

            deinit { close(mailbox) }

            func listen(_ gid: [UInt8]?) throws -> Mailbox {
                let descriptor = functions.pointee.listen(device.context, service, gid)
                if descriptor < 0 { throw Refusal(errno) }
                return Mailbox(descriptor)
            }

            func send(_ mad: [UInt8], from source: [UInt8] = loopback, to destination: [UInt8] = loopback) -> Int32 {
                var way = rdma_soft_mad_way()
                withUnsafeMutableBytes(of: &way.source) { $0.copyBytes(from: source) }
                withUnsafeMutableBytes(of: &way.destination) { $0.copyBytes(from: destination) }
                return functions.pointee.send(device.context, &way, mad)
            }

            /// Waits for a message.
            func receive(from mailbox: Int32? = nil) throws -> (mad: [UInt8], source: [UInt8], destination: [UInt8]) {
                let mailbox = mailbox ?? self.mailbox
                var entry = pollfd(fd: mailbox, events: Int16(POLLIN), revents: 0)
                guard poll(&entry, 1, 20_000) == 1 else { throw Timeout() }
                var way = rdma_soft_mad_way()
                var mad = [UInt8](repeating: 0, count: 256)
                try check(functions.pointee.receive(device.context, mailbox, &way, &mad))
                return (
                    mad, withUnsafeBytes(of: way.source) { Array($0) },
                    withUnsafeBytes(of: way.destination) { Array($0) }
                )
            }

            func isEmpty(_ mailbox: Int32? = nil) -> Bool {
                var way = rdma_soft_mad_way()
                var mad = [UInt8](repeating: 0, count: 256)
                return functions.pointee.receive(device.context, mailbox ?? self.mailbox, &way, &mad) == EAGAIN
            }
        }

        private final class Mailbox {
            let descriptor: Int32
            init(_ descriptor: Int32) { self.descriptor = descriptor }
            deinit { close(descriptor) }
        }

        /// A message with these communication IDs, or the service ID at the place of the second and the next four bytes.
        private static func mad(_ attribute: UInt8, _ first: UInt32, _ second: UInt32) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: 256)
            bytes.replaceSubrange(0..<4, with: [1, 7, 2, 3])
            bytes[15] = 9
            bytes[17] = attribute
            func put(_ value: UInt64, at offset: Int, _ count: Int) {
                for index in 0..<count {
                    bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - index)))
                }
            }
            put(UInt64(first), at: 24, 4)
            put(UInt64(second), at: 28, 4)
            if attribute == 0x10 || attribute == 0x17 { put(service, at: 32, 8) }
            bytes[255] = 0x77
            return bytes
        }

        @Test("A message reaches the device of the receiver's communication ID", arguments: [false, true])
        func byIdentifier(usesNetwork: Bool) throws {
            let (sender, other, receiver) =
                (
                    try Port(usesNetwork: usesNetwork), try Port(usesNetwork: usesNetwork),
                    try Port(usesNetwork: usesNetwork)
                )
            let identifier = UInt32(receiver.number) << 24 | 0x123456
            for attribute: UInt8 in [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x18, 0x19, 0x1A] {
                // A SIDR_REP has the request ID in the first place.
                let isService = attribute == 0x18
                let mad = Self.mad(attribute, isService ? identifier : 5, isService ? 5 : identifier)
                #expect(sender.send(mad) == 0)
                let received = try receiver.receive()
                #expect(received.mad == mad && received.source == Self.loopback)
                #expect(received.destination == Self.loopback)
            }
            #expect(other.isEmpty() && receiver.isEmpty() && sender.isEmpty())
        }

        @Test("A request reaches the listener for its GID, else that for all", arguments: [false, true])
        func byService(usesNetwork: Bool) throws {
            let (sender, port) = (try Port(usesNetwork: usesNetwork), try Port(usesNetwork: usesNetwork))
            let all = try port.listen(nil)
            #expect(throws: Refusal(EADDRINUSE)) { _ = try sender.listen(nil) }
            var one: Mailbox? = try port.listen(Self.loopback)
            for attribute: UInt8 in [0x10, 0x17] {
                #expect(sender.send(Self.mad(attribute, 1, 0)) == 0)
                #expect(try port.receive(from: one!.descriptor).mad == Self.mad(attribute, 1, 0))
            }
            one = nil
            #expect(sender.send(Self.mad(0x10, 2, 0)) == 0)
            #expect(try port.receive(from: all.descriptor).mad == Self.mad(0x10, 2, 0))
            #expect(port.isEmpty(all.descriptor) && port.isEmpty())
        }

        @Test("Without a process that takes it, a message on this host is refused")
        func refused() throws {
            let port = try Port()
            #expect(port.send(Self.mad(0x10, 1, 0)) == ECONNREFUSED)
            let free = (0..<256).last { linuxIsFree($0) }
            let number = UInt32(try #require(free))
            #expect(port.send(Self.mad(0x13, 1, number << 24)) == ECONNREFUSED)
        }

        private func linuxIsFree(_ number: Int) -> Bool {
            let connection = Slot.connect(number)
            if connection >= 0 { close(connection) }
            return connection == -ECONNREFUSED
        }

        @Test("Without a process that takes it, a request from the network gets a reply")
        func replies() throws {
            let port = try Port(usesNetwork: true)
            let own = UInt32(port.number) << 24 | 1
            // A REJ of the REQ, with the reason "invalid service ID".
            #expect(port.send(Self.mad(0x10, own, 0)) == 0)
            var reply = try port.receive().mad
            #expect(reply[17] == 0x12 && Array(reply[24..<34]) == [0, 0, 0, 0, port.number, 0, 0, 1, 0, 0])
            #expect(Array(reply[34..<36]) == [0, 8] && reply[15] == 9)
            // A SIDR_REP with the status "service ID not supported".
            #expect(port.send(Self.mad(0x17, own, 0)) == 0)
            reply = try port.receive().mad
            #expect(reply[17] == 0x18 && Array(reply[24..<29]) == [port.number, 0, 0, 1, 1])
            #expect(Array(reply[36..<44]) == Array(Self.mad(0x17, own, 0)[32..<40]))
            // A DREP of the DREQ to a slot that is free.
            let free = UInt32(try #require((0..<256).last { linuxIsFree($0) }))
            #expect(port.send(Self.mad(0x15, own, free << 24 | 7)) == 0)
            reply = try port.receive().mad
            #expect(reply[17] == 0x16 && Array(reply[24..<32]) == [UInt8(free), 0, 0, 7, port.number, 0, 0, 1])
            // None for a DREP, which would be answered without an end.
            #expect(port.send(Self.mad(0x16, own, free << 24)) == 0)
            #expect(port.send(Self.mad(0x10, own, 0)) == 0)
            #expect(try port.receive().mad[17] == 0x12)
        }

        @Test("What is no message, and a source that the device does not have, are refused")
        func badInput() throws {
            let port = try Port()
            for (index, value) in [(0, 2), (1, 3), (2, 1), (3, 0x81), (5, 1), (17, 0x0F), (17, 0x1B)] as [(Int, UInt8)]
            {
                var mad = Self.mad(0x10, 1, 0)
                mad[index] = value
                #expect(port.send(mad) == EINVAL, "byte \(index)")
            }
            #expect(port.send(Self.mad(0x10, 1, 0), from: RawPeer.mapped([192, 0, 2, 1])) == EADDRNOTAVAIL)
            let functions = port.functions.pointee
            #expect(functions.send(port.device.context, nil, nil) == EINVAL)
            #expect(functions.receive(port.device.context, port.mailbox, nil, nil) == EINVAL)
            #expect(port.device.table.query_extension(port.device.context, "soft-management", 2) == nil)
            #expect(functions.open(port.device.context) == -1 && errno == EADDRINUSE)
        }

        @Test("A datagram in a mailbox that is no message is dropped by itself")
        func foreignDatagrams() throws {
            let port = try Port()
            let sender = linux_mailbox_open(nil)
            try #require(sender >= 0)
            defer { close(sender) }
            var name = [CChar](repeating: 0, count: 96)
            linux_mailbox_of_slot(Int32(port.number), &name)
            for count in [1, 296, 400] {
                let bytes = [UInt8](repeating: 0, count: count)
                try check(linux_mailbox_send(sender, name, bytes, count, nil, 0))
            }
            #expect(port.send(Self.mad(0x13, 1, UInt32(port.number) << 24)) == 0)
            var way = rdma_soft_mad_way()
            var mad = [UInt8](repeating: 0, count: 256)
            for _ in 0..<3 {
                #expect(port.functions.pointee.receive(port.device.context, port.mailbox, &way, &mad) == EMSGSIZE)
            }
            #expect(try port.receive().mad[17] == 0x13)
        }

        @Test("Packets that are no MAD to queue pair 1 are dropped")
        func packets() {
            var port = ManagementPort()
            var packet = [UInt8](repeating: 0, count: ManagementPort.packetByteCount)
            let mad = Self.mad(0x10, 1, 0)
            packet.withUnsafeMutableBytes { target in mad.withUnsafeBytes { port.write($0, to: target.baseAddress!) } }
            func message(_ change: (inout [UInt8]) -> Void) -> [UInt8]? {
                var packet = packet
                change(&packet)
                return packet.withUnsafeBytes { ManagementPort.message(in: $0).map { Array($0) } }
            }
            #expect(message { _ in } == mad)
            #expect(packet.withUnsafeBytes { ManagementPort.isDestination(of: $0) })
            #expect(message { $0[2] = 0x7F } == mad, "a limited member of the partition")
            #expect(message { $0.removeLast() } == nil)
            #expect(message { $0.append(0) } == nil)
            #expect(message { $0[0] = 0x65 } == nil)
            #expect(message { $0[1] = 1 } == nil)
            #expect(message { $0[3] = 1 } == nil)
            #expect(message { $0[12] = 0 } == nil)
            #expect(message { $0[19] = 2 } == nil)
        }

        @Test("The end of the process that holds a communication ID is reported")
        func watched() throws {
            let port = try Port()
            let process = try PeerProcess("server", [])
            let address = try JSONDecoder().decode(Address.self, from: Data(try #require(process.line()).utf8))
            let communicationID = (address.queuePair >> 16) << 24
            let functions = port.functions.pointee
            // More than the connections that a device accepts.
            var entries: [pollfd] = []
            defer { for entry in entries { close(entry.fd) } }
            while entries.count < Senders.capacity + 8 {
                let watch = functions.watch(port.device.context, Self.loopback, communicationID)
                // The peer has not accepted the last connections yet.
                if watch < 0, errno == EAGAIN {
                    sched_yield()
                    continue
                }
                try #require(watch >= 0, "errno \(errno)")
                entries.append(pollfd(fd: watch, events: Int16(POLLIN), revents: 0))
            }
            #expect(poll(&entries, UInt(entries.count), 200) == 0)
            process.kill()
            #expect(poll(&entries, UInt(entries.count), 20_000) == entries.count)
            #expect(functions.watch(port.device.context, Self.loopback, communicationID) == -1)
            #expect(errno == ECONNREFUSED)
            #expect(functions.watch(port.device.context, RawPeer.mapped([192, 0, 2, 1]), 0) == -1)
            #expect(errno == EHOSTUNREACH)
        }
    }
}
