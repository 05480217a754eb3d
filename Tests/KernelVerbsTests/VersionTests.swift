import CIBVerbs
import CKernelABI
import Glibc
import CProviderABI
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@testable import RxeProvider

/// The reason that a function stores.
private func reason(_ body: (UnsafeMutablePointer<rdma_reason>) -> Void) -> String {
    var reason = rdma_reason()
    reason.size = UInt32(MemoryLayout<rdma_reason>.size)
    body(&reason)
    return withUnsafeBytes(of: reason.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

@Suite("KernelVerbs: ABI versions of the kernel")
struct VersionTests {
    /// Probes a device of rdma_rxe on a kernel with these ABI versions.
    private func probe(driver: UInt32 = 2, uverbs: UInt32 = 6) -> (Int32, String) {
        let test = TestDevice("rxe0")
        var device = test.pointer.pointee
        device.driver_id = RDMA_DRIVER_RXE.rawValue
        device.kernel_abi = driver
        device.uverbs_abi = uverbs
        var result: Int32 = 0
        let text = reason { result = probeDevice(device: &device, why: $0) }
        withExtendedLifetime(test) {}
        return (result, text)
    }

    @Test("the supported versions are served")
    func served() {
        #expect(probe() == (0, ""))
    }

    @Test("a newer or older driver ABI is refused; the reason has the range and a remedy")
    func driver() {
        #expect(
            probe(driver: 3)
                == (
                    ENODEV,
                    "the kernel's rxe has ABI version 3; provider rxe serves 2: update the provider, or use the "
                        + "distribution's library with RDMA_PROVIDER=libibverbs"
                ))
        #expect(
            probe(driver: 1)
                == (
                    ENODEV,
                    "the kernel's rxe has ABI version 1; provider rxe serves 2: update the kernel, or use the "
                        + "distribution's library with RDMA_PROVIDER=libibverbs"
                ))
    }

    @Test("a newer or older uverbs ABI is refused; the reason has the range and a remedy")
    func uverbs() {
        #expect(
            probe(uverbs: 7)
                == (
                    ENODEV,
                    "the kernel's uverbs has ABI version 7; provider rxe serves 6: update the provider, or use the "
                        + "distribution's library with RDMA_PROVIDER=libibverbs"
                ))
        #expect(probe(uverbs: 5).1.contains("serves 6: update the kernel"))
        let test = TestDevice("any")
        #expect(
            reason {
                _ = KernelABI.isServed(test.pointer, provider: "other", supported: 2...4, why: $0)
            }.contains("has ABI version 1; provider other serves 2 to 4: update the kernel"))
    }

    @Test("a device of another driver is not served")
    func otherDriver() {
        let test = TestDevice("mlx5_0")
        var device = test.pointer.pointee
        device.driver_id = RDMA_DRIVER_MLX5.rawValue
        device.kernel_abi = 2
        var result: Int32 = 0
        let text = reason { result = probeDevice(device: &device, why: $0) }
        #expect(result == ENODEV && text.contains("rdma_rxe only"))
        withExtendedLifetime(test) {}
    }

    @Test("for a missing device node, the reason has its path and a remedy")
    func noNode() {
        let device = TestDevice("rxe0", node: "uverbs-of-nothing")
        let text = reason { why in
            #expect(throws: KernelError(rawValue: ENOENT)) {
                _ = try KernelDevice(opening: device.pointer, driver: RDMA_DRIVER_RXE, why: why)
            }
        }
        #expect(text.hasPrefix("cannot open /dev/infiniband/uverbs-of-nothing: no such file; load the kernel"))
    }
}

@Suite("rxe: responses of the kernel without driver data")
struct ShortResponseTests {
    /// Calls `body` with a context on this kernel, and closes it.
    private func open(_ kernel: FakeKernel, _ body: (UnsafeMutablePointer<ibv_context>) throws -> Void) rethrows {
        let test = TestDevice("rxe0")
        let context = NativeContextPointer.allocate(capacity: 1)
        let opened = KernelContext(asyncDescriptor: 0x5000_0001, completionVectors: 1, takesOptionalAccess: true)
        context.initialize(to: NativeContext(kernel: kernel.open(), opened: opened))
        let verbs = context.initialize(test.pointer.pointee.device)
        try body(verbs)
        #expect(closeNativeContext(context: verbs) == 0)
        withExtendedLifetime(test) {}
    }

    @Test("if a completion queue cannot be mapped, it is destroyed; without an mmap offset the error is EPROTO")
    func noQueue() throws {
        let kernel = FakeKernel()
        open(kernel) { context in
            kernel.onCall = { call in
                if call.object == UVERBS_OBJECT_CQ.rawValue, call.method == UVERBS_METHOD_CQ_CREATE.rawValue {
                    call.attributes[0].set(21)
                }
                return 0
            }
            errno = 0
            #expect(
                createCompletionQueue(context: context, cqe: 4, cqContext: nil, channel: nil, vector: 0) == nil)
            #expect(errno == EPROTO)
            #expect(kernel.calls.map(\.method) == [0, 1] && kernel.calls.last?.attributes[0].data == 21)

            // mmap(2) fails with EBADF.
            kernel.onCall = { call in
                let mmapInfo = mminfo(offset: 0, size: 4096, pad: 0)
                call.attribute(UVERBS_ATTR_UHW_OUT)?.respond(rxe_create_cq_resp(mi: mmapInfo))
                return 0
            }
            #expect(
                createCompletionQueue(context: context, cqe: 4, cqContext: nil, channel: nil, vector: 0) == nil)
            #expect(errno == EBADF)
            #expect(kernel.calls.last?.method == UVERBS_METHOD_CQ_DESTROY.rawValue)
        }
    }

    @Test("an address handle without ah_num is destroyed, and the error is EOPNOTSUPP")
    func noNumber() throws {
        let kernel = FakeKernel()
        open(kernel) { context in
            let domain = controlTable.pointee.alloc_pd(context)!
            var attributes = ibv_ah_attr()
            #expect(createAddressHandle(pd: domain, attr: &attributes) == nil)
            #expect(errno == EOPNOTSUPP)
            #expect(kernel.calls.last?.object == UVERBS_OBJECT_AH.rawValue)
            #expect(controlTable.pointee.dealloc_pd(domain) == 0)
        }
    }
}
