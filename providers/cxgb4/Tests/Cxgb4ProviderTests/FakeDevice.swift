import CIBVerbs
import CKernelABI
import CProviderABI
import Glibc
import KernelTestSupport
import KernelVerbs
import ProviderKit
import TestSupport
import Testing

@testable import Cxgb4Provider

/// A fake kernel with the driver iw_cxgb4, and a fake adapter: the test writes CQEs, and reads queues and doorbells. Each
/// mapping is at an offset of its own of the node, which the test maps a second time.
final class FakeDevice {
    let kernel = FakeKernel(mapping: FakeDevice.byteCount)
    private static let byteCount = 32 << 20
    let context: UnsafeMutablePointer<ibv_context>
    private let device = TestDevice("cxgb4_0")
    private let memory: UnsafeMutableRawPointer
    private var nextKey: UInt64 = 4096

    /// The sizes of the next queues; 0: those that the driver would choose.
    var sendEntries: UInt32 = 0
    var receiveEntries: UInt32 = 0
    var completionEntries: UInt32 = 63
    var queuePairFlags = UInt32(C4IW_QPF_WRITE_W_IMM)
    var nextQueuePair: UInt32 = 0x410
    var hasLargeCQEs = true
    /// The result of MODIFY_QP with a PSN, by which doorbells are rung.
    var doorbellResult: Int32 = 0
    /// The errno value that a creation returns, after the objects before.
    var memoryIsMissing = false

    /// The numbers of slots in MODIFY_QP: of sends, and of receives.
    private(set) var rung: [(sends: UInt32, receives: UInt32)] = []
    /// The attribute masks of MODIFY_SRQ.
    private(set) var sharedModifications: [UInt32] = []
    private(set) var destroyed: [UInt32] = []
    /// The responses to the last creations.
    private(set) var pair = c4iw_create_qp_resp()
    private(set) var queue = c4iw_create_cq_resp()
    private(set) var shared = c4iw_create_srq_resp()
    private(set) var hasSharedQueue = false
    var queriedState = IBV_QPS_RTS

    init(chip: UInt32 = 5, statusPageSize: UInt32 = 4096, pairsWriteAndSend: Bool = false) throws {
        memory = mmap(nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, kernel.descriptor, 0)!
        memory.storeBytes(of: pairsWriteAndSend ? 1 : 0, toByteOffset: 1, as: UInt8.self)
        let open = kernel.open(driver: RDMA_DRIVER_CXGB4)
        kernel.onCall = { call in
            if call.method == UVERBS_METHOD_GET_CONTEXT.rawValue, call.object == UVERBS_OBJECT_DEVICE.rawValue {
                call.attribute(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS.rawValue)!.respond(4 as UInt32)
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(
                    c4iw_alloc_ucontext_resp(status_page_key: 0, status_page_size: statusPageSize, reserved: 0))
            } else if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                call.attributes[0].set(0x5000_0001)
            } else if call.command == UInt64(WriteCommand.queryDeviceExtended.rawValue) {
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(Self.attributes(chip))
            }
            return 0
        }
        let opened = try Cxgb4ContextPointer.make(open, why: nil)
        let native = UnsafeMutableRawPointer(opened).assumingMemoryBound(to: NativeContext.self)
        context = native.initialize(device.pointer.pointee.device)
        fillDataPath(&context.pointee.ops)
        kernel.onCall = { [unowned self] in self.execute($0, chip) }
    }

    deinit { munmap(memory, Self.byteCount) }

    private static func attributes(_ chip: UInt32) -> ib_uverbs_ex_query_device_resp {
        var attributes = ib_uverbs_ex_query_device_resp()
        attributes.base.vendor_part_id = chip << 12 | 0x401
        attributes.base.max_srq = chip == 6 ? 16 : 0
        attributes.base.fw_ver = 0x011B_0203
        return attributes
    }

    /// A new key, for a mapping of `byteCount` bytes.
    private func key(_ byteCount: UInt64) -> UInt64 {
        defer { nextKey += (byteCount + 4095) & ~4095 }
        return memoryIsMissing ? 3 : nextKey
    }

    /// The memory at a key.
    func at(_ key: UInt64) -> UnsafeMutableRawPointer { memory + Int(key) }

    /// Whether the kernel has stopped the doorbells (`db_off`).
    var areDoorbellsOff: Bool {
        get { memory.load(as: UInt8.self) != 0 }
        set { memory.storeBytes(of: newValue ? 1 : 0, as: UInt8.self) }
    }

    private func execute(_ call: FakeKernel.Call, _ chip: UInt32) -> Int32 {
        switch (call.object, call.method) {
        case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_CREATE.rawValue): createQueue(call)
        case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_CREATE.rawValue): createPair(call)
        case (UVERBS_OBJECT_SRQ.rawValue, UVERBS_METHOD_SRQ_CREATE.rawValue): createShared(call)
        default:
            switch call.command {
            case UInt64(WriteCommand.queryDeviceExtended.rawValue):
                call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond(Self.attributes(chip))
            case UInt64(IB_USER_VERBS_CMD_MODIFY_QP.rawValue): return modifyPair(call)
            case UInt64(IB_USER_VERBS_CMD_QUERY_QP.rawValue):
                let state = MemoryLayout<ib_uverbs_query_qp_resp>.offset(of: \.qp_state)!
                let response = UnsafeMutableRawPointer(
                    bitPattern: UInt(call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.data))!
                response.storeBytes(of: UInt8(queriedState.rawValue), toByteOffset: state, as: UInt8.self)
            case UInt64(IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue):
                sharedModifications.append(call.attribute(UVERBS_ATTR_CORE_IN.rawValue)!.bytes.load(4, as: UInt32.self))
            case nil:
                if call.attributes.first?.length == 0, call.attributes.count <= 2 {
                    destroyed.append(UInt32(call.attributes[0].data))
                }
            default: break
            }
        }
        return 0
    }

    private func modifyPair(_ call: FakeKernel.Call) -> Int32 {
        let request = call.attribute(UVERBS_ATTR_CORE_IN.rawValue)!.bytes.load(0, as: ib_uverbs_modify_qp.self)
        if request.attr_mask & (IBV_QP_SQ_PSN.rawValue | IBV_QP_RQ_PSN.rawValue) != 0 {
            rung.append((request.sq_psn, request.rq_psn))
            return doorbellResult
        }
        return 0
    }

    private func createQueue(_ call: FakeKernel.Call) {
        queue = c4iw_create_cq_resp()
        queue.size = completionEntries
        queue.memsize = UInt64(completionEntries + 1) * (hasLargeCQEs ? 64 : 32)
        queue.key = key(queue.memsize)
        queue.gts_key = key(4096)
        queue.cqid = 0x402
        queue.qid_mask = 0xFF
        queue.flags = hasLargeCQEs ? UInt32(C4IW_64B_CQE) : 0
        call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(21)
        call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(completionEntries / 2)
        call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(queue)
    }

    private func createPair(_ call: FakeKernel.Call) {
        let limits = call.attribute(UVERBS_ATTR_CREATE_QP_CAP.rawValue)!.bytes.load(0, as: ibv_qp_cap.self)
        hasSharedQueue = call.attribute(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE.rawValue) != nil
        pair = c4iw_create_qp_resp()
        pair.sq_size = sendEntries != 0 ? sendEntries : max(8, limits.max_send_wr + 1)
        pair.sq_memsize = UInt64(pair.sq_size + 1) * 320 + 128
        pair.sq_key = key(pair.sq_memsize)
        pair.sq_db_gts_key = key(4096)
        pair.sqid = nextQueuePair
        if !hasSharedQueue {
            pair.rq_size = receiveEntries != 0 ? receiveEntries : max(8, limits.max_recv_wr + 1)
            pair.rq_memsize = UInt64(pair.rq_size + 1) * 128
            pair.rq_key = key(pair.rq_memsize)
            pair.rq_db_gts_key = key(4096)
            pair.rqid = nextQueuePair + 1
        }
        pair.qid_mask = 0xF
        pair.flags = queuePairFlags
        call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(31)
        call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(pair.sqid)
        call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(limits)
        call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(pair)
    }

    private func createShared(_ call: FakeKernel.Call) {
        shared = c4iw_create_srq_resp()
        shared.srq_size = 16
        shared.srq_memsize = 17 * 128
        shared.srq_key = key(shared.srq_memsize)
        shared.srq_db_gts_key = key(4096)
        shared.srqid = 0x418
        shared.rqt_abs_idx = 0x1000
        shared.qid_mask = 0xF
        call.attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE.rawValue)!.set(41)
        call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(shared)
    }

    func close() { #expect(closeContext(context: context) == 0) }
}

/// The memory of a completion queue, as the adapter writes it.
final class FakeCompletions {
    let queue: UnsafeMutablePointer<ibv_cq>
    private let device: FakeDevice
    private let response: c4iw_create_cq_resp
    private let size: Int
    /// The number of CQEs written so far.
    private(set) var written: UInt32 = 0

    init(_ device: FakeDevice, isExtended: Bool = false, singleThreaded: Bool = false) throws {
        self.device = device
        if isExtended {
            var attr = ibv_cq_init_attr_ex()
            attr.cqe = 31
            attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS)
            queue = UnsafeMutableRawPointer(try #require(controlTable.pointee.create_cq_ex(device.context, &attr)))
                .assumingMemoryBound(to: ibv_cq.self)
        } else {
            queue = try #require(controlTable.pointee.create_cq(device.context, 31, nil, nil, 0))
        }
        response = device.queue
        size = device.hasLargeCQEs ? 64 : 32
    }

    var extended: UnsafeMutablePointer<ibv_cq_ex> {
        UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq_ex.self)
    }

    /// A CQE.
    struct Entry {
        var pair: UInt32 = 0x410
        var status: UInt32 = 0
        var isSend = false
        var operation: UInt32 = 3
        var length: UInt32 = 0
        /// Bytes 8 to 23.
        var key: UInt32 = 0
        var sequence: UInt32 = 0
        var index: UInt16 = 0
        var immediate: UInt32 = 0
        var shared: UInt32 = 0
    }

    /// Writes the next CQE.
    func write(_ entry: Entry) {
        let place = device.at(response.key) + Int(written % response.size) * size
        func put(_ value: UInt32, _ offset: Int) {
            place.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
        }
        put(entry.pair << 12 | entry.status << 5 | (entry.isSend ? 16 : 0) | entry.operation, 0)
        put(entry.length, 4)
        put(entry.key, 8)
        put(entry.sequence, 12)
        if entry.isSend { place.storeBytes(of: entry.index, toByteOffset: 14, as: UInt16.self) }
        put(entry.immediate, 16)
        put(entry.shared, 20)
        let generation: UInt64 = written / response.size % 2 == 0 ? 1 << 63 : 0
        place.storeBytes(of: (generation | UInt64(written + 1)).bigEndian, toByteOffset: size - 8, as: UInt64.self)
        written += 1
    }

    func send(_ index: UInt16, pair: UInt32 = 0x410, status: UInt32 = 0, operation: UInt32 = 3) {
        write(Entry(pair: pair, status: status, isSend: true, operation: operation, index: index))
    }

    func readResponse(pair: UInt32 = 0x410, status: UInt32 = 0, key: UInt32 = 0x100) {
        write(Entry(pair: pair, status: status, operation: 2, key: key))
    }

    func receive(
        _ sequence: UInt32, pair: UInt32 = 0x410, status: UInt32 = 0, operation: UInt32 = 3, length: UInt32 = 8,
        shared: UInt32 = 0
    ) {
        write(
            Entry(
                pair: pair, status: status, operation: operation, length: length, key: 0x77, sequence: sequence,
                immediate: 0x0102_0304, shared: shared))
    }

    /// Requests a flush, as the kernel does after it has marked a queue pair.
    func requestFlush() {
        (device.at(response.key) + Int(response.size) * size).storeBytes(of: 1, toByteOffset: 12, as: UInt8.self)
    }

    var isFlushRequested: Bool {
        (device.at(response.key) + Int(response.size) * size).load(fromByteOffset: 12, as: UInt8.self) != 0
    }

    /// The GTS register of T5 and T6; of T4.
    var register: UInt32 { device.at(response.gts_key).load(fromByteOffset: 20, as: UInt32.self) }
    var register4: UInt32 { device.at(response.gts_key).load(fromByteOffset: 4, as: UInt32.self) }

    func poll(_ count: Int32 = 64) -> [ibv_wc] {
        var found = [ibv_wc](repeating: ibv_wc(), count: Int(count))
        let taken = ibv_poll_cq(queue, count, &found)
        #expect(taken >= 0)
        return Array(found.prefix(Int(max(0, taken))))
    }

    func destroy() { #expect(controlTable.pointee.destroy_cq(queue) == 0) }
}

/// A queue pair, and its memory as the adapter sees it.
final class FakePair {
    let pair: UnsafeMutablePointer<ibv_qp>
    let limits: ibv_qp_cap
    let number: UInt32
    private let device: FakeDevice
    private let response: c4iw_create_qp_resp
    private let domain: UnsafeMutablePointer<ibv_pd>

    init(
        _ device: FakeDevice, _ sends: FakeCompletions, _ receives: FakeCompletions? = nil,
        shared: UnsafeMutablePointer<ibv_srq>? = nil, requests: UInt32 = 15, operations: UInt64? = nil,
        signalsAll: Bool = false
    ) throws {
        self.device = device
        domain = try #require(controlTable.pointee.alloc_pd(device.context))
        var attr = ibv_qp_init_attr_ex()
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = domain
        attr.send_cq = sends.queue
        attr.recv_cq = (receives ?? sends).queue
        attr.srq = shared
        attr.qp_type = IBV_QPT_RC
        attr.sq_sig_all = signalsAll ? 1 : 0
        attr.cap = ibv_qp_cap(
            max_send_wr: requests, max_recv_wr: requests, max_send_sge: 4, max_recv_sge: 4, max_inline_data: 64)
        if let operations {
            attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attr.send_ops_flags = operations
        }
        pair = try #require(controlTable.pointee.create_qp_ex(device.context, &attr))
        limits = attr.cap
        response = device.pair
        number = response.sqid
    }

    var extended: UnsafeMutablePointer<ibv_qp_ex> {
        UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self)
    }

    /// The bytes of a queue, which the adapter reads, from a slot on; they wrap.
    func sends(_ slot: Int, _ count: Int) -> [UInt8] {
        bytes(response.sq_key, Int(response.sq_size) * 320, slot, count)
    }
    func receives(_ slot: Int, _ count: Int) -> [UInt8] {
        bytes(response.rq_key, Int(response.rq_size) * 128, slot, count)
    }

    private func bytes(_ key: UInt64, _ whole: Int, _ slot: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { device.at(key).load(fromByteOffset: (64 * slot + $0) % whole, as: UInt8.self) }
    }

    /// The doorbell page of the send queue.
    var doorbell: UnsafeMutableRawPointer { device.at(response.sq_db_gts_key) }
    var receiveDoorbell: UnsafeMutableRawPointer { device.at(response.rq_db_gts_key) }

    /// The doorbell of a T5 or T6, after which it is cleared.
    func takeDoorbell(_ offset: Int) -> UInt32 {
        defer { doorbell.storeBytes(of: 0, toByteOffset: offset, as: UInt32.self) }
        return doorbell.load(fromByteOffset: offset, as: UInt32.self)
    }

    /// The status page that has the error flag.
    private var status: UnsafeMutableRawPointer {
        device.hasSharedQueue || response.rq_size == 0
            ? device.at(response.sq_key) + Int(response.sq_size) * 320
            : device.at(response.rq_key) + Int(response.rq_size) * 128
    }

    var sendStatus: UnsafeMutableRawPointer { device.at(response.sq_key) + Int(response.sq_size) * 320 }

    /// Marks the queue pair as being in error, as the kernel does.
    func fail() { status.storeBytes(of: 1, toByteOffset: 12, as: UInt8.self) }

    var isInError: Bool { status.load(fromByteOffset: 12, as: UInt8.self) != 0 }

    /// Posts a chain of work requests. Returns the errno value, and the index of the work request that failed.
    func post(_ requests: [ibv_send_wr]) -> (error: Int32, bad: Int?) {
        postChain(requests) { ibv_post_send(pair, $0, &$1) }
    }

    func postReceives(_ requests: [ibv_recv_wr]) -> (error: Int32, bad: Int?) {
        postChain(requests) { ibv_post_recv(pair, $0, &$1) }
    }

    /// Posts signaled sends with these `wr_id`s.
    func send(_ ids: [UInt64], _ opcode: ibv_wr_opcode = IBV_WR_SEND, flags: UInt32 = IBV_SEND_SIGNALED.rawValue) {
        #expect(post(ids.map { oneSGE.send(opcode, id: $0, flags: flags) }).error == 0)
    }

    func receive(_ ids: [UInt64]) { #expect(postReceives(ids.map { oneSGE.receive(id: $0) }).error == 0) }

    func destroy() {
        #expect(controlTable.pointee.destroy_qp(pair) == 0)
        #expect(controlTable.pointee.dealloc_pd(domain) == 0)
    }
}

/// The target of READs and WRITEs.
private let remote: (address: UInt64, key: UInt32) = (0x1122_3344_5566_7788, 0xAABB_CCDD)

let oneSGE = SGEList([ibv_sge(addr: 0x1000, length: 8, lkey: 0x101)], remote: remote)

/// `count` SGEs of 1, 2, 3, … bytes.
func sges(_ count: Int) -> SGEList {
    SGEList(
        (1..<(count + 1)).map { ibv_sge(addr: 0x1000 * UInt64($0), length: UInt32($0), lkey: UInt32(0x100 + $0)) },
        remote: remote)
}

/// Bytes 1, 2, 3, … as one SGE.
func payload(_ count: Int) -> SGEList { TestSupport.payload(count, remote: remote) }

/// The bytes of a number, most significant first.
func big(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

/// The bytes of the SGE list of `sges(count)`.
func listBytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = [0x83, 0, 0, UInt8(count), 0, 0, 0, 0]
    for number in 1..<(count + 1) {
        bytes += big(UInt32(0x100 + number))
        bytes += big(UInt32(number))
        bytes += big(0x1000 * UInt64(number))
    }
    return bytes + big(UInt64(0))
}
