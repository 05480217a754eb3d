import CIBVerbs
import CKernelABI
import CProviderABI
import KernelVerbs

/// Which devices this provider serves, and on which kernels: versions of rdma_rxe's ABI as RXE_UVERBS_ABI_VERSION of the
/// kernel (the window in rxe.driver).
let rxe = NativeProvider(name: "rxe", driver: RDMA_DRIVER_RXE, module: "rdma_rxe", kernelVersions: 2...2)

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    rxe.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, opened: UnsafeMutablePointer<rdma_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    rxe.open(device, opened, why: why, table: UnsafePointer(controlTable)) { fillDataPath(&$0) }
}
