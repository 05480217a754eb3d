import CIBVerbs
import Glibc
import KernelVerbs
import Testing
import Verbs

extension Guest {
    /// Debian's kernel accepts commands by ioctl and by write(2); kernels before 5.0 need write(2) for all or most.
    @Suite("KernelVerbs: the commands of uverbs, by ioctl and by write(2)")
    struct KernelCommandsTests {
        /// `struct mminfo` of <rdma/rdma_user_rxe.h>: the offset and size for mmap(2) of a queue.
        private struct Mapping: BitwiseCopyable {
            var offset: UInt64 = 0
            var size: UInt32 = 0
            var pad: UInt32 = 0
        }

        /// The system calls of a kernel before 4.20 (no ioctl), and of one from 4.20 to 5.0 (ioctl methods only).
        private static let olderKernels = [
            SystemCalls(ioctl: { _, _ in ENOTTY }, write: SystemCalls.kernel.write),
            SystemCalls(
                ioctl: { descriptor, call in
                    // struct ib_uverbs_ioctl_hdr: the numbers of object and method; both are 0 for a command as a
                    // struct.
                    let isStruct = call!.loadUnaligned(fromByteOffset: 2, as: UInt32.self) == 0
                    return isStruct ? EPROTONOSUPPORT : SystemCalls.kernel.ioctl(descriptor, call)
                }, write: SystemCalls.kernel.write),
        ]

        @Test("the kernel's responses are the same by ioctl and by write(2)")
        func responses() async throws {
            try await Bench.run { _ in
                let results = ([.kernel] + Self.olderKernels).map { calls in
                    var results: [String] = []
                    do { try Self.runCommands(calls, &results) } catch { Issue.record("\(error), after \(results)") }
                    return results
                }
                #expect(results[1] == results[0] && results[2] == results[0])
                #expect(!results[0].contains("not refused"))
            }
        }

        /// Creates, modifies, queries and destroys one object of each type, and appends those values of the kernel's
        /// responses that are the same in every run.
        private static func runCommands(_ calls: SystemCalls, _ results: inout [String]) throws {
            let descriptor = open("/dev/infiniband/uverbs0", O_RDWR | O_CLOEXEC)
            try #require(descriptor >= 0)
            let device = KernelDevice(descriptor: descriptor, driver: .init(14), calls: calls)
            let context = try device.getContext()
            defer { close(context.asyncDescriptor) }
            results.append("\(context.completionVectors) vectors")
            var attributes = ibv_device_attr_ex()
            results.append("\(try device.queryDevice(&attributes)) \(attributes)")
            results.append("\(try device.queryPort(1))")

            let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
            defer { memory.deallocate() }
            let domain = try device.allocateDomain()
            let access = IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_MW_BIND.rawValue
            let region = try device.registerMemory(
                domain: domain, address: memory, length: 4096, virtualAddress: UInt64(UInt(bitPattern: memory)),
                access: access)
            let window = try device.allocateWindow(domain: domain, type: IBV_MW_TYPE_2)
            #expect(region.lkey != 0 && window.rkey != 0)

            let channel = try device.createChannel()
            defer { close(channel) }
            var queueRequest = CompletionQueueRequest(
                userHandle: memory, entries: 10, asyncDescriptor: context.asyncDescriptor)
            queueRequest.channel = channel
            var queueResponse = Mapping()
            let queue = try DriverData.response(&queueResponse) { driver throws(KernelError) in
                try device.createCompletionQueue(queueRequest, driver: driver)
            }
            var resizeResponse = Mapping()
            let resized = try DriverData.response(&resizeResponse) { driver throws(KernelError) in
                try device.resizeCompletionQueue(queue.handle, entries: 30, driver: driver)
            }
            let armed = device.requestNotification(queue.handle, solicitedOnly: false)
            results.append("\(queue.entries), then \(resized) entries in \(queueResponse.size) bytes; \(armed)")

            var limits = ibv_srq_attr(max_wr: 20, max_sge: 2, srq_limit: 0)
            var sharedResponse = (Mapping(), number: UInt64(0))
            let shared = try DriverData.response(&sharedResponse) { driver throws(KernelError) in
                try device.createSharedReceiveQueue(
                    domain: domain, userHandle: memory, limits: limits, asyncDescriptor: context.asyncDescriptor,
                    driver: driver)
            }
            results.append("\(shared.maxWR) \(shared.maxSGE) in \(sharedResponse.0.size) bytes")
            limits.srq_limit = 3
            var nothing: UInt64 = 0
            try DriverData.exchange(nothing, &nothing) { driver throws(KernelError) in
                try device.modifySharedReceiveQueue(
                    shared.handle, limits, mask: IBV_SRQ_LIMIT.rawValue, driver: driver)
            }
            results.append("\(try device.querySharedReceiveQueue(shared.handle))")

            let kind = ibv_qp_type(rawValue: QueuePairType.unreliableDatagram.rawValue)
            var pairRequest = QueuePairRequest(
                userHandle: memory, type: kind, domain: domain, sendCompletions: queue.handle,
                receiveCompletions: queue.handle,
                limits: ibv_qp_cap(
                    max_send_wr: 5, max_recv_wr: 0, max_send_sge: 2, max_recv_sge: 0, max_inline_data: 16),
                signalsAll: true, asyncDescriptor: context.asyncDescriptor)
            pairRequest.sharedReceiveQueue = shared.handle
            var pairResponse = (Mapping(), Mapping())
            let pair = try DriverData.response(&pairResponse) { driver throws(KernelError) in
                try device.createQueuePair(pairRequest, driver: driver)
            }
            var state = ibv_qp_attr()
            (state.qp_state, state.port_num, state.qkey) = (IBV_QPS_INIT, 1, 0x1234)
            try device.modifyQueuePair(
                pair.handle, state,
                mask: IBV_QP_STATE.rawValue | IBV_QP_PKEY_INDEX.rawValue | IBV_QP_PORT.rawValue | IBV_QP_QKEY.rawValue)
            let found = try device.queryQueuePair(pair.handle, mask: IBV_QP_STATE.rawValue | IBV_QP_QKEY.rawValue)
            results.append("\(pair.limits) \(found.attributes.qp_state) \(found.attributes.qkey) \(found.signalsAll)")

            func mapped(_ bytes: UInt8...) -> ibv_gid {
                var gid = ibv_gid()
                let prefix = [UInt8](repeating: 0, count: 10) + [255, 255]
                withUnsafeMutableBytes(of: &gid) { $0.copyBytes(from: prefix + bytes) }
                return gid
            }
            var address = ibv_ah_attr()
            (address.is_global, address.port_num) = (1, 1)
            (address.grh.dgid, address.grh.sgid_index, address.grh.hop_limit) = (mapped(10, 9, 0, 2), 1, 64)
            var addressResponse = UInt64(0)
            let handle = try DriverData.response(&addressResponse) { driver throws(KernelError) in
                try device.createAddressHandle(domain: domain, address, driver: driver)
            }
            let group = mapped(239, 77, 3, 1)
            try device.attachMulticast(queuePair: pair.handle, gid: group, lid: 0)
            try device.detachMulticast(queuePair: pair.handle, gid: group, lid: 0)

            // The errors for an object that does not exist and for one in use are the same too.
            results.append(refusal { () throws(KernelError) in try device.deallocateDomain(domain) })
            results.append(refusal { () throws(KernelError) in try device.deregisterMemory(region.handle &+ 1000) })
            results.append(refusal { () throws(KernelError) in _ = try device.destroyCompletionQueue(queue.handle) })
            try device.destroyAddressHandle(handle)
            results.append("\(String(describing: try device.destroyQueuePair(pair.handle))) events")
            results.append("\(String(describing: try device.destroySharedReceiveQueue(shared.handle))) events")
            let events = try #require(try device.destroyCompletionQueue(queue.handle))
            results.append("\(events.completions), \(events.asynchronous) events")
            try device.deallocateWindow(window.handle)
            try device.deregisterMemory(region.handle)
            try device.deallocateDomain(domain)
        }

        private static func refusal(_ body: () throws(KernelError) -> Void) -> String {
            do throws(KernelError) {
                try body()
                return "not refused"
            } catch {
                return "\(error)"
            }
        }
    }
}
