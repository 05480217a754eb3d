import CIBVerbs
import CKernelABI
import CProviderABI
import KernelVerbs

/// Which devices this provider serves, and on which kernels: versions of rdmavt's ABI, as RVT_UVERBS_ABI_VERSION of the
/// kernel (the window in hfi1.driver). Version 1, of 2016, maps no queues.
let hfi1 = NativeProvider(name: "hfi1", driver: RDMA_DRIVER_HFI1, module: "hfi1", kernelVersions: 2...2)

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    hfi1.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, opened: UnsafeMutablePointer<rdma_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    hfi1.open(device, opened, why: why, table: UnsafePointer(controlTable)) { fillDataPath(&$0) }
}
