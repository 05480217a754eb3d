import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Testing

/// A cxgb4 provider in which a test can alter every step. Its connected queue pair sends to itself.
final class Cxgb4Bench {
    let driver: Driver
    private(set) var context: KernelContext! = nil
    private(set) var domain: UInt32 = 0
    private(set) var completions: UInt32 = 0
    private(set) var pair: KernelQueuePair! = nil
    /// The driver's responses to CREATE_CQ and CREATE_QP.
    private(set) var completionsResponse = c4iw_create_cq_resp()
    private(set) var response = c4iw_create_qp_resp()
    /// Numbers of the doorbell pages.
    private(set) var completionsPage: UInt32 = 0
    private(set) var sendPage: UInt32 = 0
    private(set) var receivePage: UInt32 = 0
    /// Registered memory and its key.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
    private(set) var key: UInt32 = 0
    private(set) var region: KernelMemoryRegion! = nil
    let isT4: Bool

    /// - Parameter connects: Whether to create a connected queue pair of 8 send and 8 receive WRs.
    init(_ description: String = "cxgb4 t5", connects: Bool = true) throws {
        driver = try Driver(description)
        isT4 = description.contains("t4")
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: 8192)
        var status = c4iw_alloc_ucontext_resp()
        context = try DriverData.response(&status) { data throws(KernelError) in
            try driver.kernel.getContext(driver: data)
        }
        try #require(status.status_page_size == 4096)
        try allocateDomain()
        _ = try map(status.status_page_key, 4096)
        let access =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
            | IBV_ACCESS_MW_BIND.rawValue
        let registered = try driver.kernel.registerMemory(
            domain: domain, address: memory, length: 8192, virtualAddress: address(0), access: access)
        (key, region) = (registered.lkey, registered)
        if connects { try connect() }
    }

    deinit {
        memory.deallocate()
        if let context {
            sim_close(context.asyncDescriptor)
            close(context.asyncDescriptor)
        }
    }

    func address(_ offset: Int) -> UInt64 { UInt64(UInt(bitPattern: memory + offset)) }

    // MARK: - Objects

    func allocateDomain() throws {
        var number = c4iw_alloc_pd_resp()
        domain = try DriverData.response(&number) { data throws(KernelError) in
            try driver.kernel.allocateDomain(driver: data)
        }
        try #require(number.pdid != 0)
    }

    static var handle: UnsafeRawPointer { UnsafeRawPointer(bitPattern: 0x1000)! }

    func createCompletions(entries: UInt32 = 20, channel: Int32? = nil) throws {
        var request = CompletionQueueRequest(
            userHandle: Self.handle, entries: entries, asyncDescriptor: context.asyncDescriptor)
        request.channel = channel
        completions = try DriverData.exchange(c4iw_create_cq(flags: 1, reserved: 0), &completionsResponse) {
            data throws(KernelError) in
            try driver.kernel.createCompletionQueue(request, driver: data)
        }.handle
    }

    func createPair(
        type: ibv_qp_type = IBV_QPT_RC, sends: UInt32 = 7, receives: UInt32 = 7, inline: UInt32 = 0,
        shared: UInt32? = nil
    ) throws {
        var request = QueuePairRequest(
            userHandle: Self.handle, type: type, domain: domain, sendCompletions: completions,
            receiveCompletions: completions,
            limits: ibv_qp_cap(
                max_send_wr: sends, max_recv_wr: receives, max_send_sge: 1, max_recv_sge: 1, max_inline_data: inline),
            signalsAll: false, asyncDescriptor: context.asyncDescriptor)
        request.sharedReceiveQueue = shared
        pair = try DriverData.response(&response) { data throws(KernelError) in
            try driver.kernel.createQueuePair(request, driver: data)
        }
    }

    func connect() throws {
        try createCompletions()
        try createPair()
        completionsPage = try map(completionsResponse.gts_key, 4096)
        sendPage = try map(response.sq_db_gts_key, 4096)
        receivePage = try map(response.rq_db_gts_key, 4096)
        #expect(uverbs_sim_connect(driver.device, pair.number, 0, pair.number, 0) == 0)
    }

    /// mmap(2). Returns the number of the doorbell page.
    func map(_ key: UInt64, _ length: Int) throws -> UInt32 {
        var mapping = sim_mapping()
        let error = sim_mmap(driver.descriptor, length, PROT_READ | PROT_WRITE, MAP_SHARED, key, &mapping)
        if error != 0 { throw KernelError(rawValue: error) }
        return mapping.page
    }

    func modify(_ attributes: (inout ibv_qp_attr) -> Void, _ bits: [ibv_qp_attr_mask]) throws {
        var all = ibv_qp_attr()
        attributes(&all)
        try driver.kernel.modifyQueuePair(pair.handle, all, mask: bits.reduce(0) { $0 | $1.rawValue })
    }

    var state: ibv_qp_state {
        get throws { try driver.kernel.queryQueuePair(pair.handle, mask: 1).attributes.qp_state }
    }

    // MARK: - Queues and doorbells

    func queue(_ area: uverbs_sim_area, _ number: UInt32? = nil) -> UnsafeMutableRawBufferPointer {
        var start: UnsafeMutableRawPointer?
        let count = uverbs_sim_memory(driver.device, Int32(area.rawValue), number ?? pair.number, &start)
        return UnsafeMutableRawBufferPointer(start: start, count: Int(count))
    }

    /// Writes a WR to a slot.
    func put(_ bytes: [UInt8], slot: Int = 0, _ area: uverbs_sim_area = UVERBS_SIM_SENDS) {
        let queue = queue(area)
        for (index, byte) in bytes.enumerated() { queue[slot * 64 + index] = byte }
    }

    /// Reports a store to a doorbell page, as the signal handler does.
    func store(_ bytes: [UInt8], at offset: Int, page: UInt32) {
        sim_stored(driver.device, page, UInt32(offset), UInt32(bytes.count), bytes)
    }

    /// The offset of a queue's registers in its page; T4 has one set for the page.
    func segment(_ qid: UInt32) -> Int { isT4 ? 0 : Int(qid & response.qid_mask) * 128 }

    func doorbell(_ slots: UInt32, isReceive: Bool = false) {
        let qid = isReceive ? response.rqid : response.sqid
        let value = isT4 ? (qid & response.qid_mask) << 15 | slots : slots
        store(
            value.littleEndianBytes, at: segment(qid) + (isT4 ? 0 : 8), page: isReceive ? receivePage : sendPage)
    }

    /// Posts one WR of the send queue's first slots.
    func post(_ bytes: [UInt8]) {
        put(bytes)
        doorbell(UInt32((max(1, Int(bytes[7])) + 3) / 4))
    }

    func gts(_ credits: UInt32, timer: UInt32, solicited: UInt32 = 0) {
        let number = (completionsResponse.cqid & completionsResponse.qid_mask) << 16
        store(
            (number | timer << 13 | solicited << 12 | credits).littleEndianBytes, at: isT4 ? 4 : 20,
            page: completionsPage)
    }

    /// The status and opcode of a CQE, without its QPN.
    func cqe(_ index: Int) -> UInt32 {
        UInt32(bigEndian: queue(UVERBS_SIM_COMPLETIONS, completions).load(index * 64, as: UInt32.self)) & 0xFFF
    }

    /// Number of CQEs, in the first pass through the queue.
    var cqeCount: Int {
        let queue = queue(UVERBS_SIM_COMPLETIONS, completions)
        return (0..<63).prefix { queue[$0 * 64 + 56] & 0x80 != 0 }.count
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func load(_ offset: Int, as type: UInt32.Type) -> UInt32 {
        loadUnaligned(fromByteOffset: offset, as: type)
    }
}

extension UInt32 {
    var littleEndianBytes: [UInt8] { withUnsafeBytes(of: littleEndian) { [UInt8]($0) } }
    var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian) { [UInt8]($0) } }
}

extension UInt64 {
    var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian) { [UInt8]($0) } }
}

/// WRs, as bytes.
struct Cxgb4WR {
    /// The header of index 0.
    static func header(_ opcode: UInt8, flags: UInt8 = 1, len16: UInt8) -> [UInt8] {
        [opcode, flags, 0, 0, 0, 0, 0, len16]
    }

    static func list(_ sges: [(key: UInt32, length: UInt32, address: UInt64)]) -> [UInt8] {
        var bytes: [UInt8] = [0x83, 0, 0, UInt8(sges.count), 0, 0, 0, 0]
        for sge in sges { bytes += sge.key.bigEndianBytes + sge.length.bigEndianBytes + sge.address.bigEndianBytes }
        return bytes
    }

    static func inline(_ bytes: [UInt8]) -> [UInt8] {
        [0x81, 0, 0, 0] + UInt32(bytes.count).bigEndianBytes + bytes
            + [UInt8](repeating: 0, count: (8 - bytes.count % 16 + 16) % 16)
    }

    static func send(_ payload: [UInt8], length: UInt32, type: UInt32 = 3, flags: UInt8 = 1) -> [UInt8] {
        header(0x15, flags: flags, len16: UInt8((32 + payload.count + 15) / 16)) + type.bigEndianBytes + [0, 0, 0, 0]
            + length.bigEndianBytes + [UInt8](repeating: 0, count: 12) + payload
    }

    static func write(
        _ payload: [UInt8], length: UInt32, key: UInt32, address: UInt64, flags: UInt8 = 1
    ) -> [UInt8] {
        header(0x14, flags: flags, len16: UInt8((32 + payload.count + 15) / 16)) + [UInt8](repeating: 0, count: 8)
            + length.bigEndianBytes + key.bigEndianBytes + address.bigEndianBytes + payload
    }

    static func read(
        to key: UInt32, _ address: UInt64, from remoteKey: UInt32, _ remoteAddress: UInt64, length: UInt32
    ) -> [UInt8] {
        header(0x16, flags: 0, len16: 3) + [UInt8](repeating: 0, count: 8) + key.bigEndianBytes + address.bigEndianBytes
            + length.bigEndianBytes + remoteKey.bigEndianBytes + remoteAddress.bigEndianBytes + [0, 0, 0, 0]
    }

    static func receive(_ sges: [(key: UInt32, length: UInt32, address: UInt64)]) -> [UInt8] {
        header(0x17, flags: 0, len16: UInt8(1 + sges.count)) + list(sges)
    }

    static func bind(
        _ window: UInt32, to region: UInt32, _ address: UInt64, length: UInt64, access: UInt8
    ) -> [UInt8] {
        header(0x18, len16: 3) + [0x40, 0, 1, access] + region.bigEndianBytes + window.bigEndianBytes + [0, 0, 0, 0]
            + length.bigEndianBytes + address.bigEndianBytes + [UInt8](repeating: 0, count: 8)
    }

    static func invalidate(_ key: UInt32) -> [UInt8] { header(0x1A, len16: 1) + [0, 0, 0, 0] + key.bigEndianBytes }
}
