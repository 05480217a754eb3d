import CDropIn
import Glibc
import ProviderLoader
import RDMACMNode
import SoftwareConnections
import SystemPackage

/// Calls `body` with this thread marked as one in the library: paths that it opens are the kernel's.
private func busy<Outcome, Failure: Error>(_ body: () throws(Failure) -> Outcome) throws(Failure) -> Outcome {
    let before = dropin_set_busy(true)
    defer { _ = dropin_set_busy(before) }
    return try body()
}

/// The connection manager of the devices that the program lists: librdmacm finds no others.
private let node = Node(
    SoftwareService(
        SoftwareDevices(
            list: {
                busy {
                    let snapshot = loader.snapshot()
                    let listed = snapshot.devices.filter { $0.kind == .software && isListed($0, onRequest: false) }
                    return (listed + snapshot.onRequest.filter { isListed($0, onRequest: true) }, [])
                }
            },
            open: { name throws(Errno) in
                try busy { () throws(Errno) in
                    do throws(LoaderError) { return try loader.open(name) } catch {
                        log(.error, "loader", "\(error.device) cannot be opened: \(error.message)")
                        throw Errno(rawValue: error.code)
                    }
                }
            })),
    report: { log(.info, "rdma_cm", $0) })

private func isListed(_ description: DeviceDescription, onRequest: Bool) -> Bool {
    var device = dropin_device(
        device: ProviderLoader.publicDevice(of: description), node_guid: description.nodeGUID.bigEndian,
        on_request: onRequest)
    return dropin_is_listed(&device)
}

/// Whether this library serves /dev/infiniband/rdma_cm, decided once: for a program that sees a software device only
/// (RDMA_DEVICE), and where the kernel has no RDMA device or no node.
private let serves: Bool = {
    let snapshot = loader.snapshot()
    let isSoftwareOnly = dropin_only_device().map { only in
        let name = String(cString: only)
        return (snapshot.devices + snapshot.onRequest).contains { $0.name == name && $0.kind == .software }
    }
    let kernelServes =
        snapshot.devices.contains { $0.kind != .software } && access("/dev/infiniband/rdma_cm", F_OK) == 0
    let serves = isSoftwareOnly ?? !kernelServes
    log(
        .info, "rdma_cm",
        serves
            ? "/dev/infiniband/rdma_cm: connections of software devices; the kernel's rdma_cm is not used"
            : "/dev/infiniband/rdma_cm: the kernel's; --device with a software device selects connections of that one")
    return serves
}()

/// `dropin_cm_serves` of rdma_dropin.h.
@_cdecl("dropin_cm_serves")
func servesRDMACM() -> Bool { serves }

/// `dropin_cm_open` of rdma_dropin.h.
@_cdecl("dropin_cm_open")
func openRDMACM(_ flags: Int32) -> Int32 { node.open(flags: flags) }

/// `dropin_cm_write` of rdma_dropin.h.
@_cdecl("dropin_cm_write")
func writeRDMACM(_ file: Int32, _ bytes: UnsafeRawPointer?, _ length: Int) -> Int32 {
    node.write(file, UnsafeRawBufferPointer(start: bytes, count: bytes == nil ? 0 : length))
}

/// `dropin_cm_close` of rdma_dropin.h.
@_cdecl("dropin_cm_close")
func closeRDMACM(_ file: Int32) { node.close(file) }

/// `dropin_cm_own` of rdma_dropin.h.
@_cdecl("dropin_cm_own")
func firstOwnDescriptor(_ first: UInt32, _ last: UInt32) -> Int32 { OwnDescriptors.first(from: first, through: last) }
