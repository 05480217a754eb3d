import CIBVerbs
import CKernelABI
import CProviderABI
import KernelVerbs

/// The devices that this provider serves, and the versions of rdma_rxe's ABI (RXE_UVERBS_ABI_VERSION) that it supports
/// (`kernel-abi` in rxe.driver).
let rxe = NativeProvider(name: "rxe", driver: RDMA_DRIVER_RXE, module: "rdma_rxe", kernelVersions: 2...2)

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    rxe.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    rxe.open(device, attr, opened, why: why, table: UnsafePointer(controlTable)) { fillDataPath(&$0) }
}
