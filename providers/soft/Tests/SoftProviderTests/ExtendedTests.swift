import CIBVerbs
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("The extended interfaces")
    struct ExtendedTests {
        private static let operations = UInt64(
            IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_SEND_WITH_IMM.rawValue | IBV_QP_EX_WITH_RDMA_WRITE.rawValue
                | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM.rawValue | IBV_QP_EX_WITH_RDMA_READ.rawValue
                | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP.rawValue | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD.rawValue)

        private func connected() throws -> (Endpoint, Endpoint, UnsafeMutablePointer<ibv_qp_ex>) {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.operations = Self.operations
            let (a, b) = try pair(options, on: first, and: second)
            return (a, b, try #require(first.table.qp_to_qp_ex(a.pair)))
        }

        @Test("The work requests built between wr_start and wr_complete are posted together, in order")
        func builds() throws {
            let (a, b, builder) = try connected()
            let target = try b.address
            for index in 0..<3 { try b.postReceive(id: UInt64(index), [b.sge(index * 1000, 1000)]) }
            a.fill(0, 1000, seed: 1)

            ibv_wr_start(builder)
            builder.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            builder.pointee.wr_id = 10
            ibv_wr_send(builder)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 1).addr, 500)
            builder.pointee.wr_id = 11
            ibv_wr_send_imm(builder, 5)
            var list = [a.sge(0, 100), a.sge(200, 100)]
            ibv_wr_set_sge_list(builder, 2, &list)
            builder.pointee.wr_id = 12
            ibv_wr_rdma_write(builder, target.key, target.memory + 5000)
            var inline: [UInt8] = [7, 8, 9]
            ibv_wr_set_inline_data(builder, &inline, 3)
            inline = [0, 0, 0]
            builder.pointee.wr_id = 13
            ibv_wr_rdma_write_imm(builder, target.key, target.memory + 6000, 6)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 1).addr, 10)
            #expect(ibv_wr_complete(builder) == 0)

            #expect(try a.completions(4).map(\.wr_id) == [10, 11, 12, 13])
            let received = try b.completions(3)
            #expect(received.map(\.byte_len) == [500, 200, 10])
            #expect(received[1].imm_data == 5)
            #expect(received[2].imm_data == 6)
            #expect(b.bytes(0, 500) == a.bytes(0, 500))
            #expect(b.bytes(1000, 200) == a.bytes(0, 100) + a.bytes(200, 100))
            #expect(b.bytes(5000, 3) == [7, 8, 9])
        }

        @Test("RDMA READ and atomics through the wr_ functions")
        func readsAndAtomics() throws {
            let (a, b, builder) = try connected()
            let target = try b.address
            b.memory.storeBytes(of: 5, as: UInt64.self)
            builder.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_start(builder)
            ibv_wr_atomic_fetch_add(builder, target.key, target.memory, 3)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 8).addr, 8)
            ibv_wr_atomic_cmp_swp(builder, target.key, target.memory, 8, 100)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(8, 8).addr, 8)
            ibv_wr_rdma_read(builder, target.key, target.memory)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(16, 8).addr, 8)
            #expect(ibv_wr_complete(builder) == 0)
            #expect(try a.completions(3).allSatisfy { $0.status == IBV_WC_SUCCESS })
            let values = (0..<3).map { a.memory.load(fromByteOffset: $0 * 8, as: UInt64.self) }
            #expect(values == [5, 8, 100])
        }

        @Test("After an invalid work request, wr_complete posts none; wr_abort posts none")
        func refusesAll() throws {
            let (a, b, builder) = try connected()
            try b.postReceive(id: 1, [b.sge(0, 64)])
            ibv_wr_start(builder)
            ibv_wr_send(builder)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 8).addr, 8)
            ibv_wr_send(builder)
            var list = [ibv_sge](repeating: a.sge(0, 8), count: 5)
            ibv_wr_set_sge_list(builder, 5, &list)
            #expect(ibv_wr_complete(builder) == EINVAL)
            ibv_wr_start(builder)
            ibv_wr_send(builder)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 8).addr, 8)
            ibv_wr_abort(builder)
            try a.post(IBV_WR_SEND, id: 4, [a.sge(0, 3)])
            #expect(try a.success().wr_id == 4)
            #expect(try b.success().byte_len == 3)
        }

        @Test(
            "Unsupported send_ops_flags are EINVAL (service type) or EOPNOTSUPP (provider); without them, no ibv_qp_ex"
        )
        func refusesOperations() throws {
            let device = try OpenDevice()
            var options = Endpoint.Options()
            options.type = IBV_QPT_UC
            options.operations = UInt64(IBV_QP_EX_WITH_RDMA_READ.rawValue)
            #expect(throws: Refusal(EINVAL)) { try Endpoint(device, options) }
            options.operations = UInt64(IBV_QP_EX_WITH_TSO.rawValue)
            #expect(throws: Refusal(EOPNOTSUPP)) { try Endpoint(device, options) }
            options.operations = nil
            let plain = try Endpoint(device, options)
            #expect(device.table.qp_to_qp_ex(plain.pair) == nil)
        }

        @Test("start_poll, next_poll and end_poll return the completions one by one", arguments: [false, true])
        func polls(isSingleThreaded: Bool) throws {
            let device = try OpenDevice()
            var attr = ibv_cq_init_attr_ex()
            attr.cqe = 16
            attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS)
            if isSingleThreaded {
                attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
                attr.flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
            }
            let queue = try created(device.table.create_cq_ex(device.context, &attr))
            do {
                var options = Endpoint.Options()
                let a = try Endpoint(device, options)
                options.queue = UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq.self)
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                for index in 0..<3 { try b.postReceive(id: UInt64(index), [b.sge(0, 64)]) }
                var poll = ibv_poll_cq_attr()
                #expect(ibv_start_poll(queue, &poll) == ENOENT)
                for index in 0..<3 {
                    try a.post(IBV_WR_SEND_WITH_IMM, [a.sge(0, index)]) { $0.imm_data = UInt32(index) }
                }
                for _ in 0..<3 { try a.success() }
                #expect(ibv_start_poll(queue, &poll) == 0)
                for index in 0..<3 {
                    #expect(queue.pointee.wr_id == index)
                    #expect(queue.pointee.status == IBV_WC_SUCCESS)
                    #expect(ibv_wc_read_opcode(queue) == IBV_WC_RECV)
                    #expect(ibv_wc_read_byte_len(queue) == index)
                    #expect(ibv_wc_read_imm_data(queue) == index)
                    #expect(ibv_wc_read_qp_num(queue) == b.pair.pointee.qp_num)
                    #expect(ibv_wc_read_wc_flags(queue) & IBV_WC_WITH_IMM.rawValue != 0)
                    #expect(ibv_next_poll(queue) == (index < 2 ? 0 : ENOENT))
                }
                ibv_end_poll(queue)
                #expect(ibv_start_poll(queue, &poll) == ENOENT)
            }
            try check(device.table.destroy_cq(UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq.self)))
        }

        @Test("wc_flags that soft does not support are EOPNOTSUPP")
        func refusesFlags() throws {
            let device = try OpenDevice()
            var attr = ibv_cq_init_attr_ex()
            attr.cqe = 16
            attr.wc_flags = UInt64(IBV_WC_EX_WITH_CVLAN.rawValue)
            #expect(device.table.create_cq_ex(device.context, &attr) == nil)
            #expect(errno == EOPNOTSUPP)
        }

        @Test("A resized completion queue keeps its completions, and cannot become smaller than their number")
        func resizes() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            for index in 0..<4 { try b.postReceive(id: UInt64(index), [b.sge(0, 64)]) }
            for _ in 0..<4 { try a.post(IBV_WR_SEND, [a.sge(0, 8)]) }
            _ = try a.completions(4)
            #expect(second.table.resize_cq(b.queue, 2) == EINVAL)
            try check(second.table.resize_cq(b.queue, 1000))
            #expect(b.queue.pointee.cqe == 1000)
            #expect(try b.completions(4).map(\.wr_id) == [0, 1, 2, 3])
        }

        /// Re-registers the region of an endpoint. Returns the error.
        private func reregister(
            _ endpoint: Endpoint, _ flags: ibv_rereg_mr_flags, domain: UnsafeMutablePointer<ibv_pd>? = nil,
            memory: UnsafeMutableRawPointer? = nil, length: Int = 0, access: ibv_access_flags = ibv_access_flags(0)
        ) -> Int32 {
            endpoint.device.table.rereg_mr(
                endpoint.region, Int32(flags.rawValue), domain, memory, length, Int32(access.rawValue))
        }

        private func write(_ a: Endpoint, _ memory: UInt64, _ key: UInt32) throws -> ibv_wc_status {
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = memory
                request.wr.rdma.rkey = key
            }
            return try a.completions()[0].status
        }

        private static let remoteWrite = ibv_access_flags(
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue)

        @Test(
            "A region keeps its keys when its access changes, which is that of packets and of direct requests",
            arguments: Ends.allCases)
        func reregistersAccess(ends: Ends) throws {
            let (first, second) = try ends.open()
            let (a, b) = try pair(on: first, and: second)
            let (memory, key) = (try b.address.memory, try b.address.key)
            for _ in 0..<3 { #expect(try write(a, memory, key) == IBV_WC_SUCCESS) }
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: IBV_ACCESS_REMOTE_READ) == 0)
            #expect(b.region.pointee.lkey == key && b.region.pointee.rkey == key)
            // The local write access is gone as well.
            try b.postReceive([b.sge(0, 64)])
            try a.post(IBV_WR_RDMA_READ, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = memory
                request.wr.rdma.rkey = key
            }
            try a.success()
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            #expect(try a.completions()[0].status == IBV_WC_REM_OP_ERR)
            #expect(try b.completions()[0].status == IBV_WC_LOC_PROT_ERR)
        }

        @Test("A WRITE with the same R_Key fails after remote write access was taken away, and not after it was given")
        func reregistersRemoteWrite() throws {
            for isDirect in [false, true] {
                let (first, second) = try Ends.twoDevices.open()
                let (a, b) = try pair(on: first, and: second)
                let (memory, key) = (try b.address.memory, try b.address.key)
                #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: IBV_ACCESS_LOCAL_WRITE) == 0)
                #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: Self.remoteWrite) == 0)
                // The first requests are packets, until the devices know each other.
                let before = first.counters.directRequests
                for _ in 0..<(isDirect ? 10_000 : 1) where first.counters.directRequests == before {
                    #expect(try write(a, memory, key) == IBV_WC_SUCCESS)
                }
                #expect(!isDirect || first.counters.directRequests > before)
                #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: IBV_ACCESS_LOCAL_WRITE) == 0)
                #expect(try write(a, memory, key) == IBV_WC_REM_ACCESS_ERR)
            }
        }

        @Test("The addresses of a region stay with its keys: IBV_ACCESS_ZERO_BASED counts where its memory changes")
        func reregistersZeroBased() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let (memory, key) = (try b.address.memory, try b.address.key)
            let zeroBased = ibv_access_flags(Self.remoteWrite.rawValue | IBV_ACCESS_ZERO_BASED.rawValue)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: zeroBased) == 0)
            #expect(b.region.pointee.rkey == key)
            #expect(try write(a, memory, key) == IBV_WC_SUCCESS)
            let changes = ibv_rereg_mr_flags(
                IBV_REREG_MR_CHANGE_ACCESS.rawValue | IBV_REREG_MR_CHANGE_TRANSLATION.rawValue)
            #expect(reregister(b, changes, memory: b.memory, length: 4096, access: zeroBased) == 0)
            #expect(try write(a, 0, b.region.pointee.rkey) == IBV_WC_SUCCESS)
            // Its addresses stay as well when the flag is taken away.
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: Self.remoteWrite) == 0)
            #expect(try write(a, 0, b.region.pointee.rkey) == IBV_WC_SUCCESS)
            #expect(try write(a, memory, b.region.pointee.rkey) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A region keeps its keys in another protection domain, where the queue pair's peer may not access it")
        func reregistersDomain() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let (memory, key) = (try b.address.memory, try b.address.key)
            let domain = try created(second.table.alloc_pd(second.context))
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD, domain: domain) == 0)
            #expect(b.region.pointee.rkey == key && b.region.pointee.pd == domain)
            #expect(second.table.dealloc_pd(domain) == EBUSY)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD, domain: b.domain) == 0)
            #expect(try write(a, memory, key) == IBV_WC_SUCCESS)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD, domain: domain) == 0)
            #expect(try write(a, memory, key) == IBV_WC_REM_ACCESS_ERR)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD, domain: b.domain) == 0)
            #expect(second.table.dealloc_pd(domain) == 0)
        }

        @Test("A region of other memory has new keys, and the old ones are invalid")
        func reregistersPlace() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let old = try b.address.key
            #expect(reregister(b, IBV_REREG_MR_CHANGE_TRANSLATION, memory: b.memory + 4096, length: 4096) == 0)
            #expect(b.region.pointee.rkey != old && b.region.pointee.rkey == b.region.pointee.lkey)
            #expect(b.region.pointee.addr == b.memory + 4096 && b.region.pointee.length == 4096)
            let memory = UInt64(UInt(bitPattern: b.memory)) + 4096
            #expect(try write(a, memory, b.region.pointee.rkey) == IBV_WC_SUCCESS)
            #expect(try write(a, memory, old) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("On-demand paging of a region begins and ends with the same keys")
        func reregistersOnDemand() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let (memory, key) = (try b.address.memory, try b.address.key)
            let onDemand = ibv_access_flags(Self.remoteWrite.rawValue | IBV_ACCESS_ON_DEMAND.rawValue)
            for access in [onDemand, Self.remoteWrite, onDemand] {
                #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: access) == 0)
                #expect(b.region.pointee.rkey == key)
                for _ in 0..<3 { #expect(try write(a, memory, key) == IBV_WC_SUCCESS) }
            }
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: IBV_ACCESS_ON_DEMAND) == 0)
            #expect(try write(a, memory, key) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A refused re-registration leaves the region as it was")
        func refusesReregistration() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let (memory, key) = (try b.address.memory, try b.address.key)
            #expect(reregister(b, ibv_rereg_mr_flags(0)) == EINVAL)
            #expect(reregister(b, ibv_rereg_mr_flags(1 << 20)) == EOPNOTSUPP)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: IBV_ACCESS_REMOTE_WRITE) == EINVAL)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: ibv_access_flags(1 << 9)) == EOPNOTSUPP)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_ACCESS, access: ibv_access_flags(1 << 12)) == EOPNOTSUPP)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD) == EINVAL)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_PD, domain: a.domain) == EINVAL)
            #expect(reregister(b, IBV_REREG_MR_CHANGE_TRANSLATION, memory: nil, length: 1 << 20) == EFAULT)
            #expect(b.region.pointee.rkey == key && b.region.pointee.length == Endpoint.memorySize)
            #expect(b.region.pointee.addr == b.memory && b.region.pointee.pd == b.domain)
            #expect(try write(a, memory, key) == IBV_WC_SUCCESS)
        }

        @Test("Queues under a thread domain transfer messages")
        func threadDomain() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            var threads = ibv_td_init_attr()
            let thread = try created(device.table.alloc_td(device.context, &threads))
            var attr = ibv_parent_domain_init_attr()
            attr.pd = domain
            attr.td = thread
            let parent = try created(device.table.alloc_parent_domain(device.context, &attr))
            do {
                var options = Endpoint.Options()
                options.domain = parent
                let (a, b) = try pair(options, on: device, and: device)
                try b.postReceive([b.sge(0, 64)])
                try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                try a.success()
                try b.success()
            }
            try check(device.table.dealloc_pd(parent))
            try check(device.table.dealloc_pd(domain))
            try check(device.table.dealloc_td(thread))
        }
    }
}
