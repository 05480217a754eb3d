import CIBVerbs
import SystemPackage
import Testing
import Verbs

extension FakeTests {
    @Suite("Extended work requests that no software device supports")
    struct ExtendedPosting {
        /// Runs `body` with an extended queue pair of the fake provider and returns the recorded `ibv_wr_*` calls.
        private func calls(
            _ operations: QueuePair.ExtendedOperations,
            _ body: (inout ExtendedRequests) throws(VerbsError) -> Void
        ) throws -> (calls: [String], error: VerbsError?) {
            let context = try Fake.open()
            let queue = try context.makeCompletionQueue(capacity: 1)
            var options = QueuePair.CreationOptions()
            options.extendedOperations = operations
            var pair = try context.makeProtectionDomain().makeQueuePair(
                .reliableConnection, completions: queue, options: options)
            Fake.reset()
            let error = failure { () throws(VerbsError) in try pair.postExtended(body) }
            return (Fake.calls, error)
        }

        @Test("an atomic write passes rkey, address, 8 bytes, id and flags to ibv_wr_atomic_write")
        func atomicWrite() throws {
            let remote = RemoteMemory(address: 4096, rkey: 77, byteCount: 8)
            let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
            let (calls, error) = try calls(.atomicWrite) { (requests) throws(VerbsError) in
                try requests.append(
                    .atomicWrite(to: remote), inline: bytes.span.bytes, id: 9, flags: [.signaled, .fence])
            }
            #expect(error == nil)
            #expect(
                calls == [
                    "wr_start", "wr_atomic_write id 9 flags 3",
                    "rkey 77 address 4096 data [1, 2, 3, 4, 5, 6, 7, 8]", "wr_complete",
                ])
        }

        @Test("a flush passes rkey, range, placement type and selectivity level to ibv_wr_flush")
        func flush() throws {
            let remote = RemoteMemory(address: 4096, rkey: 77, byteCount: 1 << 20)
            let (calls, error) = try calls(.flush) { (requests) throws(VerbsError) in
                try requests.append(.flush(remote), id: 9, flags: [.signaled, .fence])
                try requests.append(
                    .flush(remote, placement: [.globalVisibility, .persistence], selectivity: .memoryRegion))
            }
            #expect(error == nil)
            #expect(
                calls == [
                    "wr_start", "wr_flush id 9 flags 3", "rkey 77 address 4096 length 1048576 type 1 level 0",
                    "wr_flush id 0 flags 2", "rkey 77 address 4096 length 1048576 type 3 level 1", "wr_complete",
                ])
            #expect(FlushPlacement([.globalVisibility, .persistence]).description == "[GLOBAL, PERSISTENT]")
            #expect([FlushSelectivity.range, .memoryRegion, .init(rawValue: 2)].map(\.name) == ["RANGE", "MR", nil])
        }

        @Test("an atomic write of another length than 8 bytes is EINVAL and aborts the batch")
        func shortAtomicWrite() throws {
            let remote = RemoteMemory(address: 4096, rkey: 77, byteCount: 8)
            let bytes: [UInt8] = [1, 2, 3, 4]
            let (calls, error) = try calls(.atomicWrite) { (requests) throws(VerbsError) in
                try requests.append(.atomicWrite(to: remote), inline: bytes.span.bytes)
            }
            #expect(error?.errno == .invalidArgument && error?.hint == "an atomic write has 8 bytes")
            #expect(calls == ["wr_start", "wr_abort"])
        }

        @Test("a TCP segmentation request passes header, mss and SGEs to ibv_wr_send_tso")
        func segmented() throws {
            let header: [UInt8] = [0xaa, 0xbb, 0xcc]
            let list = [
                ScatterGatherElement(unsafeAddress: 100, byteCount: 10, lkey: 5),
                ScatterGatherElement(unsafeAddress: 200, byteCount: 20, lkey: 6),
            ]
            let (calls, error) = try calls(.tso) { (requests) throws(VerbsError) in
                try requests.appendSegmented(header: header.span.bytes, segment: 1460, sgList: list.span, id: 3)
            }
            #expect(error == nil)
            #expect(
                calls == [
                    "wr_start", "wr_send_tso id 3 flags 2", "header [170, 187, 204] mss 1460",
                    #"wr_set_sge_list ["100+10 lkey 5", "200+20 lkey 6"]"#, "wr_complete",
                ])
        }

        @Test("a queue pair without the operation refuses it with EOPNOTSUPP", arguments: [true, false])
        func refused(isAtomicWrite: Bool) throws {
            let bytes = [UInt8](repeating: 0, count: 8)
            let (calls, error) = try calls(.send) { (requests) throws(VerbsError) in
                if isAtomicWrite {
                    let remote = RemoteMemory(address: 0, rkey: 1, byteCount: 8)
                    try requests.append(.atomicWrite(to: remote), inline: bytes.span.bytes)
                } else {
                    let list = [ScatterGatherElement(unsafeAddress: 0, byteCount: 1, lkey: 1)]
                    try requests.appendSegmented(header: bytes.span.bytes, segment: 1, sgList: list.span)
                }
            }
            #expect(error?.errno == .notSupported)
            #expect(error?.hint?.contains(isAtomicWrite ? "ATOMIC_WRITE" : "TSO") == true)
            #expect(calls == ["wr_start", "wr_abort"])
        }
    }
}
