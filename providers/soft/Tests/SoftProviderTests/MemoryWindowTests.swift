import CIBVerbs
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Memory windows, local invalidate and SEND with invalidate, through verbs calls")
    struct MemoryWindowTests {
        private static let bindAccess =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue | IBV_ACCESS_MW_BIND.rawValue

        private static let operations =
            IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_SEND_WITH_INV.rawValue
            | IBV_QP_EX_WITH_LOCAL_INV.rawValue | IBV_QP_EX_WITH_BIND_MW.rawValue
            | IBV_QP_EX_WITH_RDMA_WRITE.rawValue

        /// Two connected endpoints. The memory of the second allows windows, and by its own key no remote write.
        private func connected(_ ends: Ends = .twoDevices, operations: UInt64? = nil) throws -> (Endpoint, Endpoint) {
            let (first, second) = try ends.open()
            var options = Endpoint.Options()
            options.access = Self.bindAccess
            options.operations = operations
            return try SoftTestSupport.pair(options, on: first, and: second)
        }

        /// A window of an endpoint, deallocated with this object.
        private final class Window {
            let raw: UnsafeMutablePointer<ibv_mw>

            init(_ endpoint: Endpoint, _ type: ibv_mw_type) throws {
                raw = try created(endpoint.device.context.pointee.ops.alloc_mw(endpoint.domain, type))
            }

            deinit { _ = raw.pointee.context.pointee.ops.dealloc_mw(raw) }
        }

        private func info(
            _ endpoint: Endpoint, _ offset: Int, _ length: Int, access: UInt32 = IBV_ACCESS_REMOTE_WRITE.rawValue
        ) -> ibv_mw_bind_info {
            ibv_mw_bind_info(
                mr: endpoint.region, addr: UInt64(UInt(bitPattern: endpoint.memory + offset)), length: UInt64(length),
                mw_access_flags: access)
        }

        /// `ibv_bind_mw`.
        private func bind(_ endpoint: Endpoint, _ window: Window, _ info: ibv_mw_bind_info) -> Int32 {
            var bind = ibv_mw_bind(wr_id: 5, send_flags: IBV_SEND_SIGNALED.rawValue, bind_info: info)
            return endpoint.device.context.pointee.ops.bind_mw(endpoint.pair, window.raw, &bind)
        }

        /// Binds a window of type 2 by `ibv_post_send`, and returns its new R_Key.
        private func bindByWorkRequest(_ endpoint: Endpoint, _ window: Window, _ info: ibv_mw_bind_info) throws
            -> UInt32
        {
            let key = ibv_inc_rkey(window.raw.pointee.rkey)
            try endpoint.post(IBV_WR_BIND_MW, id: 6, []) { request in
                request.bind_mw.mw = window.raw
                request.bind_mw.rkey = key
                request.bind_mw.bind_info = info
            }
            #expect(try endpoint.success().opcode == IBV_WC_BIND_MW)
            window.raw.pointee.rkey = key
            return key
        }

        /// The status of an RDMA WRITE of 8 bytes from `a` to `b`.
        private func write(_ a: Endpoint, _ b: Endpoint, offset: Int, key: UInt32) throws -> ibv_wc_status {
            a.fill(0, 8, seed: 9)
            let target = try b.address.memory + UInt64(offset)
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = target
                request.wr.rdma.rkey = key
            }
            return try a.completions()[0].status
        }

        @Test("The device has windows of type 1 and 2B")
        func capabilities() throws {
            let device = try OpenDevice()
            var attr = ibv_device_attr_ex()
            try check(device.table.query_device_ex(device.context, nil, &attr, MemoryLayout<ibv_device_attr_ex>.size))
            let flags = attr.orig_attr.device_cap_flags
            #expect(flags & IBV_DEVICE_MEM_WINDOW.rawValue != 0 && flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B.rawValue != 0)
            #expect(flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A.rawValue == 0)
            #expect(attr.orig_attr.max_mw > 0)
        }

        @Test("A window of type 1 is bound by ibv_bind_mw, bound again with another key, and unbound by length 0")
        func typeOne() throws {
            let (a, b) = try connected()
            let window = try Window(b, IBV_MW_TYPE_1)
            let first = window.raw.pointee.rkey
            #expect(bind(b, window, info(b, 64, 64)) == 0)
            let completion = try b.success()
            #expect(completion.opcode == IBV_WC_BIND_MW && completion.wr_id == 5)
            #expect(window.raw.pointee.rkey == ibv_inc_rkey(first))
            #expect(try write(a, b, offset: 64, key: window.raw.pointee.rkey) == IBV_WC_SUCCESS)
            #expect(b.bytes(64, 8) == a.bytes(0, 8))
            let old = window.raw.pointee.rkey
            #expect(bind(b, window, ibv_mw_bind_info()) == 0)
            try b.success()
            #expect(try write(a, b, offset: 64, key: old) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A window of type 2 is bound by ibv_post_send and ended by a local invalidate")
        func typeTwo() throws {
            let (a, b) = try connected()
            let window = try Window(b, IBV_MW_TYPE_2)
            let key = try bindByWorkRequest(b, window, info(b, 64, 64))
            #expect(try write(a, b, offset: 120, key: key) == IBV_WC_SUCCESS)
            try b.post(IBV_WR_LOCAL_INV, id: 8, []) { $0.invalidate_rkey = key }
            let completion = try b.success()
            #expect(completion.opcode == IBV_WC_LOCAL_INV && completion.wr_id == 8)
            #expect(try write(a, b, offset: 64, key: key) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A zero-based window of type 2 names its first byte 0")
        func zeroBased() throws {
            let (a, b) = try connected()
            let window = try Window(b, IBV_MW_TYPE_2)
            let access = IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_ZERO_BASED.rawValue
            let key = try bindByWorkRequest(b, window, info(b, 64, 64, access: access))
            a.fill(0, 8, seed: 9)
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = 8
                request.wr.rdma.rkey = key
            }
            try a.success()
            #expect(b.bytes(72, 8) == a.bytes(0, 8))
        }

        @Test(
            "SEND with invalidate ends the peer's window, and its receive completion has the key",
            arguments: Ends.allCases)
        func sendWithInvalidate(ends: Ends) throws {
            let (a, b) = try connected(ends)
            let window = try Window(b, IBV_MW_TYPE_2)
            let key = try bindByWorkRequest(b, window, info(b, 64, 64))
            try b.postReceive(id: 3, [b.sge(4096, 4096)])
            a.fill(0, 3000, seed: 4)
            try a.post(IBV_WR_SEND_WITH_INV, [a.sge(0, 3000)]) { $0.invalidate_rkey = key }
            #expect(try a.success().opcode == IBV_WC_SEND)
            let received = try b.success()
            #expect(received.opcode == IBV_WC_RECV && received.wc_flags == IBV_WC_WITH_INV.rawValue)
            #expect(received.invalidated_rkey == key && received.byte_len == 3000)
            #expect(b.bytes(4096, 3000) == a.bytes(0, 3000))
            #expect(try write(a, b, offset: 64, key: key) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("The wr_ functions bind, invalidate, and send with invalidate")
        func builders() throws {
            let (a, b) = try connected(operations: UInt64(Self.operations))
            let window = try Window(b, IBV_MW_TYPE_2)
            let extended = try #require(b.device.table.qp_to_qp_ex(b.pair))
            let key = ibv_inc_rkey(window.raw.pointee.rkey)
            var bindInfo = info(b, 64, 64)
            ibv_wr_start(extended)
            extended.pointee.wr_id = 1
            extended.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_bind_mw(extended, window.raw, key, &bindInfo)
            #expect(ibv_wr_complete(extended) == 0)
            #expect(try b.success().opcode == IBV_WC_BIND_MW)
            #expect(try write(a, b, offset: 64, key: key) == IBV_WC_SUCCESS)

            ibv_wr_start(extended)
            extended.pointee.wr_id = 2
            ibv_wr_local_inv(extended, key)
            extended.pointee.wr_id = 3
            ibv_wr_bind_mw(extended, window.raw, ibv_inc_rkey(key), &bindInfo)
            #expect(ibv_wr_complete(extended) == 0)
            #expect(try b.completions(2).map(\.wr_id) == [2, 3])

            try b.postReceive([b.sge(4096, 64)])
            let sender = try #require(a.device.table.qp_to_qp_ex(a.pair))
            ibv_wr_start(sender)
            sender.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_send_inv(sender, ibv_inc_rkey(key))
            ibv_wr_set_sge(sender, a.region.pointee.lkey, UInt64(UInt(bitPattern: a.memory)), 8)
            #expect(ibv_wr_complete(sender) == 0)
            try a.success()
            let received = try b.success()
            #expect(received.wc_flags == IBV_WC_WITH_INV.rawValue && received.invalidated_rkey == ibv_inc_rkey(key))
        }

        @Test(
            "A bind that is not allowed completes with IBV_WC_MW_BIND_ERR, a local invalidate with IBV_WC_LOC_QP_OP_ERR"
        )
        func failures() throws {
            let (a, b) = try connected()
            let window = try Window(b, IBV_MW_TYPE_1)
            #expect(bind(b, window, info(b, Endpoint.memorySize - 8, 16)) == 0)
            #expect(try b.completions()[0].status == IBV_WC_MW_BIND_ERR)
            try a.post(IBV_WR_LOCAL_INV, []) { $0.invalidate_rkey = a.region.pointee.rkey }
            #expect(try a.completions()[0].status == IBV_WC_LOC_QP_OP_ERR)
        }

        @Test("Calls that can never succeed are refused at once")
        func refusals() throws {
            let (a, b) = try connected(.sameDevice)
            #expect(throws: Refusal(EINVAL)) { try Window(b, ibv_mw_type(3)) }
            let one = try Window(b, IBV_MW_TYPE_1)
            let two = try Window(b, IBV_MW_TYPE_2)
            #expect(bind(b, two, info(b, 0, 8)) == EINVAL, "type 2 is bound by a work request")
            #expect(bind(b, one, info(b, 0, 8, access: IBV_ACCESS_ZERO_BASED.rawValue)) == EINVAL)
            #expect(bind(b, one, info(a, 0, 8)) == EPERM, "the region of another protection domain")
            #expect(bind(a, one, info(b, 0, 8)) == EPERM, "the queue pair of another protection domain")
            #expect(bind(b, one, ibv_mw_bind_info(mr: nil, addr: 1, length: 8, mw_access_flags: 0)) == EINVAL)
            #expect(throws: Refusal(EINVAL)) {
                try b.post(IBV_WR_BIND_MW, []) { request in
                    request.bind_mw.mw = one.raw
                    request.bind_mw.bind_info = info(b, 0, 8)
                }
            }
            #expect(throws: Refusal(EINVAL)) { try b.post(IBV_WR_BIND_MW, []) }
        }

        @Test("A region with a bound window is neither deregistered (EBUSY) nor re-registered (EINVAL)")
        func busyRegion() throws {
            let (a, b) = try connected()
            let window = try Window(b, IBV_MW_TYPE_2)
            let key = try bindByWorkRequest(b, window, info(b, 64, 64))
            #expect(b.device.table.dereg_mr(b.region) == EBUSY)
            let change = Int32(IBV_REREG_MR_CHANGE_ACCESS.rawValue)
            #expect(b.device.table.rereg_mr(b.region, change, nil, nil, 0, 0) == EINVAL)
            #expect(try write(a, b, offset: 64, key: key) == IBV_WC_SUCCESS)
            try b.post(IBV_WR_LOCAL_INV, []) { $0.invalidate_rkey = key }
            try b.success()
            #expect(b.device.table.rereg_mr(b.region, change, nil, nil, 0, Int32(Self.bindAccess)) == 0)
        }

        @Test("A bound window is deallocated, and its domain is busy until then")
        func deallocation() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            let window = try created(device.context.pointee.ops.alloc_mw(domain, IBV_MW_TYPE_2))
            #expect(device.table.dealloc_pd(domain) == EBUSY)
            #expect(device.context.pointee.ops.dealloc_mw(window) == 0)
            #expect(device.table.dealloc_pd(domain) == 0)
            let (a, b) = try connected()
            var bound: Window? = try Window(b, IBV_MW_TYPE_2)
            let key = try bindByWorkRequest(b, bound!, info(b, 64, 64))
            bound = nil
            #expect(try write(a, b, offset: 64, key: key) == IBV_WC_REM_ACCESS_ERR)
        }
    }
}
