import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import CProviderCore
import Glibc
import KernelOps
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@Suite("rdma_kernel_ops: the node, its context, any command")
struct NodeTests {
    @Test("the table states its size, every function in it is present, and the loader gets it by a C function")
    func table() {
        let table = KernelOps.table
        #expect(rdma_core_kernel_ops() == table)
        #expect(Int(table.pointee.size) == MemoryLayout<rdma_kernel_ops>.size)
        let words = UnsafeRawPointer(table).assumingMemoryBound(to: UInt.self)
        let count = MemoryLayout<rdma_kernel_ops>.size / MemoryLayout<UInt>.size
        #expect(count >= 40 && (1..<count).allSatisfy { words[$0] != 0 })
    }

    @Test("a core without the table, one older than its field, and no core: rdma_kernel_ops_of returns NULL")
    func olderCore() {
        var core = rdma_core()
        core.kernel = KernelOps.table
        core.size = UInt32(MemoryLayout<rdma_core>.size)
        #expect(rdma_kernel_ops_of(&core) == KernelOps.table)
        core.size -= 1
        #expect(rdma_kernel_ops_of(&core) == nil)
        core.size += 1
        core.kernel = nil
        #expect(rdma_kernel_ops_of(&core) == nil)
        #expect(rdma_kernel_ops_of(nil) == nil)
    }

    @Test("get_context returns descriptors, vectors and support, by ioctl and by write(2); a second one is EINVAL")
    func context() throws {
        for probe in [ENOSPC, ENOTTY] {
            let node = try Node(probe: probe)
            #expect(node.response.cmd_fd == node.kernel.descriptor)
            #expect(node.response.async_fd == Node.asyncDescriptor && node.response.num_comp_vectors == 3)
            // A kernel that is called by write(2) reports no support.
            #expect(node.response.core_support == (probe == ENOSPC ? 1 : 0))
            var again = node.response
            #expect(node.ops.get_context(node.handle, nil, &again, nil) == EINVAL)
            #expect(node.kernel.calls.isEmpty && node.kernel.writes.isEmpty)
        }
    }

    @Test("get_context carries the driver's data, explains an error, and may be tried again with other data")
    func contextAgain() throws {
        let node = try Node(isOpen: false)
        var response = rdma_kernel_context()
        response.size = UInt32(MemoryLayout<rdma_kernel_context>.size)
        var why = emptyReason()
        node.kernel.onCall = { _ in EINVAL }
        let refused = withUdata(0x1122) { node.ops.get_context(node.handle, $0, &response, &why) }
        #expect(refused.error == EINVAL && text(why).contains("the kernel created no context"))
        #expect(node.kernel.inputs[UInt16(UVERBS_ATTR_UHW_IN)]?.load(0, as: UInt64.self) == 0x1122)

        node.kernel.answerContext()
        #expect(node.ops.get_context(node.handle, nil, &response, &why) == 0)
        var small = response
        small.size = 8
        #expect(node.ops.get_context(node.handle, nil, &small, &why) == EINVAL)
    }

    @Test("objects with events cannot be made before the context: EINVAL, and the kernel is not called")
    func tooEarly() throws {
        let node = try Node(isOpen: false)
        let context = rdma_init_context(node.verbs, node.device.pointer.pointee.device, -1, -1, 1)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 1
        #expect(node.ops.create_cq(node.handle, node.object(ibv_cq.self), context, &attr, nil) == EINVAL)
        #expect(node.kernel.calls.isEmpty)
    }

    @Test("open_node refuses a software device, another ABI of uverbs, a missing node, and a file that is not the node")
    func refusedNodes() throws {
        let ops = KernelOps.table.pointee
        let test = TestDevice("rxe0", node: "uverbs-that-is-not-there")
        var opened: OpaquePointer?
        func open(_ change: (inout rdma_device) -> Void, fd: Int32 = -1) -> (Int32, String) {
            var device = test.pointer.pointee
            change(&device)
            var attr = rdma_open_attr()
            attr.size = UInt32(MemoryLayout<rdma_open_attr>.size)
            attr.cmd_fd = fd
            var why = emptyReason()
            let error = ops.open_node(&device, &attr, RDMA_DRIVER_RXE.rawValue, &opened, &why)
            return (error, text(why))
        }
        let software = open { $0.kind = RDMA_DEVICE_SOFTWARE.rawValue }
        #expect(software.0 == ENODEV && software.1.contains("no uverbs node"))
        let newer = open { $0.uverbs_abi = 7 }
        #expect(newer.0 == ENODEV && newer.1.contains("ABI version 7") && newer.1.contains("RDMA_PROVIDER"))
        let missing = open { _ in }
        #expect(missing.0 == ENOENT && missing.1.contains("uverbs-that-is-not-there"))
        let memory = linux_memory_file("uverbs")
        let file = open({ _ in }, fd: memory)
        #expect(file.0 == ENXIO && file.1.contains("not the uverbs node of this device"))
        #expect(fcntl(memory, F_GETFD) >= 0, "a descriptor that was refused still belongs to the caller")
        close(memory)
        let closed = open({ _ in }, fd: memory)
        #expect(closed.0 == EBADF && closed.1.contains("cannot be imported"))
        #expect(opened == nil)
        #expect(ops.open_node(nil, nil, 0, &opened, nil) == EINVAL)
    }

    @Test("an imported descriptor is queried, not given a context; close_node closes it only after that has succeeded")
    func imported() throws {
        for error in [EOPNOTSUPP, 0] {
            let kernel = FakeKernel(mapping: 4096)
            let device = TestDevice("mlx5_0")
            let handle = OpenNode(
                kernel: kernel.open(driver: RDMA_DRIVER_MLX5), device: device.pointer.pointee.device, isImported: true
            ).makeHandle()
            var methods: [UInt32] = []
            kernel.onCall = { call in
                methods.append(call.object << 16 | call.method)
                if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                    call.attributes[0].set(UInt64(Node.asyncDescriptor))
                    return 0
                }
                call.attribute(UVERBS_ATTR_QUERY_CONTEXT_NUM_COMP_VECTORS.rawValue)!.respond(7 as UInt32)
                return error
            }
            var response = rdma_kernel_context()
            response.size = UInt32(MemoryLayout<rdma_kernel_context>.size)
            var why = emptyReason()
            let refused = withUdata(1) { KernelOps.table.pointee.get_context(handle, $0, &response, &why) }
            #expect(refused.error == EINVAL && methods.isEmpty, "QUERY_CONTEXT has no request of the driver")
            #expect(KernelOps.table.pointee.get_context(handle, nil, &response, &why) == error)
            #expect(methods.first == UVERBS_METHOD_QUERY_CONTEXT.rawValue)
            #expect(error == 0 ? response.num_comp_vectors == 7 : text(why).contains("QUERY_CONTEXT"))
            KernelOps.table.pointee.close_node(handle)
            #expect((fcntl(kernel.descriptor, F_GETFD) < 0) == (error == 0))
            if error != 0 { close(kernel.descriptor) }
        }
    }

    @Test("map maps the node at an offset with the given protection; its errors are those of mmap(2)")
    func mapping() throws {
        let node = try Node(mapping: 8192)
        let both = try #require(node.ops.map(node.handle, 4096, 4096, PROT_READ | PROT_WRITE))
        both.storeBytes(of: 0x77, as: UInt8.self)
        let second = try #require(node.ops.map(node.handle, 4096, 4096, PROT_READ))
        #expect(second.load(as: UInt8.self) == 0x77)
        node.ops.unmap(second, 4096)
        node.ops.unmap(both, 4096)
        node.ops.unmap(nil, 0)
        for (offset, length, protection) in [(1, 4096, PROT_READ), (0, 0, PROT_READ), (0, 4096, PROT_EXEC)] {
            errno = 0
            #expect(node.ops.map(node.handle, UInt64(offset), length, Int32(protection)) == nil && errno == EINVAL)
        }
        let fake = try Node()
        #expect(fake.ops.map(fake.handle, 0, 4096, PROT_READ) == nil && errno == EBADF)
    }

    // MARK: - Any command

    @Test("execute_ioctl passes header and attributes unchanged, and writes back handles and descriptors")
    func ioctl() throws {
        let node = try Node()
        var attributes = [ib_uverbs_attr](repeating: ib_uverbs_attr(), count: 30)
        for index in attributes.indices {
            attributes[index].attr_id = UInt16(index)
            attributes[index].len = 8
            attributes[index].flags = 1
            attributes[index].data = UInt64(100 + index)
        }
        node.kernel.onCall = { call in
            call.attribute(29)!.set(4711)
            return 0
        }
        #expect(node.ops.execute_ioctl(node.handle, 0x1005, 3, &attributes, 30) == 0)
        let call = try #require(node.kernel.calls.last)
        #expect(call.header.length == 24 + 16 * 30 && call.object == 0x1005 && call.method == 3)
        #expect(call.header.driver_id == RDMA_DRIVER_RXE.rawValue)
        #expect(call.attributes.map(\.id) == (0..<30).map { UInt16($0) })
        #expect(call.attributes.allSatisfy { $0.length == 8 && $0.flags == 1 && $0.data == 100 + UInt64($0.id) })
        #expect(attributes[29].data == 4711 && attributes[28].data == 128)

        for missing in [ENOTTY, EPROTONOSUPPORT] {
            node.kernel.onCall = { _ in missing }
            #expect(node.ops.execute_ioctl(node.handle, 1, 2, &attributes, 1) == EOPNOTSUPP)
        }
        node.kernel.onCall = { _ in EBUSY }
        #expect(node.ops.execute_ioctl(node.handle, 1, 2, nil, 0) == EBUSY)
        let count = node.kernel.calls.count
        #expect(node.ops.execute_ioctl(node.handle, 1, 2, nil, 1) == EINVAL)
        #expect(node.ops.execute_ioctl(node.handle, 1, 2, &attributes, 4095) == EINVAL)
        #expect(node.kernel.calls.count == count)
    }

    @Test("execute_write: plain and extended commands, by ioctl and by write(2), with data of the driver")
    func write() throws {
        for probe in [ENOSPC, ENOTTY] {
            let node = try Node(probe: probe)
            node.kernel.answer([11, 12], driver: 0xFEED)
            var request = [UInt32](repeating: 7, count: 6)
            var response = [UInt32](repeating: 0, count: 2)
            let plain = withUdata(0xABCD) {
                node.ops.execute_write(node.handle, 3, &request, 24, &response, 8, $0)
            }
            #expect(plain.error == 0 && plain.output == 0xFEED && response == [11, 12])
            if probe == ENOTTY {
                let command = try #require(node.kernel.writes.last)
                #expect(command.count == 40 && command.load(0, as: UInt32.self) == 3)
                #expect(command.load(4, as: UInt16.self) == 10 && command.load(6, as: UInt16.self) == 4)
                #expect(command.load(16, as: UInt32.self) == 7 && command.load(32, as: UInt64.self) == 0xABCD)
            } else {
                #expect(node.kernel.calls.last?.command == 3)
                #expect(node.kernel.inputs[UInt16(UVERBS_ATTR_CORE_IN.rawValue)]?.count == 24)
                #expect(node.kernel.inputs[UInt16(UVERBS_ATTR_UHW_IN)]?.load(0, as: UInt64.self) == 0xABCD)
            }
            // Longer than any command of the core: the driver's request has 4 KiB.
            let long = zeroed(4096)
            var udata = rdma_udata_of(long, 4096, nil, 0)
            let extended = UInt32(IB_USER_VERBS_CMD_FLAG_EXTENDED) | 12
            #expect(node.ops.execute_write(node.handle, extended, &request, 24, nil, 0, &udata) == 0)
            if probe == ENOTTY { #expect(node.kernel.writes.last?.count == 8 + 16 + 24 + 4096) }
        }
    }

    @Test("bad arguments of execute_write and of private data are EINVAL, and the kernel is not called")
    func badArguments() throws {
        for probe in [ENOSPC, ENOTTY] {
            let node = try Node(probe: probe)
            let (ops, handle) = (node.ops, node.handle)
            let memory = zeroed(1 << 17)
            #expect(ops.execute_write(nil, 3, memory, 8, nil, 0, nil) == EINVAL)
            #expect(ops.execute_write(handle, 3, nil, 8, nil, 0, nil) == EINVAL)
            #expect(ops.execute_write(handle, 3, memory, 8, nil, 8, nil) == EINVAL)
            #expect(ops.execute_write(handle, 3, memory, 0, nil, 0, nil) == EINVAL)
            #expect(ops.execute_write(handle, 3, memory, 6, nil, 0, nil) == EINVAL)
            #expect(ops.execute_write(handle, 3, memory, 1 << 16, nil, 0, nil) == EINVAL)
            // A plain command begins with the address of its response.
            #expect(ops.execute_write(handle, 3, memory, 4, memory, 8, nil) == EINVAL)
            #expect(ops.execute_write(handle, 64, memory, 8, nil, 0, nil) == EOPNOTSUPP)
            #expect(ops.execute_write(handle, 1 << 30 | 3, memory, 8, nil, 0, nil) == EOPNOTSUPP)
            for change: (inout rdma_udata) -> Void in [
                { $0.size = 8 }, { $0.in_len = 6 }, { $0.in_len = 1 << 16 }, { $0.out_len = 2 },
                { $0.in = nil }, { $0.out = nil },
            ] {
                var udata = rdma_udata_of(memory, 8, memory, 8)
                change(&udata)
                #expect(ops.execute_write(handle, 3, memory, 8, nil, 0, &udata) == EINVAL)
                #expect(ops.alloc_pd(handle, node.object(ibv_pd.self), node.context, &udata) == EINVAL)
            }
            #expect(node.kernel.calls.isEmpty && node.kernel.writes.isEmpty)
        }
        // By write(2), an extended command has sizes in units of 8 bytes.
        let node = try Node(probe: ENOTTY)
        let extended = UInt32(IB_USER_VERBS_CMD_FLAG_EXTENDED) | 12
        #expect(node.ops.execute_write(node.handle, extended, zeroed(16), 12, nil, 0, nil) == EINVAL)
        #expect(node.kernel.writes.isEmpty)
    }
}
