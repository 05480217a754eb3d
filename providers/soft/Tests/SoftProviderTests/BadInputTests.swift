import CIBVerbs
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Bad input")
    struct BadInputTests {
        private func connected(_ change: (inout Endpoint.Options) -> Void = { _ in }) throws -> (Endpoint, Endpoint) {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            change(&options)
            return try pair(options, on: first, and: second)
        }

        @Test(
            "Too many SGEs, too much inline data, undefined opcodes and flags: EINVAL, with bad_wr")
        func refusedPosts() throws {
            let (a, b) = try connected()
            #expect(throws: Refusal(EINVAL)) { try a.post(IBV_WR_SEND, Array(repeating: a.sge(0, 8), count: 5)) }
            #expect(throws: Refusal(EINVAL)) { try b.postReceive(Array(repeating: b.sge(0, 8), count: 5)) }
            #expect(throws: Refusal(EINVAL)) {
                try a.post(IBV_WR_SEND, [a.sge(0, 257)], flags: IBV_SEND_INLINE.rawValue)
            }
            #expect(throws: Refusal(EINVAL)) { try a.post(IBV_WR_TSO, [a.sge(0, 8)]) }
            #expect(throws: Refusal(EINVAL)) { try a.post(IBV_WR_SEND, [a.sge(0, 8)], flags: 1 << 20) }

            var sge = a.sge(0, 8)
            try withUnsafeMutablePointer(to: &sge) { list in
                var second = ibv_send_wr()
                second.opcode = IBV_WR_SEND
                second.num_sge = 99
                second.sg_list = list
                var first = second
                first.num_sge = 1
                first.send_flags = IBV_SEND_SIGNALED.rawValue
                first.wr_id = 1
                try withUnsafeMutablePointer(to: &second) { second in
                    first.next = second
                    var bad: UnsafeMutablePointer<ibv_send_wr>?
                    try b.postReceive([b.sge(0, 8)])
                    #expect(a.device.context.pointee.ops.post_send(a.pair, &first, &bad) == EINVAL)
                    #expect(bad == second)
                    // The request before it was posted.
                    #expect(try a.success().wr_id == 1)
                }
            }
        }

        @Test("An opcode that the service type does not support is EINVAL")
        func opcodeOfAnotherType() throws {
            let (a, b) = try connected { $0.type = IBV_QPT_UC }
            let target = try b.address
            for opcode in [IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD] {
                #expect(throws: Refusal(EINVAL)) {
                    try a.post(opcode, [a.sge(0, 8)]) { request in
                        request.wr.rdma.remote_addr = target.memory
                        request.wr.rdma.rkey = target.key
                    }
                }
            }
        }

        @Test("Posting in a state that does not allow it is EINVAL, to a full queue ENOMEM")
        func wrongStateAndFullQueue() throws {
            let device = try OpenDevice()
            var options = Endpoint.Options()
            options.receives = 4
            options.sends = 4
            let a = try Endpoint(device, options)
            #expect(throws: Refusal(EINVAL)) { try a.postReceive([a.sge(0, 8)]) }
            try a.modifyToInit()
            #expect(throws: Refusal(EINVAL)) { try a.post(IBV_WR_SEND, [a.sge(0, 8)]) }
            for _ in 0..<4 { try a.postReceive([a.sge(0, 8)]) }
            #expect(throws: Refusal(ENOMEM)) { try a.postReceive([a.sge(0, 8)]) }

            let (b, c) = try connected { $0.sends = 4 }
            // The peer receives nothing, so nothing completes here.
            for _ in 0..<4 { try b.post(IBV_WR_SEND, [b.sge(0, 8)]) }
            #expect(throws: Refusal(ENOMEM)) { try b.post(IBV_WR_SEND, [b.sge(0, 8)]) }
            _ = c
        }

        @Test("A wrong L_Key, and a range beyond the region, complete with LOC_PROT_ERR", arguments: [true, false])
        func localProtection(badKey: Bool) throws {
            let (a, b) = try connected()
            try b.postReceive([b.sge(0, 64)])
            var sge = a.sge(Endpoint.memorySize - 4, 8)
            if badKey {
                sge = a.sge(0, 8)
                sge.lkey ^= 0x1234
            }
            try a.post(IBV_WR_SEND, [sge])
            #expect(try a.completions()[0].status == IBV_WC_LOC_PROT_ERR)
            try check(query(a).state, IBV_QPS_ERR)
        }

        private func check(_ found: ibv_qp_state, _ expected: ibv_qp_state) throws { #expect(found == expected) }

        private func query(_ endpoint: Endpoint) throws -> (state: ibv_qp_state, attr: ibv_qp_attr) {
            var attr = ibv_qp_attr()
            var initial = ibv_qp_init_attr()
            try SoftTestSupport.check(
                endpoint.device.table.query_qp(endpoint.pair, &attr, Int32(IBV_QP_STATE.rawValue), &initial))
            return (attr.qp_state, attr)
        }

        @Test("A wrong R_Key, a range beyond the region or a missing access flag: REM_ACCESS_ERR", arguments: 0..<3)
        func remoteAccess(kind: Int) throws {
            let (a, b) = try connected {
                if kind == 2 { $0.access = IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue }
            }
            let target = try b.address
            b.fill(0, 64, seed: 1)
            let before = b.bytes(0, 64)
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = target.memory + (kind == 1 ? UInt64(Endpoint.memorySize) - 4 : 0)
                request.wr.rdma.rkey = kind == 0 ? target.key ^ 0x1_0000 : target.key
            }
            #expect(try a.completions()[0].status == IBV_WC_REM_ACCESS_ERR)
            #expect(b.bytes(0, 64) == before)
        }

        @Test("A message longer than the receive is REM_INV_REQ_ERR at the requester and LOC_LEN_ERR at the responder")
        func receiveTooShort() throws {
            let (a, b) = try connected()
            try b.postReceive([b.sge(0, 4)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            #expect(try a.completions()[0].status == IBV_WC_REM_INV_REQ_ERR)
            #expect(try b.completions()[0].status == IBV_WC_LOC_LEN_ERR)
        }

        @Test("UC drops a message longer than the receive, which is used for the next one")
        func unreliableTooShort() throws {
            let (a, b) = try connected { $0.type = IBV_QPT_UC }
            try b.postReceive(id: 1, [b.sge(0, 5000)])
            // One packet, two packets, and a last message that fits.
            for length in [8192, 5001, 5000] {
                try a.post(IBV_WR_SEND, [a.sge(0, length)])
                try a.success()
            }
            let received = try b.success()
            #expect(received.wr_id == 1 && received.byte_len == 5000)
            #expect(b.device.counters.droppedTooLong == 2)
            try check(query(b).state, IBV_QPS_RTS)
        }

        @Test("If the peer posts no receive, a SEND completes with RNR_RETRY_EXC_ERR once rnr_retry is exhausted")
        func receiverNeverReady() throws {
            let (a, b) = try connected {
                $0.rnrRetries = 1
                $0.rnrTimer = 1
            }
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            #expect(try a.completions()[0].status == IBV_WC_RNR_RETRY_EXC_ERR)
            _ = b
        }

        @Test("If the peer's queue pair is destroyed, a SEND completes with RETRY_EXC_ERR, and the next is flushed")
        func peerGone() throws {
            let first = try OpenDevice()
            var options = Endpoint.Options()
            // About half a second, twice: b's thread responds in time on a busy machine too.
            options.timeout = 17
            options.retries = 1
            let a = try Endpoint(first, options)
            do {
                let b = try Endpoint(OpenDevice(), options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                try b.postReceive([b.sge(0, 8)])
                try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                try a.success()
            }
            try a.post(IBV_WR_SEND, id: 1, [a.sge(0, 8)])
            try a.post(IBV_WR_SEND, id: 2, [a.sge(0, 8)])
            let completions = try a.completions(2)
            #expect(completions.map(\.status) == [IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR])
        }

        @Test("Creating an object with invalid arguments fails with EINVAL, EOPNOTSUPP or EFAULT")
        func refusedCreations() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            defer { _ = device.table.dealloc_pd(domain) }
            func refusal<Object>(_ object: UnsafeMutablePointer<Object>?) -> Int32 { object == nil ? errno : 0 }
            #expect(refusal(device.table.create_cq(device.context, 0, nil, nil, 0)) == EINVAL)
            #expect(refusal(device.table.create_cq(device.context, 1 << 30, nil, nil, 0)) == EINVAL)
            #expect(refusal(device.table.create_cq(device.context, 8, nil, nil, 1)) == EINVAL)

            let byte = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
            defer { byte.deallocate() }
            let address = UInt64(UInt(bitPattern: byte))
            let write = IBV_ACCESS_REMOTE_WRITE.rawValue
            #expect(refusal(device.table.reg_mr(domain, byte, 64, address, write)) == EINVAL)
            #expect(refusal(device.table.reg_mr(domain, byte, 64, address, 1 << 18)) == EOPNOTSUPP)
            #expect(
                refusal(device.table.reg_mr(domain, UnsafeMutableRawPointer(bitPattern: 4096), 64, 4096, 1)) == EFAULT)

            var ah = ibv_ah_attr()
            ah.port_num = 1
            #expect(refusal(device.table.create_ah(domain, &ah)) == EINVAL)
            ah.is_global = 1
            ah.grh.sgid_index = 30
            ah.grh.dgid.raw.15 = 1
            #expect(refusal(device.table.create_ah(domain, &ah)) == EINVAL)

            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = domain
            attr.qp_type = IBV_QPT_RC
            #expect(refusal(device.table.create_qp_ex(device.context, &attr)) == EINVAL)
            attr.qp_type = IBV_QPT_RAW_PACKET
            #expect(refusal(device.table.create_qp_ex(device.context, &attr)) == EOPNOTSUPP)
            let queue = try created(device.table.create_cq(device.context, 8, nil, nil, 0))
            defer { _ = device.table.destroy_cq(queue) }
            attr.qp_type = IBV_QPT_RC
            attr.send_cq = queue
            attr.recv_cq = queue
            attr.cap.max_send_sge = 33
            #expect(refusal(device.table.create_qp_ex(device.context, &attr)) == EINVAL)
        }

        @Test("An undefined transition, and a missing or superfluous attribute: EINVAL, and the state is unchanged")
        func refusedTransitions() throws {
            let a = try Endpoint(OpenDevice())
            #expect(throws: Refusal(EINVAL)) { try a.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RTS } }
            #expect(throws: Refusal(EINVAL)) { try a.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_INIT } }
            try a.modifyToInit()
            #expect(throws: Refusal(EINVAL)) {
                try a.modify([IBV_QP_STATE, IBV_QP_SQ_PSN]) { $0.qp_state = IBV_QPS_RTR }
            }
            #expect(a.pair.pointee.state == IBV_QPS_INIT)
            var zeroGID = try a.address
            zeroGID.gid = [UInt8](repeating: 0, count: 16)
            #expect(throws: Refusal(EINVAL)) { try a.modifyToRTR(from: zeroGID) }
            #expect(try query(a).state == IBV_QPS_INIT)
            try a.modifyToRTR(from: a.address)
            let attr = try query(a).attr
            #expect(attr.path_mtu == IBV_MTU_1024)
            #expect(attr.ah_attr.is_global == 1)
            #expect(attr.dest_qp_num == a.pair.pointee.qp_num)
        }

        @Test("Destroying an object that is in use is EBUSY")
        func busyObjects() throws {
            let a = try Endpoint(OpenDevice())
            #expect(a.device.table.destroy_cq(a.queue) == EBUSY)
            #expect(a.device.table.dealloc_pd(a.domain) == EBUSY)
        }
    }
}
