import CIBVerbs
import CKernelABI
import CProviderABI
import KernelVerbs

/// The devices that this provider serves, and the versions of rdmavt's ABI (RVT_UVERBS_ABI_VERSION) that it supports
/// (`kernel-abi` in hfi1.driver). Version 1, of 2016, has no mapped queues.
let hfi1 = NativeProvider(name: "hfi1", driver: RDMA_DRIVER_HFI1, module: "hfi1", kernelVersions: 2...2)

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    hfi1.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    hfi1.open(device, attr, opened, why: why, table: UnsafePointer(controlTable)) { fillDataPath(&$0) }
}
