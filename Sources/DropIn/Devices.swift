import CDropIn
import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import ProviderLoader
import SoftProvider

/// The loader of a program in C: without the provider `libibverbs`, because the distribution's library serves its devices
/// itself.
let loader = ProviderLoader(
    configuration: .standard(builtIn: [
        BuiltInProvider(name: "soft", entry: { SoftProvider.providerEntry(core: $0, why: $1) })
    ]))

/// Says once, at the first list of devices, what stands behind this library.
private let introduction: Void = {
    let path = dropin_behind_path().map { String(cString: $0) }
    log(.info, "verbs", "libibverbs.so.1 of swift-rdma \(RDMA_CORE_VERSION), in front of \(path ?? "no other library")")
}()

/// Says which of rdma-core's providers was left out, because it belongs to another libibverbs than the one behind.
private func reportRefusedDriver() {
    let node = dropin_take_refused_node()
    guard node != 0 else { return }
    let path = dropin_behind_path().map { String(cString: $0) }
    let behind =
        switch (path, dropin_behind_node()) {
        case (nil, _): "there is no libibverbs of rdma-core"
        case (let path?, 0): "\(path) has another node"
        case (let path?, let number): "\(path) has IBVERBS_PRIVATE_\(number)"
        }
    log(.warning, "verbs", "a provider that needs IBVERBS_PRIVATE_\(node) is left out: \(behind)")
}

/// An open device, as C holds it.
private final class OpenHandle {
    let device: OpenedDevice

    init(_ device: OpenedDevice) { self.device = device }
}

/// `dropin_list_devices` of rdma_dropin.h.
@_cdecl("dropin_list_devices")
func listDevices(
    _ add: @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<dropin_device>?) -> Void,
    _ list: UnsafeMutableRawPointer?
) -> Int32 {
    let snapshot = loader.snapshot()
    _ = introduction
    reportRefusedDriver()
    let found = snapshot.devices.map { ($0, false) } + snapshot.onRequest.map { ($0, true) }
    for (description, onRequest) in found where description.kind == .software {
        var device = dropin_device(
            device: ProviderLoader.publicDevice(of: description), node_guid: description.nodeGUID.bigEndian,
            on_request: onRequest)
        add(list, &device)
    }
    return snapshot.problems.lazy.compactMap(\.code).first ?? 0
}

/// `dropin_open_device` of rdma_dropin.h.
@_cdecl("dropin_open_device")
func openDevice(
    _ name: UnsafePointer<CChar>, _ opened: UnsafeMutablePointer<rdma_context>,
    _ handle: UnsafeMutablePointer<UnsafeMutableRawPointer?>
) -> Int32 {
    do throws(LoaderError) {
        let device = try loader.open(String(cString: name))
        guard !device.isForeign else {
            _ = device.close()
            log(.error, device.provider.name, "\(device.description.name): its context belongs to another library")
            return EOPNOTSUPP
        }
        opened.pointee.context = device.context
        opened.pointee.ops = device.ops
        opened.pointee.flags = device.flags
        handle.pointee = Unmanaged.passRetained(OpenHandle(device)).toOpaque()
        return 0
    } catch {
        let hint = error.hint.isEmpty ? "" : "; \(error.hint)"
        log(.error, "loader", "\(error.device) cannot be opened: \(error.message)\(hint)")
        return error.code
    }
}

/// `dropin_close_device` of rdma_dropin.h.
@_cdecl("dropin_close_device")
func closeDevice(_ handle: UnsafeMutableRawPointer) -> Int32 {
    let open = Unmanaged<OpenHandle>.fromOpaque(handle)
    let error = open.takeUnretainedValue().device.close()
    if error == 0 { open.release() }
    return error
}

/// `dropin_log_explanation` of rdma_dropin.h.
@_cdecl("dropin_log_explanation")
func logExplanation(_ device: UnsafePointer<CChar>, _ explanation: UnsafePointer<CChar>) {
    log(.info, String(cString: device), String(cString: explanation))
}

func log(_ level: LogMessage.Level, _ source: String, _ text: String) {
    ProviderLoader.record(LogMessage(level: level, provider: source, text: text))
}
