import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// Lists the devices of this host: `soft0` on the loopback interface, and `soft_<interface>` for every interface that
/// `RDMA_SOFT_INTERFACES` names, separated by commas. An interface that does not exist is left out, with a warning.
/// When no interface can be read, it returns the errno value.
///
/// The device of every other interface that is up and has an address is listed as on request only, because an open
/// device receives packets from the network.
func listDevices(
    devices: UnsafeMutablePointer<rdma_software_device>?, stride: Int, capacity: UInt32,
    count: UnsafeMutablePointer<UInt32>?
) -> Int32 {
    guard let count else { return EINVAL }
    var list = DeviceList(devices: devices, stride: stride, capacity: capacity)
    list.add(interface: ("lo" as StaticString).cString, isAskedFor: false)
    var names = NameList(linux_getenv("RDMA_SOFT_INTERFACES"))
    while let name = names.next() {
        withUnsafeBytes(of: name) { bytes in
            list.add(interface: bytes.baseAddress!.assumingMemoryBound(to: CChar.self), isAskedFor: true)
        }
    }
    list.addOnRequest()
    count.pointee = list.count
    return list.conclude()
}

/// Checks that a device is one that soft lists: a software device on an interface that exists.
func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    guard let device, device.pointee.kind == RDMA_DEVICE_SOFTWARE.rawValue else {
        MessageText("soft serves software devices only; use the provider of the kernel's driver").store(in: why)
        return ENODEV
    }
    guard let name = device.pointee.interface, name.pointee != 0 else {
        MessageText("the device names no network interface").store(in: why)
        return ENODEV
    }
    var interface = linux_interface()
    let error = linux_find_interface(name, &interface)
    if error != 0 { explainAbsence(of: name, error).store(in: why) }
    return error
}

/// The reason why there is no device on a network interface: it does not exist, or it cannot be read.
func explainAbsence(of interface: UnsafePointer<CChar>, _ error: Int32) -> MessageText {
    if error == ENODEV {
        var reason = MessageText("there is no network interface ")
        reason.append(interface)
        reason.append(": see `ip link`, and RDMA_SOFT_INTERFACES")
        return reason
    }
    var reason = MessageText("the kernel does not report the network interface ")
    reason.append(interface)
    reason.append(" (socket(2), netdevice(7)): ")
    reason.append(error: error)
    return reason
}

/// Writes devices to the core's array, one for each interface.
private struct DeviceList {
    let devices: UnsafeMutablePointer<rdma_software_device>?
    let stride: Int
    let capacity: UInt32
    private(set) var count: UInt32 = 0
    /// The errno value of the last interface that could not be read; 0: all were read.
    private var obstacle: Int32 = 0

    init(devices: UnsafeMutablePointer<rdma_software_device>?, stride: Int, capacity: UInt32) {
        self.devices = devices
        self.stride = stride
        self.capacity = capacity
    }

    /// - Parameter isAskedFor: Whether RDMA_SOFT_INTERFACES contains it.
    mutating func add(interface name: UnsafePointer<CChar>, isAskedFor: Bool) {
        var interface = linux_interface()
        let error = linux_find_interface(name, &interface)
        guard error == 0 else {
            if error == ENODEV && isAskedFor {
                var warning = MessageText("RDMA_SOFT_INTERFACES names ")
                warning.append(name)
                warning.append(", which is not an interface of this host: see `ip link`")
                warning.log(RDMA_LOG_WARNING)
            } else if error != ENODEV {
                obstacle = error
            }
            return
        }
        add(interface, isLoopback: count == 0, flags: 0)
    }

    /// Adds every interface that is up and has an address and is not in the list yet.
    mutating func addOnRequest() {
        let known = Int(linux_interface_addresses(nil, 0))
        if known < 0 { obstacle = Int32(-known) }
        guard known > 0 else { return }
        let addresses = UnsafeMutablePointer<linux_interface_address>.allocate(capacity: known)
        defer { addresses.deallocate() }
        for index in 0..<min(known, Int(linux_interface_addresses(addresses, Int32(known)))) {
            var name = linux_interface().name
            var interface = linux_interface()
            let error = withUnsafeMutableBytes(of: &name) { bytes in
                let name = bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
                let error = linux_interface_name(addresses[index].index, name)
                return error == 0 ? linux_find_interface(name, &interface) : error
            }
            // An interface that was removed meanwhile is left out.
            guard error == 0, interface.up, !isLoopback(addresses[index]) else { continue }
            add(interface, isLoopback: false, flags: RDMA_SOFTWARE_DEVICE_ON_REQUEST.rawValue)
        }
    }

    /// Whether it is ::1 or in 127.0.0.0/8, which are addresses of `lo`.
    private func isLoopback(_ address: linux_interface_address) -> Bool {
        let gid = address.gid
        return gid.10 & gid.11 == 0xFF ? gid.12 == 127 : gid.0 == 0 && gid.15 == 1
    }

    private mutating func add(_ interface: linux_interface, isLoopback: Bool, flags: UInt32) {
        guard !contains(interface.index) else { return }
        var device = rdma_software_device()
        fill(&device, interface, isLoopback: isLoopback)
        device.flags = flags
        rdma_add_software_device(devices, stride, capacity, &count, &device)
    }

    /// The result of listing: 0, or, where there is no device because the interfaces cannot be read, the errno value,
    /// explained. Where there are other devices, the error is logged as a warning.
    func conclude() -> Int32 {
        if obstacle == 0 { return 0 }
        var reason = MessageText("the kernel does not report network interfaces (socket(2), netdevice(7)): ")
        reason.append(error: obstacle)
        if count == 0 { return reason.refusal(obstacle) }
        reason.log(RDMA_LOG_WARNING)
        return 0
    }

    private func slot(_ index: UInt32) -> UnsafeMutablePointer<rdma_software_device>? {
        guard let devices, index < capacity else { return nil }
        return (UnsafeMutableRawPointer(devices) + Int(index) * stride)
            .assumingMemoryBound(to: rdma_software_device.self)
    }

    private func contains(_ ifindex: UInt32) -> Bool {
        for index in 0..<count {
            if let device = slot(index), device.pointee.ifindex == ifindex { return true }
        }
        return false
    }

    private func fill(
        _ device: inout rdma_software_device, _ interface: linux_interface, isLoopback: Bool
    ) {
        withUnsafeMutableBytes(of: &device.name) { name in
            if isLoopback {
                copy("soft0", to: name)
            } else {
                copy("soft_", to: name)
                withUnsafeBytes(of: interface.name) { source in
                    for index in 0..<source.count { name[5 + index] = legal(source[index]) }
                }
            }
        }
        withUnsafeMutableBytes(of: &device.interface) { target in
            withUnsafeBytes(of: interface.name) { target.copyMemory(from: $0) }
        }
        device.ifindex = interface.index
        device.node_type = UInt32(IBV_NODE_CA.rawValue)
        device.transport_type = UInt32(IBV_TRANSPORT_IB.rawValue)
        device.node_guid = nodeGUID(of: interface)
    }

    private func copy(_ text: StaticString, to bytes: UnsafeMutableRawBufferPointer) {
        for index in 0..<text.utf8CodeUnitCount { bytes[index] = text.utf8Start[index] }
    }

    /// Replaces a character that an interface's name may contain and a device's name may not, a colon for example.
    private func legal(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0, UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"):
            byte
        default: UInt8(ascii: "_")
        }
    }
}

/// The EUI-64 of the interface's hardware address, in network order. An interface without one (lo) gets a locally
/// administered number, which no other host sees.
func nodeGUID(of interface: linux_interface) -> UInt64 {
    let mac = interface.mac
    var value = UInt64(mac.0) << 56 | UInt64(mac.1) << 48 | UInt64(mac.2) << 40 | 0xFF_FE << 24
    value |= UInt64(mac.3) << 16 | UInt64(mac.4) << 8 | UInt64(mac.5)
    value ^= 0x0200_0000_0000_0000
    if mac.0 | mac.1 | mac.2 | mac.3 | mac.4 | mac.5 == 0 { value |= UInt64(interface.index & 0xFFFF) }
    return value.bigEndian
}

/// The names of a comma-separated list, each as a C string of at most 63 characters. Longer names, which no interface
/// can have, are truncated.
private struct NameList {
    private var rest: UnsafePointer<CChar>?

    init(_ text: UnsafePointer<CChar>?) { rest = text }

    mutating func next() -> InlineArray<64, CChar>? {
        while let start = rest, start.pointee != 0 {
            var name = InlineArray<64, CChar>(repeating: 0)
            var next = start
            var count = 0
            while next.pointee != 0 && next.pointee != CChar(UInt8(ascii: ",")) {
                if count < 63 && next.pointee != CChar(UInt8(ascii: " ")) {
                    name[count] = next.pointee
                    count += 1
                }
                next += 1
            }
            rest = next.pointee == 0 ? nil : next + 1
            if count > 0 { return name }
        }
        return nil
    }
}
