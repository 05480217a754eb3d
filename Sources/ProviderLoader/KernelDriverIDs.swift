import RDMANetlink

/// The kernel's driver numbers (`enum rdma_driver_id`) by device name, as its netlink tells them.
///
/// Empty where it tells none: a kernel without RDMA, or a process that may not ask. What sysfs shows of a device then
/// decides.
func kernelDriverIDs() -> [String: UInt32] {
    var numbers: [String: UInt32] = [:]
    do throws(NetlinkError) {
        let kernel = try KernelRDMA()
        for device in try kernel.devices() {
            // A device without a verbs node has no driver number, nor a user here.
            numbers[device.name] = try? kernel.characterDevice(.verbs, of: device).driverID
        }
    } catch {
        return numbers
    }
    return numbers
}
