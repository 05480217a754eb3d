import CProviderABI
import Foundation
import LibibverbsProvider
import ProviderLoader
import Testing
import Verbs

/// A kernel device that several providers serve: the native one, as the shipped shared library in a driver file
/// directory, libibverbs, and for rxe the example in C.
struct NativeDevice: ~Copyable {
    /// The native provider.
    enum Module: String {
        case rxe, hfi1

        /// The name of the device.
        var device: String { self == .rxe ? "rxe0" : "hfi1_0" }
    }

    /// The provider that serves the device.
    enum Provider: String, CaseIterable, Sendable {
        /// crxe: the provider in C of Examples/crxe, for rxe only.
        case native, libibverbs, crxe

        /// Those of every device.
        static let allCases: [Self] = [.native, .libibverbs]
        /// Those of rxe.
        static let ofRxe: [Self] = allCases + [.crxe]

        var other: Self { self == .libibverbs ? .native : .libibverbs }

        /// Maximum number of completions in one batch of extended polling. rdma-core's rxe before version 55 consumes
        /// one CQE too many when the queue becomes empty within the batch (rdma-core commit b78b414e0).
        var pollLimit: Int { self == .libibverbs ? 1 : 16 }
    }

    let module: Module

    /// The name of the provider in the output of `verbs`.
    func name(_ provider: Provider) -> String { provider == .native ? module.rawValue : provider.rawValue }

    /// The environment in which a program uses that provider.
    func environment(_ provider: Provider) -> [String: String] {
        switch provider {
        case .native: ["RDMA_DRIVER_PATH": directory]
        case .libibverbs: ["RDMA_PROVIDER": "libibverbs"]
        case .crxe: ["RDMA_DRIVER_PATH": directory + "/crxe"]
        }
    }

    /// The directory of driver files: RDMA_DRIVER_PATH.
    let directory: String

    /// Copies the shared library and its driver file into a new directory.
    init(_ module: Module) throws {
        self.module = module
        let providers = try #require(ProcessInfo.processInfo.environment["RDMA_TEST_PROVIDERS"])
        let files = FileManager.default
        let directory = NSTemporaryDirectory() + "\(module)-\(UUID().uuidString)"
        try files.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try files.copyItem(atPath: "\(providers)/\(module).so", toPath: "\(directory)/\(module).so")
        try files.copyItem(atPath: "providers/\(module)/\(module).driver", toPath: "\(directory)/\(module).driver")
        if module == .rxe {
            let example = try #require(ProcessInfo.processInfo.environment["RDMA_TEST_CRXE"])
            try files.createDirectory(atPath: "\(directory)/crxe", withIntermediateDirectories: true)
            for file in ["crxe.so", "crxe.driver"] {
                try files.copyItem(atPath: "\(example)/\(file)", toPath: "\(directory)/crxe/\(file)")
            }
        }
        self.directory = directory
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// A loader with which `provider` serves the device. With `alone`, no provider is built in.
    func loader(_ provider: Provider, alone: Bool = false) -> ProviderLoader {
        let libibverbs = BuiltInProvider(
            name: "libibverbs", entry: { LibibverbsProvider.providerEntry(core: $0, why: $1) })
        var configuration = LoaderConfiguration.standard(builtIn: alone ? [] : [libibverbs])
        configuration.mainDirectory = directory + "/none"
        configuration.overrideDirectory = directory + "/none"
        configuration.environment.merge(environment(provider)) { $1 }
        return ProviderLoader(configuration: configuration)
    }

    func open(_ provider: Provider = .native) throws -> Context {
        let context = try Device.named(module.device, from: loader(provider)).open()
        #expect(context.provider.name == name(provider))
        return context
    }
}

extension Context {
    /// Waits for an event of port 1, which must be the next event apart from GID changes.
    func awaitPortEvent(_ type: EventType) throws {
        var event = try nextEvent(timeout: .seconds(300))
        while let other = event, other.type == .gidChange { event = try nextEvent(timeout: .seconds(300)) }
        #expect(event == AsynchronousEvent(type: type, subject: .port(1)))
    }
}

/// Two connected queue pairs of two contexts, each with its own completion queue and memory region.
struct Link: ~Copyable {
    struct End: ~Copyable {
        let region: MemoryRegion
        var completions: CompletionQueue
        var queuePair: QueuePair

        init(_ context: Context, _ kind: QueuePairType) throws {
            let domain = try context.makeProtectionDomain()
            let region = try domain.makeMemoryRegion(
                byteCount: 16384,
                access: [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .memoryWindowBind])
            let completions = try context.makeCompletionQueue(
                capacity: 64, channel: try context.makeCompletionChannel())
            queuePair = try domain.makeQueuePair(
                kind, completions: completions,
                capabilities: .init(maxSendSGE: 3, maxReceiveSGE: 2, maxInlineData: 64))
            self.completions = completions
            self.region = region
        }

        mutating func next() throws -> WorkCompletion { try completions.poll(timeout: .seconds(300)) }
    }

    var left: End
    var right: End

    init(_ context: Context, _ other: Context, _ kind: QueuePairType = .reliableConnection) throws {
        let left = try End(context, kind)
        let right = try End(other, kind)
        if kind == .unreliableDatagram {
            try left.queuePair.activate()
            try right.queuePair.activate()
        } else {
            let (here, there) = (try left.queuePair.endpoint(), try right.queuePair.endpoint())
            try left.queuePair.connect(to: there)
            try right.queuePair.connect(to: here)
        }
        self.left = left
        self.right = right
    }

    /// A message of several packets from left to right.
    mutating func exchange(byteCount: Int = 5001, immediate: UInt32 = 0x0102_0304) throws {
        let bytes = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        try left.region.copyBytes(from: bytes.span.bytes)
        try right.queuePair.postReceive(try right.region.sge(8192..<16384), id: 5)
        try left.queuePair.postSend(.send(immediate: immediate), try left.region.sge(0..<byteCount), id: 3)
        let (sent, received) = (try left.next(), try right.next())
        #expect(sent.id == 3 && sent.isSuccess && sent.queuePairNumber == left.queuePair.number)
        #expect(received.id == 5 && received.isSuccess && received.byteCount == byteCount)
        #expect(received.immediate == immediate)
        #expect(try right.region.copyBytes(8192..<8192 + byteCount) == bytes)
    }

    /// WRITE, and WRITE with immediate data.
    mutating func write() throws {
        try left.region.copyBytes(from: Array("written".utf8).span.bytes)
        try right.queuePair.postReceive(id: 8)
        try left.queuePair.postSend(.write(to: right.region.remote.subrange(100...)), try left.region.sge(0..<7))
        try left.next().check()
        try left.queuePair.postSend(
            .write(to: right.region.remote.subrange(200...), immediate: 6), try left.region.sge(0..<7))
        try left.next().check()
        let received = try right.next()
        #expect(received.opcode == .receiveWriteWithImmediate && received.immediate == 6 && received.id == 8)
        #expect(try right.region.copyBytes(100..<107) == Array("written".utf8))
        #expect(try right.region.copyBytes(200..<207) == Array("written".utf8))
    }

    /// READ, both atomics, inline data where the device supports it, several SGEs.
    mutating func readAndCount() throws {
        let (here, there) = (left.region, right.region)
        try there.copyBytes(from: Array("to be read".utf8).span.bytes)
        try left.queuePair.postSend(.read(from: there.remote), try here.sge(512..<522))
        #expect(try left.next().opcode == .read)
        #expect(try here.copyBytes(512..<522) == Array("to be read".utf8))

        try there.storeReleasing(40, at: 128)
        let word = try there.remote.subrange(128...)
        try left.queuePair.postSend(.fetchAndAdd(at: word, adding: 2), try here.sge(0..<8))
        #expect(try left.next().opcode == .fetchAndAdd)
        try left.queuePair.postSend(.compareAndSwap(at: word, expected: 42, desired: 7), try here.sge(8..<16))
        #expect(try left.next().opcode == .compareAndSwap)
        #expect(try here.loadAcquiring(at: 0) == 40 && here.loadAcquiring(at: 8) == 42)
        #expect(try there.loadAcquiring(at: 128) == 7)

        try right.queuePair.postReceive(sgList: [try there.sge(0..<2), try there.sge(16..<64)].span)
        try post("inline")
        try left.next().check()
        #expect(try right.next().byteCount == 6)
        #expect(try there.copyBytes(0..<2) + there.copyBytes(16..<20) == Array("inline".utf8))
    }

    /// Datagrams, each received behind the 40 bytes of the GRH.
    mutating func datagrams() throws {
        let there = right.region
        let destination = try left.region.protectionDomain.makeDestination(try right.queuePair.endpoint())
        try right.queuePair.postReceive(try there.sge(0..<256), id: 2)
        try right.queuePair.postReceive(try there.sge(256..<512), id: 3)
        try left.region.copyBytes(from: Array("xyz".utf8).span.bytes)
        try left.queuePair.postSend(.send(immediate: 9), try left.region.sge(0..<3), to: destination)
        try post("uvw", to: destination)
        for _ in 0..<2 { try left.next().check() }
        let (first, second) = (try right.next(), try right.next())
        #expect(first.byteCount == 43 && first.immediate == 9 && second.byteCount == 43)
        #expect(first.sourceQueuePairNumber == left.queuePair.number)
        #expect(try there.copyBytes(40..<43) + there.copyBytes(296..<299) == Array("xyzuvw".utf8))
    }

    /// Sends a few bytes, inline where the device supports it.
    private mutating func post(_ text: String, to destination: DatagramDestination? = nil) throws {
        let bytes = Array(text.utf8)
        let end = 8192
        if left.queuePair.capabilities.maxInlineData == 0 {
            try left.region.copyBytes(from: bytes.span.bytes, at: end - bytes.count)
        }
        let sge = try left.region.sge(end - bytes.count..<end)
        switch (destination, left.queuePair.capabilities.maxInlineData > 0) {
        case (nil, true): try left.queuePair.postSend(.send, inline: bytes.span.bytes)
        case (nil, false): try left.queuePair.postSend(.send, sge)
        case (let destination?, true): try left.queuePair.postSend(.send, inline: bytes.span.bytes, to: destination)
        case (let destination?, false): try left.queuePair.postSend(.send, sge, to: destination)
        }
    }
}
