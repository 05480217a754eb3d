import CIBVerbs
import CKernelABI
import CProviderABI
import Foundation
import KernelTestSupport
import TestSupport
import Testing

@testable import KernelVerbs

@Suite("KernelVerbs: the GID table of a kernel without the ioctl method")
struct GIDTests {
    @Test("entries are read from sysfs: GID, type and ndev; an empty entry is ENODATA, a missing one EINVAL")
    func sysfs() throws {
        let folder = try TemporaryDirectory()
        try folder.write("fe80:0000:0000:0000:0202:c9ff:fe12:3456\n", to: "ports/1/gids/0")
        try folder.write("IB/RoCE v1\n", to: "ports/1/gid_attrs/types/0")
        try folder.write("lo\n", to: "ports/1/gid_attrs/ndevs/0")
        try folder.write("0000:0000:0000:0000:0000:ffff:c000:0201\n", to: "ports/1/gids/1")
        try folder.write("RoCE v2\n", to: "ports/1/gid_attrs/types/1")
        try folder.write("0000:0000:0000:0000:0000:0000:0000:0000\n", to: "ports/1/gids/2")
        try folder.write("nonsense\n", to: "ports/1/gids/3")
        // A directory instead of the attribute's file: EISDIR.
        try folder.write("fe80:0000:0000:0000:0202:c9ff:fe12:3456\n", to: "ports/1/gids/7")
        try folder.write("", to: "ports/1/gid_attrs/types/7/file")

        let kernel = FakeKernel()
        let test = TestDevice("mlx5_0")
        let device = test.pointer.pointee.device!
        withUnsafeMutableBytes(of: &device.pointee.ibdev_path) { $0.copyBytes(from: folder.path("").utf8) }
        let native = NativeContextPointer.allocate(capacity: 1)
        let opened = KernelContext(asyncDescriptor: 0x5000_0001, completionVectors: 1, takesOptionalAccess: true)
        native.initialize(to: NativeContext(kernel: kernel.open(returning: ENOTTY), opened: opened))
        let context = native.initialize(device)
        var linkLayer = UInt8(IBV_LINK_LAYER_ETHERNET)
        kernel.onCall = { _ in ENOTTY }
        kernel.onWrite = { command, response in
            switch command.load(0, as: UInt32.self) & 0xFF {
            case IB_USER_VERBS_CMD_QUERY_PORT.rawValue:
                var port = ib_uverbs_query_port_resp()
                port.link_layer = linkLayer
                port.gid_tbl_len = 5
                response!.storeBytes(of: port, as: ib_uverbs_query_port_resp.self)
            default:
                var attributes = ib_uverbs_ex_query_device_resp()
                attributes.base.phys_port_cnt = 1
                response!.storeBytes(of: attributes, as: ib_uverbs_ex_query_device_resp.self)
            }
            return 0
        }
        let first = try context.queryGID(port: 1, index: 0)
        #expect(first.gid.global.subnet_prefix == UInt64(0xFE80_0000_0000_0000).bigEndian)
        #expect(first.gid.global.interface_id == UInt64(0x0202_C9FF_FE12_3456).bigEndian)
        #expect(first.gid_type == IBV_GID_TYPE_ROCE_V1.rawValue && first.port_num == 1 && first.gid_index == 0)
        #expect(first.ndev_ifindex == if_nametoindex("lo"))
        #expect(try context.queryGID(port: 1, index: 1).gid_type == IBV_GID_TYPE_ROCE_V2.rawValue)
        #expect(throws: KernelError(rawValue: ENODATA)) { _ = try context.queryGID(port: 1, index: 2) }
        #expect(throws: KernelError(rawValue: EISDIR)) { _ = try context.queryGID(port: 1, index: 7) }
        for index in [3, 4] as [UInt32] {
            #expect(throws: KernelError.invalidArgument) { _ = try context.queryGID(port: 1, index: index) }
        }
        #expect(throws: KernelError.invalidArgument) { _ = try context.queryGID(port: 2, index: 0) }

        var entries = [ibv_gid_entry](repeating: ibv_gid_entry(), count: 2)
        let size = MemoryLayout<ibv_gid_entry>.size
        #expect(try context.queryGIDTable(&entries, capacity: 2, size: size) == 2)
        #expect(entries.map(\.gid_index) == [0, 1])
        #expect(throws: KernelError.invalidArgument) {
            _ = try context.queryGIDTable(&entries, capacity: 1, size: size)
        }
        linkLayer = UInt8(IBV_LINK_LAYER_INFINIBAND)
        #expect(try context.queryGID(port: 1, index: 0).gid_type == 0)
        #expect(closeNativeContext(context: context) == 0)
        withExtendedLifetime(test) {}
    }
}
