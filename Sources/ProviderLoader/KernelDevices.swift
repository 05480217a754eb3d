import Glibc

/// The devices of the kernel's RDMA subsystem as sysfs describes them: class/infiniband_verbs/uverbsN and
/// class/infiniband/DEVICE (Documentation/ABI/stable/sysfs-class-infiniband of the kernel).
struct KernelDevices {
    /// Sorted by name, `mlx5_2` before `mlx5_10`.
    private(set) var devices: [DeviceDescription] = []
    /// Nodes with missing or invalid attributes in sysfs.
    private(set) var problems: [Problem] = []

    private static let reportIt = "report it to the vendor of the kernel driver"

    private let root: String
    private var uverbsABI: UInt32 = 0

    /// - Parameter driverIDs: Returns the driver ID of each device. It is called only if there is a device, because the
    ///   request may make the kernel load a module.
    init(sysfs: String, driverIDs: () -> [String: UInt32]) {
        root = sysfs
        let nodes = "\(root)/class/infiniband_verbs"
        let found: [String]
        do throws(Errno) {
            found = try names(inDirectory: nodes)
        } catch {
            // A kernel without uverbs, or a container without its sysfs: there is no device, and no problem.
            if error.code == ENOENT || error.code == ENOTDIR { return }
            problems.append(
                Problem(
                    path: nodes, message: "the kernel's devices cannot be listed: \(error.text)",
                    hint: "`verbs doctor` looks for what stands in the way", code: error.code))
            return
        }
        uverbsABI = contents("\(nodes)/abi_version").flatMap { UInt32($0) } ?? 0
        let uverbs = found.filter { $0.hasPrefix("uverbs") }
        let driverIDs = uverbs.isEmpty ? [:] : driverIDs()
        for name in uverbs {
            do throws(Problem) {
                var device = try describe(uverbs: name, at: "\(nodes)/\(name)")
                device.driverID = driverIDs[device.name]
                devices.append(device)
            } catch {
                problems.append(error)
            }
        }
        devices.sort { naturallyPrecedes($0.name, $1.name) }
    }

    private func describe(uverbs: String, at node: String) throws(Problem) -> DeviceDescription {
        let name = try required("\(node)/ibdev")
        guard isDeviceName(name) else {
            throw Problem(
                path: "\(node)/ibdev", message: "`\(name)` is not a device name", hint: KernelDevices.reportIt)
        }
        let path = "\(root)/class/infiniband/\(name)"
        var device = DeviceDescription(name: name, kind: .kernel)
        device.uverbsName = uverbs
        device.uverbsPath = node
        device.registration = inodeNumber(path)
        device.sysfsPath = path
        device.uverbsABI = uverbsABI
        device.uverbsDevice = try deviceNumber("\(node)/dev")
        guard let abi = UInt32(try required("\(node)/abi_version")) else {
            throw Problem(path: "\(node)/abi_version", message: "it is not a number", hint: KernelDevices.reportIt)
        }
        device.kernelABI = abi
        device.nodeGUID = contents("\(path)/node_guid").flatMap(parseGUID) ?? 0
        device.nodeType = contents("\(path)/node_type").flatMap(parseNodeType) ?? -1
        device.transportType = transport(ofNodeType: device.nodeType)
        device.pci = contents("\(path)/device/modalias").flatMap(DeviceDescription.PCIIdentifiers.init(modalias:))
        device.kernelDriver = linkTarget("\(path)/device/driver").map(lastComponent)
        return device
    }

    /// `MAJOR:MINOR`, combined as makedev(3) does.
    private func deviceNumber(_ path: String) throws(Problem) -> UInt64 {
        let parts = try required(path).split(separator: ":").map { UInt64($0) }
        guard parts.count == 2, let major = parts[0], let minor = parts[1], major < 1 << 32, minor < 1 << 32 else {
            throw Problem(
                path: path, message: "it is not a device number MAJOR:MINOR", hint: KernelDevices.reportIt)
        }
        return (major & 0xffff_f000) << 32 | (major & 0xfff) << 8 | (minor & 0xffff_ff00) << 12 | minor & 0xff
    }

    private func required(_ path: String) throws(Problem) -> String {
        do throws(Errno) {
            return try readAttribute(path)
        } catch {
            throw Problem(
                path: path, message: error.text, hint: "the device may just have gone; look again, or see dmesg(1)")
        }
    }

    private func contents(_ path: String) -> String? {
        try? readAttribute(path)
    }

    /// An attribute of sysfs has at most a page.
    private func readAttribute(_ path: String) throws(Errno) -> String {
        let file = try FileDescriptor(opening: path, flags: O_RDONLY)
        let text = String(decoding: try file.read(atMost: 4096), as: UTF8.self)
        return text.utf8.last == UInt8(ascii: "\n") ? String(text.dropLast()) : text
    }

    /// `0002:c903:00ab:cdef`
    private func parseGUID(_ text: String) -> UInt64? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 4, parts.allSatisfy({ $0.utf8.count == 4 }) else { return nil }
        return UInt64(parts.joined(), radix: 16)
    }

    /// `1: CA`
    private func parseNodeType(_ text: String) -> Int32? {
        Int32(text.prefix { $0 != ":" })
    }

    /// The `enum ibv_transport_type` of an `enum ibv_node_type`.
    private func transport(ofNodeType type: Int32) -> Int32 {
        switch type {
        case 1, 2, 3: 0  // channel adapter, switch, router: InfiniBand, and RoCE as well
        case 4: 1  // RNIC: iWARP
        case 5: 2  // usNIC
        case 6: 3  // usNIC over UDP
        case 7: 4  // unspecified
        default: -1
        }
    }
}

extension DeviceDescription.PCIIdentifiers {
    /// `pci:v000015B3d00001017sv000015B3sd00000020bc02sc00i00` (file2alias.c of the kernel: eight digits each).
    init?(modalias: String) {
        var rest = modalias[...]
        func take(_ tag: String) -> UInt16? {
            guard rest.hasPrefix(tag) else { return nil }
            rest = rest.dropFirst(tag.count)
            let digits = rest.prefix(8)
            guard digits.utf8.count == 8 else { return nil }
            rest = rest.dropFirst(8)
            return UInt32(digits, radix: 16).flatMap { UInt16(exactly: $0) }
        }
        guard let vendor = take("pci:v"), let device = take("d"), let subsystemVendor = take("sv"),
            let subsystemDevice = take("sd")
        else { return nil }
        self.init(
            vendor: vendor, device: device, subsystemVendor: subsystemVendor, subsystemDevice: subsystemDevice)
    }
}

/// Whether `name` may be the name of a device: [A-Za-z0-9_.-], at most 63 bytes, and neither `.` nor `..`.
func isDeviceName(_ name: String) -> Bool {
    (1...63).contains(name.utf8.count) && name != "." && name != ".."
        && name.utf8.allSatisfy { $0.isDigit || $0.isLetter || "_.-".utf8.contains($0) }
}
