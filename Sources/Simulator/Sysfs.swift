import CSimulator

/// The sysfs files of a device (Documentation/ABI/stable/sysfs-class-infiniband of the kernel) that libibverbs 44 and
/// the loader of this package read.
final class SysfsTree {
    private let device: Device
    private let path = Text()
    private let text = Text()

    init(_ device: Device) { self.device = device }

    func write() {
        let identity = device.codec.identity
        path.append("class/infiniband_verbs/abi_version")
        text.append("6")
        write(nil)

        path.append("class/misc/rdma_cm/abi_version")
        text.append(Int(RDMA_USER_CM_ABI_VERSION))
        write(nil)
        path.append("class/misc/rdma_cm/dev")
        text.append("10:121")
        write(nil)

        appendName()
        write(node: "ibdev")
        text.append("231:")
        text.append(192 + device.index)
        write(node: "dev")
        text.append(device.options.abi ?? identity.abi)
        write(node: "abi_version")

        write("node_type", device.options.isIWARP ? "4: RNIC" : "1: CA")
        text.appendGroups(device.guid)
        write("node_guid")
        text.appendGroups(device.guid)
        write("sys_image_guid")
        write("fw_ver", identity.firmware.text)
        write("node_desc", "simulated")
        write("hw_rev", "0")
        write("board_id", identity.board)
        writePCI(identity)
        writePort()
    }

    private func writePCI(_ identity: Identity) {
        let (vendor, number) = (UInt64(identity.pciVendor), UInt64(identity.pciDevice))
        text.append("pci:v")
        text.appendHexadecimal(vendor, digits: 8, ten: UInt8(ascii: "A"))
        text.append("d")
        text.appendHexadecimal(number, digits: 8, ten: UInt8(ascii: "A"))
        text.append("sv")
        text.appendHexadecimal(vendor, digits: 8, ten: UInt8(ascii: "A"))
        text.append("sd00000001bc02sc07i00")
        write("device/modalias")
        text.append("0x")
        text.appendHexadecimal(vendor, digits: 4)
        write("device/vendor")
        text.append("0x")
        text.appendHexadecimal(number, digits: 4)
        write("device/device")
    }

    private func writePort() {
        write("ports/1/link_layer", device.options.isEthernet ? "Ethernet" : "InfiniBand")
        write("ports/1/pkeys/0", "0xffff")
        for index in 0..<device.gidCount {
            let gid = device.gid(index)
            text.appendGroups(gid.0.bigEndian)
            text.append(":")
            text.appendGroups(gid.1.bigEndian)
            write("ports/1/gids/", index: index)
            text.append(device.gidType(index) == 2 ? "RoCE v2" : "IB/RoCE v1")
            write("ports/1/gid_attrs/types/", index: index)
        }
    }

    private func appendName() {
        text.append(device.codec.identity.name)
        text.append("_")
        text.append(device.index)
    }

    private func write(node name: StaticString) {
        path.append("class/infiniband_verbs/uverbs")
        path.append(device.index)
        path.append("/")
        path.append(name)
        write(nil)
    }

    private func write(_ name: StaticString, _ value: StaticString) {
        text.append(value)
        write(name)
    }

    /// Writes the text to an attribute of the device; if `name` is nil, to the file at `path`.
    private func write(_ name: StaticString?, index: Int? = nil) {
        if let name {
            path.append("class/infiniband/")
            path.append(device.codec.identity.name)
            path.append("_")
            path.append(device.index)
            path.append("/")
            path.append(name)
        }
        if let index { path.append(index) }
        text.append("\n")
        sim_sysfs_file(path.cString, text.cString)
        path.clear()
        text.clear()
    }
}
