import Testing
import Verbs

extension Guest {
    @Suite("rxe with every provider: invalidation of rkeys")
    struct RxeInvalidationTests {
        /// The peer invalidates the rkey with SEND with Invalidate, or the window's owner with Local Invalidate.
        enum Means: CaseIterable { case peer, owner }

        @Test("an invalidated memory window refuses access, and can be bound again")
        func invalidation() async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let roles: [(NativeDevice.Provider, NativeDevice.Provider)] = [
                    (.native, .native), (.native, .libibverbs), (.libibverbs, .native), (.crxe, .crxe),
                    (.crxe, .libibverbs), (.libibverbs, .crxe),
                ]
                for (left, right) in roles {
                    let (here, there) = (try device.open(left), try device.open(right))
                    for means in Means.allCases {
                        var link = try Link(here, there)
                        try exchange(&link, means, isOurs: right != .libibverbs)
                    }
                }
            }
        }

        private func exchange(_ link: inout Link, _ means: Means, isOurs: Bool) throws {
            let data = try link.left.region.sge(0..<6)
            try link.left.region.copyBytes(from: Array("window".utf8).span.bytes)
            let window = try link.right.region.protectionDomain.makeMemoryWindow(.two)
            var keys: [UInt32] = []
            for start in [1024, 2048] {
                let remote = try link.right.queuePair.bind(
                    window, to: link.right.region, start..<start + 64, access: .remoteWrite)
                #expect(try link.right.next().opcode == .bindMemoryWindow)
                try link.left.queuePair.postSend(.write(to: remote), data)
                try link.left.next().check()
                #expect(try link.right.region.copyBytes(start..<start + 6) == Array("window".utf8))
                keys.append(remote.rkey)
                switch means {
                case .peer:
                    try link.right.queuePair.postReceive(try link.right.region.sge(8192..<8256), id: 4)
                    try link.left.queuePair.postSend(.send(invalidating: remote.rkey), data)
                    try link.left.next().check()
                    let received = try link.right.next()
                    #expect(received.isSuccess && received.id == 4 && received.byteCount == 6)
                    #expect(received.immediate == nil)
                    // rdma-core's rxe copies IB_WC_WITH_INVALIDATE, which is not the value of IBV_WC_WITH_INV.
                    if isOurs { #expect(received.invalidatedKey == remote.rkey) }
                case .owner:
                    try link.right.queuePair.postSend(.localInvalidate(remote.rkey), id: 5)
                    let invalidated = try link.right.next()
                    #expect(invalidated.isSuccess && invalidated.id == 5 && invalidated.opcode == .localInvalidate)
                }
                if start == 2048 {
                    try link.left.queuePair.postSend(.write(to: remote), data)
                    #expect(try link.left.next().status == .remoteAccessError)
                }
            }
            #expect(keys[0] != keys[1])
        }

        @Test(
            "the wr_ functions invalidate rkeys, and extended polling returns the invalidated one",
            arguments: NativeDevice.Provider.ofRxe)
        func extended(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let domain = try context.makeProtectionDomain()
                var completions = try context.makeCompletionQueue(capacity: 16, fields: .standard)
                var options = QueuePair.CreationOptions()
                options.extendedOperations = [.send, .sendWithInvalidate, .localInvalidate]
                var left = try domain.makeQueuePair(.reliableConnection, completions: completions, options: options)
                var right = try Link.End(try device.open(provider.other), .reliableConnection)
                let (near, far) = (try left.endpoint(), try right.queuePair.endpoint())
                try left.connect(to: far)
                try right.queuePair.connect(to: near)
                let here = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .memoryWindowBind])
                let own = try domain.makeMemoryWindow(.two)
                let other = try right.region.protectionDomain.makeMemoryWindow(.two)

                func next() throws -> (WorkCompletion.Opcode, key: UInt32?) {
                    var seen: [(WorkCompletion.Opcode, key: UInt32?)] = []
                    while seen.isEmpty {
                        try completions.pollExtended(limit: 1) { completion in
                            #expect(completion.status == .success)
                            seen.append((completion.opcode, completion.invalidatedKey))
                        }
                    }
                    return seen[0]
                }
                // The peer invalidates our window, and we the peer's; then we bind ours again and invalidate it.
                let mineBound = try left.bind(own, to: here, 0..<64, access: .remoteWrite).rkey
                #expect(try next().0 == .bindMemoryWindow)
                let itsBound = try right.queuePair.bind(other, to: right.region, 0..<64, access: .remoteWrite).rkey
                try right.next().check()
                try left.postReceive(try here.sge(1024..<1088))
                try right.queuePair.postSend(.send(invalidating: mineBound), try right.region.sge(0..<8))
                try right.next().check()
                // rdma-core's rxe copies IB_WC_WITH_INVALIDATE, which is not the value of IBV_WC_WITH_INV.
                #expect(try next() == (.receive, provider == .libibverbs ? nil : mineBound))
                try right.queuePair.postReceive(try right.region.sge(1024..<1088))
                try left.postExtended { (requests) throws(VerbsError) in
                    try requests.append(.send(invalidating: itsBound), try here.sge(0..<8))
                }
                #expect(try next() == (.send, nil))
                try right.next().check()
                let nothing: [ScatterGatherElement] = []
                let boundAgain = try left.bind(own, to: here, 64..<128, access: .remoteWrite).rkey
                #expect(try next().0 == .bindMemoryWindow)
                try left.postExtended { (requests) throws(VerbsError) in
                    try requests.append(.localInvalidate(boundAgain), sgList: nothing.span)
                }
                #expect(try next() == (.localInvalidate, nil))
            }
        }
    }
}
