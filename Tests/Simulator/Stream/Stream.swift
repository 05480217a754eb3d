import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// One seeded stream of calls, made to the vendor's library and to ours, each over a device of its own of the same kind.
/// After each call everything that a device would see is compared.
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
    /// How many work requests were taken, and how many completions were read.
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
        _ = try takeStores()
    }

    /// Calls until so many work requests were posted.
    func run(count: Int, warmsUp: Bool) throws(Difference) {
        if warmsUp { try warmUp() }
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

    private func takeStores() throws(Difference) -> Twin<Int> {
        try both { (side) throws(Difference) -> Int in
            Int(sim?.pointee.stores(sides[side].device, stores[side], Int32(Stream.storeCount)) ?? 0)
        }
    }

    /// Which stores the call has made to doorbell pages.
    func compareStores() throws(Difference) {
        guard isTrapped else { return }
        let count = try takeStores()
        try expectEqual(count, "\(operation): number of stores to doorbell pages")
        for index in 0..<count.ours {
            let store = Twin(stores.vendor[index], stores.ours[index])
            func tell(_ store: uverbs_sim_store) -> String {
                "\(store.size) bytes at \(store.offset) of page \(store.page): "
                    + withUnsafeBytes(of: store.value) { $0.map { String($0, radix: 16) }.joined(separator: " ") }
            }
            if memcmp(stores.vendor + index, stores.ours + index, MemoryLayout<uverbs_sim_store>.size) != 0 {
                throw Difference(
                    "\(operation): store \(index) to a doorbell page: the vendor's library makes \(tell(store.vendor)); "
                        + "ours \(tell(store.ours))")
            }
        }
    }

    /// Where the vendor's library rings with what it has not written: known, and not compared.
    func forgetStores() throws(Difference) { _ = try takeStores() }
}

/// Memory that requests name: the same for both libraries.
final class Memory {
    static let sourceCount = 1 << 16
    static let landingCount = 1 << 12
    let all = UnsafeMutableRawBufferPointer.allocate(byteCount: sourceCount + landingCount, alignment: 4096)
    /// What the landing was after the vendor's library.
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

    /// What is sent inline.
    var source: UnsafeMutableRawPointer { all.baseAddress! }
    /// Where data arrives that stands in completions.
    var landing: UnsafeMutableRawPointer { all.baseAddress! + Memory.sourceCount }
}
