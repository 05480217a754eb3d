import Glibc

/// The rules that decide from driver files alone whether a provider may serve a device.
struct Eligibility {
    let masks: [DriverDirectories.Mask]
    /// The value of `RDMA_PROVIDER`.
    let asked: String?
    /// Names of the built-in providers that serve kernel devices.
    let kernelProviders: Set<String>

    /// The verdict of the first rule that excludes the source; nil where it may serve the device.
    func verdict(on source: ProviderSource, for device: DeviceDescription) -> Verdict? {
        if let reason = mismatch(source, device) {
            return Verdict(.rejected, .match, reason)
        }
        if let verdict = exclusion(of: source) { return verdict }
        if device.kind == .kernel, let window = source.entry?.file.kernelABI, !window.contains(device.kernelABI) {
            return Verdict(.rejected, .kernelABI, unsupported(device, by: window))
        }
        return nil
    }

    /// The verdict of the first rule that forbids the source to list software devices. A built-in provider always may,
    /// because no library is opened for it: a mask keeps it from serving them.
    func verdict(onLister source: ProviderSource) -> Verdict? {
        source.entry == nil ? nil : exclusion(of: source)
    }

    /// The verdict of the first rule that excludes the source whatever the device is.
    private func exclusion(of source: ProviderSource) -> Verdict? {
        if let mask = masks.first(where: { $0.hides(source.name, from: source.origin) }) {
            return Verdict(.masked, .mask, "masked by \(mask.path)")
        }
        if let asked, asked != source.name {
            return Verdict(.rejected, .environment, "RDMA_PROVIDER names \(asked)")
        }
        guard case .driverFile(let entry, let library) = source.kind else { return nil }
        if let objection = entry.objection {
            return Verdict(.rejected, .ownership, "its driver file is refused: \(objection.message)")
        }
        switch library {
        case .missing: return Verdict(.absent, .missing, "there is no library \(entry.library)")
        case .refused(let rule, let problem):
            return Verdict(.rejected, rule, "its library is refused: \(problem.message)")
        case .present: break
        }
        if let needed = entry.file.providerABI, !needed.isMet(by: .core) {
            return Verdict(.rejected, .providerABI, "needs provider ABI \(needed); this core has \(ABIVersion.core)")
        }
        return nil
    }

    /// The reason why the provider is not for the device; nil where it is.
    private func mismatch(_ source: ProviderSource, _ device: DeviceDescription) -> String? {
        switch source.kind {
        case .builtIn(.success(let provider)) where provider.listsDevices:
            return device.listedBy == source.name ? nil : "it is for the software devices that it lists"
        case .builtIn:
            return device.kind == .kernel ? nil : "it is for devices of the kernel"
        case .driverFile(let entry, _) where entry.file.listsDevices && device.listedBy == entry.file.name:
            return nil
        case .driverFile(let entry, _) where entry.file.matches.isEmpty:
            return mismatch(driver: entry.file, device)
        case .driverFile(let entry, _):
            guard !entry.file.matches.contains(where: { fits($0, device) }) else { return nil }
            var lines = entry.file.matches.map(\.description).joined(separator: ", ")
            if entry.file.listsDevices { lines += ", and the software devices that it lists" }
            return "it is for \(lines); the device is \(identity(of: device))"
        }
    }

    /// `mismatch` for a driver file without `match` lines: it is for the devices of the kernel driver of its name.
    private func mismatch(driver file: DriverFile, _ device: DeviceDescription) -> String? {
        let name = file.name
        if device.kind == .software {
            return device.listedBy == name ? nil : "it is for devices of driver \(name)"
        }
        if kernelProviders.contains(name) { return nil }
        guard let driver = KernelDriver.all.first(where: { $0.name == name }) else {
            if file.listsDevices { return "it is for the software devices that it lists" }
            return "no kernel driver is known as \(name), and its driver file has no `match` line"
        }
        return KernelDriver.id(of: device) == driver.id
            ? nil : "it is for devices of driver \(name); the device is \(identity(of: device))"
    }

    private func fits(_ match: DriverFile.Match, _ device: DeviceDescription) -> Bool {
        switch match {
        case .name(let pattern): pattern.matches(device.name)
        case .driverID(let id): device.kind == .kernel && KernelDriver.id(of: device) == id
        case .pci(let vendor, let number):
            device.pci.map { $0.vendor == vendor && (number == nil || number == $0.device) } ?? false
        }
    }

    /// The properties of the device that `match` lines can name.
    private func identity(of device: DeviceDescription) -> String {
        var parts = ["name \(device.name)"]
        if device.kind == .software {
            parts.append(device.listedBy.map { "listed by \($0)" } ?? "listed by no provider")
        } else {
            parts.append(KernelDriver.id(of: device).map { "driver-id \($0)" } ?? "of an unknown driver")
        }
        if let pci = device.pci {
            parts.append("pci \(hexadecimal(pci.vendor)):\(hexadecimal(pci.device))")
        }
        return parts.joined(separator: ", ")
    }
}
