import CIBVerbs
import CLinux
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Device memory, dma-bufs, the null region, on-demand paging and advice")
    struct MemoryKindTests {
        private static let everything =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
            | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        private static let page = Int(linux_page_size())

        /// A memory region that ends with this object.
        private final class Region {
            let raw: UnsafeMutablePointer<ibv_mr>
            private let device: OpenDevice

            init(_ device: OpenDevice, _ make: (rdma_context_ops) -> UnsafeMutablePointer<ibv_mr>?) throws {
                raw = try created(make(device.table))
                self.device = device
            }

            deinit { _ = device.table.dereg_mr(raw) }
        }

        /// Device memory that ends with this object.
        private final class DeviceMemory {
            let raw: UnsafeMutablePointer<ibv_dm>
            private let device: OpenDevice

            init(_ device: OpenDevice, _ length: Int, logAlignment: UInt32 = 0, mask: UInt32 = 0) throws {
                var attr = ibv_alloc_dm_attr(length: length, log_align_req: logAlignment, comp_mask: mask)
                raw = try created(device.table.alloc_dm(device.context, &attr))
                self.device = device
            }

            deinit { _ = device.table.free_dm(raw) }
        }

        private func connected(_ ends: Ends = .twoDevices) throws -> (Endpoint, Endpoint) {
            let (first, second) = try ends.open()
            return try SoftTestSupport.pair(on: first, and: second)
        }

        private func transfer(
            _ a: Endpoint, _ opcode: ibv_wr_opcode, _ sge: ibv_sge, at address: UInt64, _ key: UInt32
        ) throws -> ibv_wc_status {
            try a.post(opcode, [sge]) { request in
                request.wr.rdma.remote_addr = address
                request.wr.rdma.rkey = key
            }
            return try a.completions()[0].status
        }

        private func attributes(_ device: OpenDevice) throws -> ibv_device_attr_ex {
            var attr = ibv_device_attr_ex()
            try check(device.table.query_device_ex(device.context, nil, &attr, MemoryLayout<ibv_device_attr_ex>.size))
            return attr
        }

        // MARK: - Device memory

        @Test("Device memory is copied to and from, and written, read and changed atomically by the peer")
        func deviceMemory() throws {
            let (a, b) = try connected()
            let memory = try DeviceMemory(b.device, 8192, logAlignment: 13)
            let region = try Region(b.device) { $0.reg_dm_mr(b.domain, memory.raw, 64, 4096, Self.zeroBased) }
            #expect(region.raw.pointee.addr == nil && region.raw.pointee.length == 4096)
            a.fill(0, 4096, seed: 3)
            #expect(
                try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 4096), at: 0, region.raw.pointee.rkey) == IBV_WC_SUCCESS)
            var copy = [UInt8](repeating: 0, count: 4096)
            #expect(memory.raw.pointee.memcpy_from_dm(&copy, memory.raw, 64, 4096) == 0)
            #expect(copy == a.bytes(0, 4096))
            var value: UInt64 = 40
            #expect(memory.raw.pointee.memcpy_to_dm(memory.raw, 64 + 8, &value, 8) == 0)
            try a.post(IBV_WR_ATOMIC_FETCH_AND_ADD, [a.sge(0, 8)]) { request in
                request.wr.atomic.remote_addr = 8
                request.wr.atomic.rkey = region.raw.pointee.rkey
                request.wr.atomic.compare_add = 2
            }
            try a.success()
            #expect(a.memory.load(as: UInt64.self) == 40)
            #expect(memory.raw.pointee.memcpy_from_dm(&value, memory.raw, 72, 8) == 0 && value == 42)
            // The device memory is the source of a SEND.
            try a.postReceive([a.sge(8192, 16)])
            try b.post(IBV_WR_SEND, [ibv_sge(addr: 8, length: 8, lkey: region.raw.pointee.lkey)])
            try b.success()
            try a.success()
            #expect(a.memory.load(fromByteOffset: 8192, as: UInt64.self) == 42)
            #expect(
                try transfer(a, IBV_WR_RDMA_READ, a.sge(0, 8), at: 4089, region.raw.pointee.rkey)
                    == IBV_WC_REM_ACCESS_ERR)
        }

        private static let zeroBased = everything | IBV_ACCESS_ZERO_BASED.rawValue

        @Test("Device memory is bounded, busy while a region is on it, and refuses ranges outside")
        func deviceMemoryErrors() throws {
            let device = try OpenDevice()
            let most = Int(try attributes(device).max_dm_size)
            #expect(most > 0)
            #expect(throws: Refusal(EINVAL)) { try DeviceMemory(device, 0) }
            #expect(throws: Refusal(ENOMEM)) { try DeviceMemory(device, most + 1) }
            #expect(throws: Refusal(EINVAL)) { try DeviceMemory(device, 64, logAlignment: 63) }
            #expect(throws: Refusal(EOPNOTSUPP)) { try DeviceMemory(device, 64, mask: 1) }
            var whole: DeviceMemory? = try DeviceMemory(device, most)
            #expect(throws: Refusal(ENOMEM)) { try DeviceMemory(device, 1) }
            whole = nil
            _ = whole
            let memory = try DeviceMemory(device, 128)
            var byte: UInt8 = 1
            #expect(memory.raw.pointee.memcpy_to_dm(memory.raw, 128, &byte, 1) == EFAULT)
            #expect(memory.raw.pointee.memcpy_from_dm(&byte, memory.raw, .max, 1) == EFAULT)
            #expect(memory.raw.pointee.memcpy_to_dm(memory.raw, 128, nil, 0) == 0)
            let domain = try created(device.table.alloc_pd(device.context))
            #expect(throws: Refusal(EINVAL)) {
                try Region(device) { $0.reg_dm_mr(domain, memory.raw, 64, 65, Self.zeroBased) }
            }
            #expect(throws: Refusal(EINVAL)) {
                try Region(device) { $0.reg_dm_mr(domain, memory.raw, 0, 64, Self.everything) }
            }
            var region: Region? = try Region(device) { $0.reg_dm_mr(domain, memory.raw, 0, 64, Self.zeroBased) }
            #expect(device.table.free_dm(memory.raw) == EBUSY)
            #expect(
                device.table.rereg_mr(
                    region!.raw, Int32(IBV_REREG_MR_CHANGE_ACCESS.rawValue), nil, nil, 0, 1) == EOPNOTSUPP)
            region = nil
            #expect(device.table.dealloc_pd(domain) == 0)
        }

        // MARK: - dma-buf

        @Test("A descriptor that can be mapped is registered as a dma-buf: its file has what the peer writes")
        func dmabuf() throws {
            let (a, b) = try connected()
            let descriptor = linux_memory_file("soft-dmabuf-test")
            #expect(descriptor >= 0)
            defer { close(descriptor) }
            #expect(ftruncate(descriptor, off_t(4 * Self.page)) == 0)
            let offset = Self.page + 16
            let length = 2 * Self.page
            let region = try Region(b.device) {
                $0.reg_dmabuf_mr(b.domain, UInt64(offset), length, 0x7000_0010, descriptor, Int32(Self.everything))
            }
            a.fill(0, length, seed: 7)
            let address: UInt64 = 0x7000_0010
            #expect(
                try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, length), at: address, region.raw.pointee.rkey)
                    == IBV_WC_SUCCESS)
            var found = [UInt8](repeating: 0, count: length)
            #expect(pread(descriptor, &found, length, off_t(offset)) == length)
            #expect(found == a.bytes(0, length))
            #expect(
                try transfer(a, IBV_WR_RDMA_READ, a.sge(0, 8), at: address + UInt64(length), region.raw.pointee.rkey)
                    == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A dma-buf is refused where it cannot be mapped, is too short, or has another offset in its page")
        func dmabufErrors() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            func refused(_ descriptor: Int32, offset: Int = 0, length: Int = 64, iova: UInt64 = 0, _ errno: Int32) {
                #expect(throws: Refusal(errno)) {
                    try Region(device) {
                        $0.reg_dmabuf_mr(domain, UInt64(offset), length, iova, descriptor, Int32(Self.everything))
                    }
                }
            }
            let file = linux_memory_file("soft-dmabuf-test")
            defer { close(file) }
            #expect(ftruncate(file, off_t(Self.page)) == 0)
            refused(-1, EBADF)
            refused(file, length: 0, EINVAL)
            refused(file, length: Self.page + 1, EINVAL)
            refused(file, offset: 8, iova: 4, EINVAL)
            var ends: [Int32] = [0, 0]
            #expect(pipe(&ends) == 0)
            defer { ends.forEach { close($0) } }
            refused(ends[0], ESPIPE)
            let directory = open("/", O_RDONLY | O_DIRECTORY)
            defer { close(directory) }
            #expect(throws: Refusal.self) {
                try Region(device) { $0.reg_dmabuf_mr(domain, 0, 8, 0, directory, Int32(Self.everything)) }
            }
            #expect(device.table.dealloc_pd(domain) == 0)
        }

        // MARK: - Null region

        @Test("SGEs of the null region send zeros and discard what arrives")
        func nullRegion() throws {
            let (a, b) = try connected()
            let null = try Region(a.device) { $0.alloc_null_mr(a.domain) }
            let discarded = try Region(b.device) { $0.alloc_null_mr(b.domain) }
            a.fill(0, 6000, seed: 1)
            b.fill(0, 6000, seed: 200)
            let hole = ibv_sge(addr: 0x1234_5678, length: 2500, lkey: null.raw.pointee.lkey)
            let sink = ibv_sge(addr: 0, length: 1000, lkey: discarded.raw.pointee.lkey)
            try b.postReceive([sink, b.sge(0, 5000)])
            try a.post(IBV_WR_SEND, [a.sge(0, 1500), hole, a.sge(1500, 500)])
            try a.success()
            #expect(try b.success().byte_len == 4500)
            #expect(b.bytes(0, 500) == a.bytes(1000, 500))
            #expect(b.bytes(500, 2500).allSatisfy { $0 == 0 })
            #expect(b.bytes(3000, 500) == a.bytes(1500, 500))
            // What was discarded is not sent.
            try b.postReceive([b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [ibv_sge(addr: 0, length: 64, lkey: null.raw.pointee.lkey)])
            try a.success()
            try b.success()
            #expect(b.bytes(0, 64).allSatisfy { $0 == 0 })
            #expect(
                try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 8), at: 0, discarded.raw.pointee.rkey)
                    == IBV_WC_REM_ACCESS_ERR)
        }

        // MARK: - On-demand paging

        @Test("The device reports on-demand paging, implicit too, for all operations")
        func onDemandCapabilities() throws {
            let caps = try attributes(try OpenDevice()).odp_caps
            #expect(caps.general_caps == UInt64(IBV_ODP_SUPPORT.rawValue | IBV_ODP_SUPPORT_IMPLICIT.rawValue))
            #expect(caps.per_transport_caps.rc_odp_caps == 0x3F)
            #expect(caps.per_transport_caps.uc_odp_caps == 0x27 && caps.per_transport_caps.ud_odp_caps == 0x23)
        }

        /// Reserved address space of two pages, of which the first is mapped.
        private final class Pages {
            let first: UnsafeMutableRawPointer

            init() throws {
                let map = mmap(nil, 2 * MemoryKindTests.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                first = try #require(map != MAP_FAILED ? map : nil)
                #expect(mprotect(first, MemoryKindTests.page, PROT_READ | PROT_WRITE) == 0)
            }

            deinit { munmap(first, 2 * MemoryKindTests.page) }

            var address: UInt64 { UInt64(UInt(bitPattern: first)) }
        }

        @Test(
            "A region with on-demand paging is registered before it is mapped; memory that is not mapped is refused",
            arguments: [false, true])
        func onDemand(isImplicit: Bool) throws {
            let (a, b) = try connected()
            let pages = try Pages()
            let region = try Region(b.device) { table in
                let access = Self.everything | IBV_ACCESS_ON_DEMAND.rawValue
                if isImplicit { return table.reg_mr(b.domain, nil, Int(bitPattern: .max), 0, access) }
                return table.reg_mr(b.domain, pages.first, 2 * Self.page, pages.address, access)
            }
            a.fill(0, 64, seed: 3)
            let key = region.raw.pointee.rkey
            #expect(try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 64), at: pages.address + 8, key) == IBV_WC_SUCCESS)
            #expect(memcmp(pages.first + 8, a.memory, 64) == 0)
            #expect(try transfer(a, IBV_WR_RDMA_READ, a.sge(128, 64), at: pages.address + 8, key) == IBV_WC_SUCCESS)
            #expect(a.bytes(128, 64) == a.bytes(0, 64))
            // As an L_Key.
            try a.postReceive([a.sge(256, 64)])
            try b.post(IBV_WR_SEND, [ibv_sge(addr: pages.address + 8, length: 64, lkey: key)])
            try b.success()
            try a.success()
            #expect(a.bytes(256, 64) == a.bytes(0, 64))
            // Mapped later.
            let second = pages.address + UInt64(Self.page)
            #expect(mprotect(pages.first + Self.page, Self.page, PROT_READ | PROT_WRITE) == 0)
            #expect(try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 64), at: second - 32, key) == IBV_WC_SUCCESS)
            #expect(memcmp(pages.first + Self.page - 32, a.memory, 64) == 0)
            #expect(mprotect(pages.first + Self.page, Self.page, PROT_NONE) == 0)
            #expect(try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 64), at: second - 32, key) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A write to a page that may only be read, and a local access to memory that is not mapped, fail")
        func onDemandFaults() throws {
            let (a, b) = try connected()
            let pages = try Pages()
            let access = Self.everything | IBV_ACCESS_ON_DEMAND.rawValue
            let region = try Region(b.device) {
                $0.reg_mr(b.domain, pages.first, 2 * Self.page, pages.address, access)
            }
            #expect(mprotect(pages.first, Self.page, PROT_READ) == 0)
            let key = region.raw.pointee.rkey
            #expect(try transfer(a, IBV_WR_RDMA_READ, a.sge(0, 8), at: pages.address, key) == IBV_WC_SUCCESS)
            try b.post(
                IBV_WR_SEND, [ibv_sge(addr: pages.address + UInt64(Self.page), length: 8, lkey: key)])
            #expect(try b.completions()[0].status == IBV_WC_LOC_PROT_ERR)
            let (c, d) = try connected()
            let other = try Region(d.device) {
                $0.reg_mr(d.domain, pages.first, 2 * Self.page, pages.address, access)
            }
            #expect(
                try transfer(c, IBV_WR_RDMA_WRITE, c.sge(0, 8), at: pages.address, other.raw.pointee.rkey)
                    == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("Registrations with on-demand paging that contradict themselves are refused")
        func onDemandErrors() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            let onDemand = Self.everything | IBV_ACCESS_ON_DEMAND.rawValue
            let all = Int(bitPattern: UInt.max)
            #expect(throws: Refusal(EINVAL)) {
                try Region(device) { $0.reg_mr(domain, nil, all, 0, onDemand | IBV_ACCESS_ZERO_BASED.rawValue) }
            }
            #expect(throws: Refusal(EINVAL)) { try Region(device) { $0.reg_mr(domain, nil, all, 4096, onDemand) } }
            #expect(throws: Refusal(EINVAL)) {
                try Region(device) { $0.reg_mr(domain, nil, all, 0, onDemand | IBV_ACCESS_MW_BIND.rawValue) }
            }
            #expect(throws: Refusal(EINVAL)) { try Region(device) { $0.reg_mr(domain, nil, all, 0, Self.everything) } }
            #expect(throws: Refusal(EINVAL)) {
                try Region(device) {
                    $0.reg_mr(
                        domain, nil, all, 0, IBV_ACCESS_ON_DEMAND.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue)
                }
            }
            #expect(device.table.dealloc_pd(domain) == 0)
        }

        @Test("Relaxed ordering and huge pages are accepted, and zero-based regions count from 0")
        func otherFlags() throws {
            let (a, b) = try connected()
            let access =
                Self.zeroBased | UInt32(IBV_ACCESS_RELAXED_ORDERING.rawValue) | IBV_ACCESS_HUGETLB.rawValue
            let region = try Region(b.device) { $0.reg_mr(b.domain, b.memory + 4096, 4096, 77, access) }
            a.fill(0, 8, seed: 3)
            #expect(try transfer(a, IBV_WR_RDMA_WRITE, a.sge(0, 8), at: 16, region.raw.pointee.rkey) == IBV_WC_SUCCESS)
            #expect(b.bytes(4096 + 16, 8) == a.bytes(0, 8))
        }

        // MARK: - Advice

        @Test("Advice makes pages present, and names what is wrong with an SGE")
        func advice() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            let other = try created(device.table.alloc_pd(device.context))
            let pages = try Pages()
            let onDemand = IBV_ACCESS_ON_DEMAND.rawValue
            func region(_ access: UInt32, _ domain: UnsafeMutablePointer<ibv_pd>, mapped: Int) throws -> Region {
                try Region(device) { $0.reg_mr(domain, pages.first, mapped, pages.address, access) }
            }
            do {
                let writable = try region(onDemand | IBV_ACCESS_LOCAL_WRITE.rawValue, domain, mapped: 2 * Self.page)
                let readable = try region(onDemand, domain, mapped: 2 * Self.page)
                let plain = try region(IBV_ACCESS_LOCAL_WRITE.rawValue, domain, mapped: Self.page)
                let foreign = try region(onDemand, other, mapped: Self.page)
                func advise(
                    _ region: Region?, _ advice: ib_uverbs_advise_mr_advice, offset: Int = 0, length: Int = 64,
                    flags: UInt32 = 0
                ) -> Int32 {
                    var sge = ibv_sge(
                        addr: pages.address + UInt64(offset), length: UInt32(length),
                        lkey: region?.raw.pointee.lkey ?? 0)
                    return device.table.advise_mr(domain, advice, flags, &sge, 1)
                }
                let read = IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH
                let write = IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE
                var resident: UInt8 = 1
                #expect(mincore(pages.first, 1, &resident) == 0 && resident & 1 == 0)
                #expect(advise(writable, write, flags: IB_UVERBS_ADVISE_MR_FLAG_FLUSH.rawValue) == 0)
                #expect(mincore(pages.first, 1, &resident) == 0 && resident & 1 == 1)
                #expect(advise(readable, read) == 0)
                #expect(advise(readable, write) == EPERM, "a region without local write access")
                #expect(advise(foreign, read) == EPERM, "a region of another protection domain")
                #expect(advise(nil, read) == ENOENT)
                #expect(advise(plain, read) == EINVAL, "a region without on-demand paging")
                #expect(advise(writable, read, offset: 2 * Self.page - 8) == EFAULT, "beyond the region")
                #expect(advise(writable, read, offset: Self.page) == EFAULT, "not mapped")
                #expect(advise(writable, IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, offset: Self.page) == 0)
                #expect(advise(writable, read, flags: 2) == EINVAL)
                #expect(advise(writable, ib_uverbs_advise_mr_advice(9)) == EOPNOTSUPP)
            }
            #expect(device.table.dealloc_pd(domain) == 0)
            #expect(device.table.dealloc_pd(other) == 0)
        }
    }
}
