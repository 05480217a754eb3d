import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// One seeded stream of calls to the vendor's library and to ours, each over a device of its own of the same kind.
/// After each call, the memory that the device reads and the stores to UAR pages are compared.
final class Stream {
    let kind: String
    let isTrapped: Bool
    var random: Random
    let sides: Twin<Side>
    var pairs: [PairModel] = []
    var shared: [SharedModel] = []
    var queues: [QueueModel] = []
    let requests = Requests()
    let memory = Memory()
    private(set) var step = 0
    /// Number of accepted work requests, and of polled completions.
    var posted = 0
    var completed = 0
    var operation = ""
    private let stores = Twin(
        UnsafeMutablePointer<uverbs_sim_store>.allocate(capacity: Stream.storeCount),
        .allocate(capacity: Stream.storeCount))
    private static let storeCount = 1 << 12

    init(kind: String, seed: UInt64, libraries: Twin<Library>) throws(Difference) {
        self.kind = kind
        isTrapped = kind.contains("trap")
        random = Random(seed: seed, name: kind)
        var words = kind
        if let range = words.firstRange(of: " 128") {
            words.removeSubrange(range)
            setenv("MLX5_CQE_SIZE", "128", 1)
        } else {
            setenv("MLX5_CQE_SIZE", "64", 1)
        }
        let memory = memory
        sides = try both { (side) throws(Difference) -> Side in
            Side(libraries[side], device: createDevice(words), memory: memory.all)
        }
        for index in Plan.pairs.indices { pairs.append(try PairModel(index, sides)) }
        for index in Plan.shared.indices { shared.append(try SharedModel(index, sides)) }
        for index in Plan.completions.indices { queues.append(try QueueModel(index, sides)) }
        for _ in 0..<Plan.addresses { try makeAddress(nil) }
        _ = try readStores()
    }

    /// Makes random calls until `count` work requests are posted.
    func run(count: Int) throws(Difference) {
        if count >= 5000 && !isTrapped { try warmUp() }
        let end = posted + count
        while posted < end {
            step += 1
            try call()
            try compareStores()
        }
        try drain()
    }

    func close() {
        sides.vendor.close()
        sides.ours.close()
    }

    private func call() throws(Difference) {
        switch random.below(1000) {
        case ..<200: try postSends(random.below(pairs.count))
        case ..<290: try build(random.pick([4, 5, 6]))
        case ..<350: try postReceives(random.below(pairs.count))
        case ..<400: try postShared(random.below(shared.count))
        case ..<640: try completeSends(random.below(pairs.count))
        case ..<740: try completeReceive(random.below(pairs.count))
        case ..<940: try poll(random.below(queues.count))
        case ..<965: try notify(random.below(queues.count))
        case ..<980: try bindWindow(random.pick([0, 1, 4, 2]))
        case ..<990: try makeAddress(random.below(Plan.addresses))
        case ..<995: try reset(random.below(pairs.count))
        default: try resize(random.below(queues.count))
        }
    }

    // MARK: - Doorbells

    private func readStores() throws(Difference) -> Twin<Int> {
        try both { (side) throws(Difference) -> Int in
            Int(sim?.pointee.stores(sides[side].device, stores[side], Int32(Stream.storeCount)) ?? 0)
        }
    }

    /// Compares the stores of the last call to UAR pages.
    func compareStores() throws(Difference) {
        guard isTrapped else { return }
        let count = try readStores()
        try expectEqual(count, "\(operation): number of stores to UAR pages")
        for index in 0..<count.ours {
            let store = Twin(stores.vendor[index], stores.ours[index])
            func text(_ store: uverbs_sim_store) -> String {
                "\(store.size) bytes at \(store.offset) of page \(store.page): "
                    + withUnsafeBytes(of: store.value) { $0.map { String($0, radix: 16) }.joined(separator: " ") }
            }
            if memcmp(stores.vendor + index, stores.ours + index, MemoryLayout<uverbs_sim_store>.size) != 0 {
                throw Difference(
                    "\(operation): store \(index) to a UAR page: the vendor's library makes "
                        + "\(text(store.vendor)); ours \(text(store.ours))")
            }
        }
    }

    /// Drops the stores of a call in which libmlx5 rings the doorbell with the first bytes of a refused request.
    func dropStores() throws(Difference) { _ = try readStores() }
}

/// The memory of work requests, the same for both libraries.
final class Memory {
    static let sourceCount = 1 << 16
    static let landingCount = 1 << 12
    let all = UnsafeMutableRawBufferPointer.allocate(byteCount: sourceCount + landingCount, alignment: 4096)
    /// A copy of `landing` after the vendor's library has polled.
    let landed = UnsafeMutableRawBufferPointer.allocate(byteCount: landingCount, alignment: 4096)

    let completions = UnsafeMutablePointer<ibv_wc>.allocate(capacity: 16)

    init() {
        var random = Random(seed: 1, name: "memory")
        for index in 0..<all.count { all[index] = random.any() }
    }

    deinit {
        all.deallocate()
        landed.deallocate()
        completions.deallocate()
    }

    /// The data of sends.
    var source: UnsafeMutableRawPointer { all.baseAddress! }
    /// Memory to which the libraries copy data from CQEs.
    var landing: UnsafeMutableRawPointer { all.baseAddress! + Memory.sourceCount }
}
