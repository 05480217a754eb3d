import CLinux
import Foundation
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Slots")
    struct SlotTests {
        /// Connects to a slot as a sender does, and closes the connection. Returns 0, or an errno value.
        private func probe(_ number: Int) -> Int32 {
            let connection = Slot.connect(number)
            if connection < 0 { return -connection }
            linux_close(connection)
            return 0
        }

        private func isNamed(_ number: Int) throws -> Bool {
            let name = withUnsafeBytes(of: Slot.name(number)) {
                String(cString: $0.baseAddress!.assumingMemoryBound(to: CChar.self))
            }
            return try String(contentsOfFile: "/proc/net/unix", encoding: .utf8).split(separator: "\n")
                .contains { $0.hasSuffix("@" + name) }
        }

        @Test("Every open device has its own slot, whose name is free after it is closed")
        func slots() throws {
            let first = Slot()
            let number: Int
            do {
                let second = Slot()
                number = second.number
                let (own, error) = (first.number, probe(number))
                #expect(own != number && error == 0)
                #expect(try isNamed(number))
                // No other socket can listen there.
                let other = withUnsafeBytes(of: Slot.name(number)) { linux_local_listen($0.baseAddress) }
                #expect(other == -EADDRINUSE)
                _ = consume second
            }
            #expect(probe(number) == ECONNREFUSED)
            #expect(try !isNamed(number))
            _ = consume first
        }
    }
}
