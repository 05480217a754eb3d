import RDMANetlink

/// The driver IDs (`enum rdma_driver_id`) by device name, from the kernel's RDMA netlink.
///
/// Empty for a kernel without RDMA, and where netlink is not permitted. The driver is then inferred from sysfs
/// (`KernelDriver.id(of:)`).
func kernelDriverIDs() -> [String: UInt32] {
    var numbers: [String: UInt32] = [:]
    do throws(NetlinkError) {
        let kernel = try KernelRDMA()
        for device in try kernel.devices() {
            // A device without a uverbs node has no driver ID, and no provider can open it.
            numbers[device.name] = try? kernel.characterDevice(.verbs, of: device).driverID
        }
    } catch {
        return numbers
    }
    return numbers
}
