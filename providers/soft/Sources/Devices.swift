import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// The devices of this host: `soft0` on the loopback interface, and `soft_<interface>` for every interface that
/// `RDMA_SOFT_INTERFACES` names, separated by commas. An interface that does not exist is left out, with a warning.
func listDevices(
    devices: UnsafeMutablePointer<rdma_software_device>?, stride: Int, capacity: UInt32,
    count: UnsafeMutablePointer<UInt32>?
) -> Int32 {
    guard let count else { return EINVAL }
    var list = DeviceList(devices: devices, stride: stride, capacity: capacity)
    list.add(interface: ("lo" as StaticString).cString)
    var names = NameList(linux_getenv("RDMA_SOFT_INTERFACES"))
    while let name = names.next() {
        withUnsafeBytes(of: name) { bytes in
            list.add(interface: bytes.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
    }
    count.pointee = list.count
    return 0
}

/// soft serves devices that were listed by soft: software devices on an interface that exists.
func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    guard let device, device.pointee.kind == RDMA_DEVICE_SOFTWARE.rawValue else {
        Sentence("soft serves software devices only; use the provider of the kernel's driver").store(in: why)
        return ENODEV
    }
    guard let name = device.pointee.interface, name.pointee != 0 else {
        Sentence("the device names no network interface").store(in: why)
        return ENODEV
    }
    var interface = linux_interface()
    guard linux_find_interface(name, &interface) == 0 else {
        var reason = Sentence("there is no network interface ")
        reason.append(name)
        reason.append(": see `ip link`, and RDMA_SOFT_INTERFACES")
        reason.store(in: why)
        return ENODEV
    }
    return 0
}

/// Writes devices to the core's array, each interface once.
private struct DeviceList {
    let devices: UnsafeMutablePointer<rdma_software_device>?
    let stride: Int
    let capacity: UInt32
    private(set) var count: UInt32 = 0

    init(devices: UnsafeMutablePointer<rdma_software_device>?, stride: Int, capacity: UInt32) {
        self.devices = devices
        self.stride = stride
        self.capacity = capacity
    }

    mutating func add(interface name: UnsafePointer<CChar>) {
        var interface = linux_interface()
        guard linux_find_interface(name, &interface) == 0 else {
            var warning = Sentence("RDMA_SOFT_INTERFACES names ")
            warning.append(name)
            warning.append(", which is not an interface of this host: see `ip link`")
            warning.log(RDMA_LOG_WARNING)
            return
        }
        guard !contains(interface.index) else { return }
        if let device = slot(count) { fill(device, interface, isLoopback: count == 0) }
        count += 1
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
        _ device: UnsafeMutablePointer<rdma_software_device>, _ interface: linux_interface, isLoopback: Bool
    ) {
        device.pointee = rdma_software_device()
        withUnsafeMutableBytes(of: &device.pointee.name) { name in
            if isLoopback {
                copy("soft0", to: name)
            } else {
                copy("soft_", to: name)
                withUnsafeBytes(of: interface.name) { source in
                    for index in 0..<source.count { name[5 + index] = legal(source[index]) }
                }
            }
        }
        withUnsafeMutableBytes(of: &device.pointee.interface) { target in
            withUnsafeBytes(of: interface.name) { target.copyMemory(from: $0) }
        }
        device.pointee.ifindex = interface.index
        device.pointee.node_type = UInt32(IBV_NODE_CA.rawValue)
        device.pointee.transport_type = UInt32(IBV_TRANSPORT_IB.rawValue)
        device.pointee.node_guid = nodeGUID(of: interface)
    }

    private func copy(_ text: StaticString, to bytes: UnsafeMutableRawBufferPointer) {
        for index in 0..<text.utf8CodeUnitCount { bytes[index] = text.utf8Start[index] }
    }

    /// A device's name has fewer characters to choose from than an interface's, which may hold a colon, say.
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

/// The names in a list that commas separate, each as a C string of at most 63 characters; longer ones, which no
/// interface can have, are cut.
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
