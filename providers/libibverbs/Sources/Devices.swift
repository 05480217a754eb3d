import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// Runs `body` with the device of that name from libibverbs' device list; nil when it is not listed. The device is
/// valid until `body` returns. When it is nil, errno is that of a failed ibv_get_device_list, else 0.
private func withListedDevice<Result>(
    _ name: UnsafePointer<CChar>, _ body: (UnsafeMutablePointer<ibv_device>?) -> Result
) -> Result {
    linux_set_errno(0)
    guard let list = ibv_get_device_list(nil) else { return body(nil) }
    defer { ibv_free_device_list(list) }
    var next = list
    while let device = next.pointee {
        if isEqual(ibv_get_device_name(device), name) { return body(device) }
        next += 1
    }
    linux_set_errno(0)
    return body(nil)
}

/// Stores the reason why libibverbs does not list a device, and returns the errno value. Reads the errno that
/// `withListedDevice` has set.
private func explainAbsence(
    of device: UnsafePointer<rdma_device>, in why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    let listError = linux_errno()
    explainAbsence(of: device, listError: listError, nodeError: nodeError(of: device)).store(in: why)
    return listError == 0 || meansNoUverbs(listError) ? ENODEV : listError
}

/// Whether this is an errno of ibv_get_device_list on a kernel without ib_uverbs.
private func meansNoUverbs(_ error: Int32) -> Bool { error == ENOSYS || error == ENOENT }

/// The reason why libibverbs does not list a device.
/// - Parameters:
///   - listError: The errno of ibv_get_device_list, or 0.
///   - nodeError: The errno of opening the device's node, or 0. libibverbs omits a device without a node.
func explainAbsence(of device: UnsafePointer<rdma_device>, listError: Int32, nodeError: Int32) -> MessageText {
    if listError == 0 && nodeError == ENOENT { return explainFailure(nodeError, of: device) }
    var reason = MessageText("libibverbs ")
    if listError != 0 {
        reason.append("finds no devices at all: ")
        if meansNoUverbs(listError) {
            reason.append("is the kernel module ib_uverbs loaded?")
        } else {
            reason.append(error: listError)
        }
    } else {
        reason.append("has no C provider for ")
        reason.append(deviceName(device))
        reason.append(": install the distribution's (Debian: ibverbs-providers, Fedora: libibverbs)")
    }
    return reason
}

private func deviceName(_ device: UnsafePointer<rdma_device>) -> UnsafePointer<CChar> {
    UnsafePointer(ibv_get_device_name(device.pointee.device))
}

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    guard let device else { return EINVAL }
    guard device.pointee.kind == RDMA_DEVICE_KERNEL.rawValue else {
        MessageText("libibverbs serves devices of the kernel, this one lives in userspace").store(in: why)
        return ENODEV
    }
    return withListedDevice(deviceName(device)) { listed in
        if listed != nil { return 0 }
        return explainAbsence(of: device, in: why)
    }
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    if refusesImport(attr, why: why) { return EOPNOTSUPP }
    // libibverbs waits five seconds for udev when it cannot open the node. Here, a missing or inaccessible node fails
    // at once.
    let refusal = nodeError(of: device)
    if refusal != 0 {
        explainFailure(refusal, of: device).store(in: why)
        return refusal
    }
    return withListedDevice(deviceName(device)) { listed in
        guard let listed else {
            return explainAbsence(of: device, in: why)
        }
        // Before libibverbs makes the first queue; a later call has no effect.
        if ProviderCore.wantsForkSafety { _ = ibv_fork_init() }
        linux_set_errno(0)
        guard let context = ibv_open_device(listed) else {
            let error = linux_errno() == 0 ? EIO : linux_errno()
            explainFailure(error, of: device).store(in: why)
            return error
        }
        let expected = UInt64(device.pointee.uverbs_dev)
        guard expected == 0 || linux_device_number(context.pointee.cmd_fd) == expected else {
            _ = ibv_close_device(context)
            MessageText("another device has taken this one's name in the meantime: try again").store(in: why)
            return ENODEV
        }
        opened.pointee.flags = RDMA_CONTEXT_FOREIGN.rawValue
        opened.pointee.context = context
        opened.pointee.ops = UnsafePointer(controlTable)
        return 0
    }
}

/// The errno with which this process cannot open the device's node, or 0.
private func nodeError(of device: UnsafePointer<rdma_device>) -> Int32 {
    var node = MessageText()
    appendNode(of: device, to: &node)
    var error: Int32 = 0
    node.withCString { error = linux_check_access($0) }
    return error
}

private func appendNode(of device: UnsafePointer<rdma_device>, to message: inout MessageText) {
    message.append("/dev/infiniband/")
    withUnsafeBytes(of: &device.pointee.device.pointee.dev_name) {
        message.append($0.baseAddress?.assumingMemoryBound(to: CChar.self))
    }
}

/// The reason why a device could not be opened, with a remedy.
func explainFailure(_ error: Int32, of device: UnsafePointer<rdma_device>) -> MessageText {
    var reason = MessageText()
    switch error {
    case EACCES, EPERM:
        reason.append("no permission for ")
        appendNode(of: device, to: &reason)
        reason.append(": give this user read and write access (the udev rules of rdma-core do)")
    case ENOENT, ENXIO:
        reason.append("there is no ")
        appendNode(of: device, to: &reason)
        reason.append(": load the kernel module ib_uverbs; in a container, pass /dev/infiniband in")
    default:
        reason.append("libibverbs could not open ")
        reason.append(deviceName(device))
        reason.append(": ")
        reason.append(error: error)
        reason.append("; the kernel's log may say why")
    }
    return reason
}

private func isEqual(_ left: UnsafePointer<CChar>, _ right: UnsafePointer<CChar>) -> Bool {
    var index = 0
    while left[index] == right[index] {
        if left[index] == 0 { return true }
        index += 1
    }
    return false
}
