import CIBVerbs
import CProviderABI
import Glibc

/// The attributes of an endpoint that its peer needs to connect to it.
public struct Address: Codable, Equatable {
    public var gid: [UInt8]
    public var queuePair: UInt32
    public var psn: UInt32
    public var queueKey: UInt32
    public var memory: UInt64
    public var key: UInt32

    public init(
        gid: [UInt8], queuePair: UInt32, psn: UInt32, queueKey: UInt32 = 0, memory: UInt64 = 0, key: UInt32 = 0
    ) {
        self.gid = gid
        self.queuePair = queuePair
        self.psn = psn
        self.queueKey = queueKey
        self.memory = memory
        self.key = key
    }
}

/// No completion arrived in time.
public struct Timeout: Error {
    public init() {}
}

/// A queue pair with its protection domain, one completion queue and 1 MiB of registered memory.
public final class Endpoint {
    public struct Options {
        public var type = IBV_QPT_RC
        public var gidIndex: UInt8 = 0
        public var sends: UInt32 = 64
        public var receives: UInt32 = 64
        public var maxSGE: UInt32 = 4
        public var inlineData: UInt32 = 256
        public var completions: Int32 = 256
        public var signalsAll = false
        public var channel: UnsafeMutablePointer<ibv_comp_channel>?
        public var shared: UnsafeMutablePointer<ibv_srq>?
        public var domain: UnsafeMutablePointer<ibv_pd>?
        /// The completion queue of another endpoint, which both share; nil for a new one.
        public var queue: UnsafeMutablePointer<ibv_cq>?
        public var operations: UInt64?
        /// 4.096 µs × 2^18, about 1 s: with 7 retries, a peer on a busy machine has 8 s to respond.
        public var timeout: UInt8 = 18
        public var retries: UInt8 = 7
        public var pathMTU = IBV_MTU_1024
        public var rnrRetries: UInt8 = 7
        public var rnrTimer: UInt8 = 12
        public var access =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue
            | IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        /// The access flags of the queue pair (`qp_access_flags`).
        public var pairAccess =
            IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
            | IBV_ACCESS_REMOTE_ATOMIC.rawValue

        public init() {}
    }

    public static let memorySize = 1 << 20

    public let device: OpenDevice
    public let options: Options
    public let domain: UnsafeMutablePointer<ibv_pd>
    public let ownsDomain: Bool
    public let queue: UnsafeMutablePointer<ibv_cq>
    public let pair: UnsafeMutablePointer<ibv_qp>
    public let memory: UnsafeMutableRawPointer
    public let region: UnsafeMutablePointer<ibv_mr>
    public let psn = UInt32.random(in: 0..<1 << 24)
    public let queueKey: UInt32 = 0x1122_3344

    public init(_ device: OpenDevice, _ options: Options = Options()) throws {
        self.device = device
        self.options = options
        ownsDomain = options.domain == nil
        domain = try options.domain ?? created(device.table.alloc_pd(device.context))
        queue =
            try options.queue
            ?? created(device.table.create_cq(device.context, options.completions, nil, options.channel, 0))
        memory = .allocate(byteCount: Self.memorySize, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.memorySize)
        region = try created(
            device.table.reg_mr(domain, memory, Self.memorySize, UInt64(UInt(bitPattern: memory)), options.access))
        var attr = ibv_qp_init_attr_ex()
        attr.send_cq = queue
        attr.recv_cq = queue
        attr.srq = options.shared
        attr.cap = ibv_qp_cap(
            max_send_wr: options.sends, max_recv_wr: options.receives, max_send_sge: options.maxSGE,
            max_recv_sge: options.maxSGE, max_inline_data: options.inlineData)
        attr.qp_type = options.type
        attr.sq_sig_all = options.signalsAll ? 1 : 0
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = domain
        if let operations = options.operations {
            attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attr.send_ops_flags = operations
        }
        do {
            pair = try created(device.table.create_qp_ex(device.context, &attr))
        } catch {
            if options.queue == nil { _ = device.table.destroy_cq(queue) }
            _ = device.table.dereg_mr(region)
            memory.deallocate()
            if ownsDomain { _ = device.table.dealloc_pd(domain) }
            throw error
        }
    }

    deinit {
        _ = device.table.destroy_qp(pair)
        if options.queue == nil { _ = device.table.destroy_cq(queue) }
        _ = device.table.dereg_mr(region)
        memory.deallocate()
        if ownsDomain { _ = device.table.dealloc_pd(domain) }
    }

    /// The address of this endpoint.
    public var address: Address {
        get throws {
            var entry = ibv_gid_entry()
            try check(
                device.table.query_gid_ex(
                    device.context, 1, UInt32(options.gidIndex), &entry, 0, MemoryLayout<ibv_gid_entry>.size))
            return Address(
                gid: withUnsafeBytes(of: entry.gid) { Array($0) }, queuePair: pair.pointee.qp_num, psn: psn,
                queueKey: queueKey, memory: UInt64(UInt(bitPattern: memory)), key: region.pointee.rkey)
        }
    }

    public func ahAttr(to peer: Address) -> ibv_ah_attr {
        var attr = ibv_ah_attr()
        withUnsafeMutableBytes(of: &attr.grh.dgid) { $0.copyBytes(from: peer.gid) }
        attr.grh.sgid_index = options.gidIndex
        attr.grh.hop_limit = 64
        attr.is_global = 1
        attr.port_num = 1
        return attr
    }

    public func modify(_ mask: [ibv_qp_attr_mask], _ set: (inout ibv_qp_attr) -> Void) throws {
        var attr = ibv_qp_attr()
        set(&attr)
        let bits = mask.reduce(0) { $0 | $1.rawValue }
        try check(device.table.modify_qp(pair, &attr, Int32(bits)))
    }

    public func modifyToInit() throws {
        let last = options.type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS
        try modify([IBV_QP_STATE, IBV_QP_PKEY_INDEX, IBV_QP_PORT, last]) { attr in
            attr.qp_state = IBV_QPS_INIT
            attr.port_num = 1
            attr.qp_access_flags = options.pairAccess
            attr.qkey = queueKey
        }
    }

    /// Moves the queue pair from RESET to RTS, connected to `peer` (UD: without a peer).
    public func connect(to peer: Address) throws {
        try modifyToInit()
        try modifyToRTR(from: peer)
        try modifyToRTS()
    }

    public func modifyToRTR(from peer: Address) throws {
        var mask = [IBV_QP_STATE]
        if options.type != IBV_QPT_UD { mask += [IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN] }
        if options.type == IBV_QPT_RC { mask += [IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER] }
        try modify(mask) { attr in
            attr.qp_state = IBV_QPS_RTR
            attr.ah_attr = ahAttr(to: peer)
            attr.path_mtu = options.pathMTU
            attr.dest_qp_num = peer.queuePair
            attr.rq_psn = peer.psn
            attr.max_dest_rd_atomic = 16
            attr.min_rnr_timer = options.rnrTimer
        }
    }

    public func modifyToRTS() throws {
        var mask = [IBV_QP_STATE, IBV_QP_SQ_PSN]
        if options.type == IBV_QPT_RC || options.type == IBV_QPT_XRC_SEND {
            mask += [IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC]
        }
        try modify(mask) { attr in
            attr.qp_state = IBV_QPS_RTS
            attr.sq_psn = psn
            attr.timeout = options.timeout
            attr.retry_cnt = options.retries
            attr.rnr_retry = options.rnrRetries
            attr.max_rd_atomic = 16
        }
    }

    // MARK: Work

    /// An SGE in this endpoint's memory.
    public func sge(_ offset: Int, _ length: Int) -> ibv_sge {
        ibv_sge(
            addr: UInt64(UInt(bitPattern: memory + offset)), length: UInt32(length), lkey: region.pointee.lkey)
    }

    public func postReceive(id: UInt64 = 0, _ sgList: [ibv_sge]) throws {
        var sgList = sgList
        try sgList.withUnsafeMutableBufferPointer { list in
            var request = ibv_recv_wr(wr_id: id, next: nil, sg_list: list.baseAddress, num_sge: Int32(list.count))
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            try check(device.context.pointee.ops.post_recv(pair, &request, &bad))
        }
    }

    public func post(
        _ opcode: ibv_wr_opcode, id: UInt64 = 0, _ sgList: [ibv_sge], flags: UInt32 = IBV_SEND_SIGNALED.rawValue,
        _ set: (inout ibv_send_wr) -> Void = { _ in }
    ) throws {
        var sgList = sgList
        try sgList.withUnsafeMutableBufferPointer { list in
            var request = ibv_send_wr()
            request.wr_id = id
            request.opcode = opcode
            request.send_flags = flags
            request.sg_list = list.baseAddress
            request.num_sge = Int32(list.count)
            set(&request)
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            try check(device.context.pointee.ops.post_send(pair, &request, &bad))
        }
    }

    /// Polls until `count` completions have arrived. Only a failing test reaches the time limit.
    public func completions(_ count: Int = 1, within seconds: Double = 300) throws -> [ibv_wc] {
        var found: [ibv_wc] = []
        let end = ContinuousClock.now + .seconds(seconds)
        while found.count < count {
            var wc = ibv_wc()
            let polled = device.context.pointee.ops.poll_cq(queue, 1, &wc)
            if polled < 0 { throw Refusal(-polled) }
            if polled == 1 {
                found.append(wc)
            } else if ContinuousClock.now > end {
                throw Timeout()
            }
        }
        return found
    }

    /// Writes a pattern to this endpoint's memory.
    public func fill(_ offset: Int, _ length: Int, seed: UInt8) {
        for index in 0..<length {
            let byte = seed &+ UInt8(truncatingIfNeeded: index &* 7)
            memory.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self)
        }
    }

    /// FNV-1a of the upper half of this endpoint's memory, word by word.
    public var upperHalfSum: UInt64 {
        var sum: UInt64 = 0xCBF2_9CE4_8422_2325
        for offset in stride(from: Self.memorySize / 2, to: Self.memorySize, by: 8) {
            sum = (sum ^ memory.load(fromByteOffset: offset, as: UInt64.self)) &* 0x100_0000_01B3
        }
        return sum
    }

    public func bytes(_ offset: Int, _ length: Int) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: memory + offset, count: length))
    }
}

/// Creates two endpoints that are connected to each other.
public func pair(
    _ options: Endpoint.Options = Endpoint.Options(), on first: OpenDevice, and second: OpenDevice
) throws -> (Endpoint, Endpoint) {
    let a = try Endpoint(first, options)
    let b = try Endpoint(second, options)
    try a.connect(to: b.address)
    try b.connect(to: a.address)
    return (a, b)
}

extension ibv_send_wr {
    /// Addresses a datagram.
    public mutating func setDestination(_ peer: Address, _ handle: UnsafeMutablePointer<ibv_ah>) {
        wr.ud.ah = handle
        wr.ud.remote_qpn = peer.queuePair
        wr.ud.remote_qkey = peer.queueKey
    }
}
