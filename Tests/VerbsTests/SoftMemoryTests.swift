import CLinux
import Foundation
import Glibc
import SystemPackage
import Testing
import Verbs

@Suite("Memory windows, device memory and special regions on soft, through the Swift API")
struct SoftMemoryTests {
    @Test("A window of each type is bound, used by the peer, and invalidated")
    func windows() throws {
        var pair = try Pair(Bench.open("soft0"))
        let domain = pair.right.region.protectionDomain
        let region = try domain.makeMemoryRegion(
            byteCount: 64, access: [.localWrite, .memoryWindowBind])
        try pair.left.region.copyBytes(from: [0x0102_0304].span.bytes)
        for type in [MemoryWindowType.one, .two] {
            let window = try domain.makeMemoryWindow(type)
            let remote = try pair.right.queuePair.bind(window, to: region, 8..<24, access: .remoteWrite)
            #expect(try pair.right.next().opcode == .bindMemoryWindow)
            #expect(remote.byteCount == 16 && remote.rkey == window.rkey)
            try pair.left.queuePair.postSend(.write(to: remote), try pair.left.region.sge(0..<16))
            #expect(try pair.left.next().isSuccess)
            #expect(region.bytes.unsafeLoad(fromByteOffset: 8, as: Int.self) == 0x0102_0304)
            guard type == .two else { continue }
            try pair.right.queuePair.postReceive(id: 4)
            try pair.left.queuePair.postSend(.send(invalidating: remote.rkey), id: 3)
            let received = try pair.right.next()
            #expect(received.id == 4 && received.invalidatedKey == remote.rkey)
            #expect(try pair.left.next().isSuccess)
            let again = try pair.right.queuePair.bind(window, to: region, 8..<24, access: .remoteWrite)
            try pair.right.queuePair.postSend(.localInvalidate(again.rkey))
            #expect(try pair.right.next().opcode == .bindMemoryWindow)
            #expect(try pair.right.next().opcode == .localInvalidate)
            try pair.left.queuePair.postSend(.write(to: again), try pair.left.region.sge(0..<16))
            #expect(try pair.left.next().status == .remoteAccessError)
        }
    }

    @Test("An atomic write arrives")
    func atomicWrite() throws {
        var pair = try Pair(Bench.open("soft0"))
        try pair.left.region.copyBytes(from: [0x0102_0304].span.bytes)
        try pair.left.queuePair.postSend(
            .atomicWrite(to: pair.right.region.remote.subrange(16...)), try pair.left.region.sge(0..<8))
        #expect(try pair.left.next().opcode == .atomicWrite)
        #expect(pair.right.region.bytes.unsafeLoad(fromByteOffset: 16, as: Int.self) == 0x0102_0304)
    }

    @Test("A flush of a range and of a region completes; postSend and persistence are refused")
    func flush() throws {
        var creation = QueuePair.CreationOptions()
        creation.extendedOperations = [.write, .flush]
        let context = try Bench.open("soft0")
        let domain = try context.makeProtectionDomain()
        var completions = try context.makeCompletionQueue(
            capacity: 16, channel: try context.makeCompletionChannel())
        var left = try domain.makeQueuePair(.reliableConnection, completions: completions, options: creation)
        let right = try domain.makeQueuePair(.reliableConnection, completions: completions)
        let region = try domain.makeMemoryRegion(byteCount: 64, access: [.localWrite, .remoteWrite, .flushGlobal])
        var options = ConnectionOptions()
        options.access.insert(.flushGlobal)
        let address = try context.addresses()[0]
        let (leftEnd, rightEnd) = (try left.endpoint(at: address), try right.endpoint(at: address))
        try left.connect(to: rightEnd, options: options)
        try right.connect(to: leftEnd, options: options)
        try left.postExtended { (requests) throws(VerbsError) in
            try requests.append(.write(to: region.remote.subrange(0..<8)), region.sge(8..<16), flags: [])
            try requests.append(.flush(region.remote.subrange(0..<8)), id: 5)
            try requests.append(.flush(region.remote, selectivity: .memoryRegion), id: 6)
        }
        for id in [5, 6] as [UInt64] {
            let completion = try completions.poll(timeout: .seconds(300))
            #expect(completion.id == id && completion.opcode == .flush && completion.isSuccess)
        }
        let refused = failure { () throws(VerbsError) in try left.postSend(.flush(region.remote)) }
        #expect(refused?.errno == .notSupported && refused?.hint?.contains("postExtended") == true)
        let volatile = failure { () throws(VerbsError) in
            _ = try domain.makeMemoryRegion(byteCount: 64, access: [.localWrite, .flushPersistent])
        }
        #expect(volatile?.errno == .notSupported && volatile?.hint?.contains("IBV_ACCESS_FLUSH_GLOBAL") == true)
        try left.postExtended { (requests) throws(VerbsError) in
            try requests.append(.flush(region.remote, placement: .persistence))
        }
        #expect(try completions.poll(timeout: .seconds(300)).status == .remoteInvalidRequestError)
    }

    @Test("Device memory is copied, registered and written by the peer")
    func deviceMemory() throws {
        var pair = try Pair(Bench.open("soft0"))
        let domain = pair.right.region.protectionDomain
        let memory = try domain.context.makeDeviceMemory(byteCount: 256, alignment: 64)
        let region = try domain.makeMemoryRegion(
            memory, offset: 128, byteCount: 128, access: [.localWrite, .remoteWrite])
        try pair.left.region.copyBytes(from: [5, 6].span.bytes)
        try pair.left.queuePair.postSend(
            .write(to: region.remote.subrange(8...)), try pair.left.region.sge(0..<16))
        #expect(try pair.left.next().isSuccess)
        #expect(try memory.copyBytes(136..<137) == [5])
        try memory.copyBytes(from: [9 as UInt8].span.bytes, at: 0)
        #expect(try memory.copyBytes(0..<1) == [9])
    }

    @Test("The null region, a dma-buf, and the address space with advice")
    func specialRegions() throws {
        var pair = try Pair(Bench.open("soft0"))
        let domain = pair.right.region.protectionDomain
        let null = try domain.makeNullMemoryRegion()
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<16))
        try pair.right.queuePair.postReceive(try null.sge(0..<16))
        #expect(try pair.right.next().byteCount == 16)
        #expect(try pair.left.next().isSuccess)

        let file = linux_memory_file("verbs-dmabuf-test")
        defer { close(file) }
        #expect(ftruncate(file, 4096) == 0)
        let mapped = try domain.makeMemoryRegion(
            dmabuf: FileDescriptor(rawValue: file), offset: 0, byteCount: 4096, iova: 0x10000,
            access: [.localWrite, .remoteWrite])
        try pair.left.region.copyBytes(from: [7].span.bytes)
        try pair.left.queuePair.postSend(.write(to: mapped.remote), try pair.left.region.sge(0..<8))
        #expect(try pair.left.next().isSuccess)
        var byte: UInt8 = 0
        #expect(pread(file, &byte, 1, 0) == 1 && byte == 7)

        let everything = try domain.unsafeRegisterAddressSpace(access: [.localWrite])
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 8)
        defer { target.deallocate() }
        let sge = ScatterGatherElement(
            unsafeAddress: UInt64(UInt(bitPattern: target.baseAddress)), byteCount: 16,
            lkey: try everything.sge(0..<1).lkey)
        try domain.advise(.prefetchForWriting, [sge], flush: true)
        try pair.right.queuePair.postReceive(sge)
        try pair.left.queuePair.postSend(.send, try pair.left.region.sge(0..<16))
        #expect(try pair.right.next().byteCount == 16 && target[0] == 7)
        #expect(try pair.left.next().isSuccess)
    }
}

@Suite("What soft says of itself")
struct SoftDescriptionTests {
    @Test("The README of soft lists the verbs that `verbs info soft0` lists as not supported")
    func leftOut() throws {
        let readme = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "providers/soft/README.md")
        let text = try String(contentsOf: readme, encoding: .utf8)
        let start = try #require(text.range(of: "**Verbs that it leaves out**, as `verbs info soft0` lists them:"))
        let item = try #require(text[start.upperBound...].split(separator: "\n\n").first)
        let listed = item.split(separator: "`").filter { $0.hasPrefix("ibv_") }.map(String.init)
        let lacking = try Bench.open("soft0").unsupportedVerbs.map(\.rawValue).sorted()
        #expect(listed == lacking)
        #expect(!lacking.isEmpty)
    }

    @Test("The device attributes of soft name what the tests of this file use")
    func attributes() throws {
        let attributes = try Bench.open("soft0").attributes()
        #expect(attributes.capabilities.isSuperset(of: [.memoryWindows, .memoryWindows2B, .atomicWrite]))
        #expect(!attributes.capabilities.contains(.memoryWindows2A))
        #expect(attributes.capabilities.description.contains("ATOMIC_WRITE"))
    }
}
