import CIBVerbs
import CKernelABI
import Glibc
import CProviderABI
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

@testable import RxeProvider

/// What a function writes as its reason.
private func reason(_ body: (UnsafeMutablePointer<rdma_reason>) -> Void) -> String {
    var reason = rdma_reason()
    reason.size = UInt32(MemoryLayout<rdma_reason>.size)
    body(&reason)
    return withUnsafeBytes(of: reason.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

@Suite("KernelVerbs: kernels of another ABI")
struct VersionTests {
    /// A device of rdma_rxe, on a kernel of those versions.
    private func probe(driver: UInt32 = 2, uverbs: UInt32 = 6) -> (Int32, String) {
        let test = TestDevice("rxe0")
        var device = test.pointer.pointee
        device.driver_id = RDMA_DRIVER_RXE.rawValue
        device.kernel_abi = driver
        device.uverbs_abi = uverbs
        var answer: Int32 = 0
        let text = reason { answer = probeDevice(device: &device, why: $0) }
        withExtendedLifetime(test) {}
        return (answer, text)
    }

    @Test("the versions that are known are served")
    func served() {
        #expect(probe() == (0, ""))
    }

    @Test("a newer or older driver is refused, with the range and what to try")
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

    @Test("newer or older uverbs are refused, with the range and what to try")
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
        var answer: Int32 = 0
        let text = reason { answer = probeDevice(device: &device, why: $0) }
        #expect(answer == ENODEV && text.contains("rdma_rxe only"))
        withExtendedLifetime(test) {}
    }

    @Test("a node that is not there is named, with what to try")
    func noNode() {
        let device = TestDevice("rxe0", node: "uverbs-of-nothing")
        let text = reason { why in
            #expect(throws: KernelError(rawValue: ENOENT)) {
                _ = try KernelDevice(opening: device.pointer, driver: RDMA_DRIVER_RXE, why: why)
            }
        }
        #expect(text.hasPrefix("cannot open /dev/infiniband/uverbs-of-nothing: there is no such file; load ib_uverbs"))
    }
}

@Suite("rxe: a kernel that answers too little")
struct ShortAnswerTests {
    /// A context on such a kernel.
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

    @Test("no queue to map: the object that was made is destroyed again, and the error says EPROTO")
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

            // A queue that the node does not have.
            kernel.onCall = { call in
                let offer = mminfo(offset: 0, size: 4096, pad: 0)
                call.attribute(UVERBS_ATTR_UHW_OUT)?.answer(rxe_create_cq_resp(mi: offer))
                return 0
            }
            #expect(
                createCompletionQueue(context: context, cqe: 4, cqContext: nil, channel: nil, vector: 0) == nil)
            #expect(errno == EBADF)
            #expect(kernel.calls.last?.method == UVERBS_METHOD_CQ_DESTROY.rawValue)
        }
    }

    @Test("an address handle without a number is given back: EOPNOTSUPP")
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
