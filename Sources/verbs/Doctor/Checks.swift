import ProviderLoader
import SystemPackage

extension SystemView {
    /// All findings, check by check.
    func examine() -> [Finding] {
        [
            examineKernel(), examineDevices(), examineLibraries(), examinePermissions(), examineConnections(),
            examineMemory(), examinePort(), examineAddresses(), examineMTU(), examineProviders(), examineFiles(),
            examineSettings(),
        ].flatMap { $0 }
    }

    /// Does the kernel have an RDMA subsystem, does it tell of it, and to every network namespace?
    func examineKernel() -> [Finding] {
        if let obstacle = kernelObstacle {
            // Without devices in sysfs either, there is nothing to be told of.
            return kernelDevices.isEmpty
                ? [.note(.kernel, obstacle.message, try: obstacle.hint)]
                : [.warning(.kernel, obstacle.message, try: obstacle.hint)]
        }
        guard sharesDevices == false else { return [.ok(.kernel, "the kernel tells of its RDMA devices")] }
        return [
            .note(
                .kernel, "each RDMA device is in one network namespace only, and is not seen from others",
                try: "move a device: rdma dev set DEVICE netns NAMESPACE; or share all: rdma system set netns shared")
        ]
    }

    /// Is there a device, can it be opened, is a port of it up?
    func examineDevices() -> [Finding] {
        guard !openings.isEmpty else {
            return [
                .fault(
                    .devices, "there is no RDMA device, not even the software device of the loopback interface",
                    try: "bring the loopback interface up: ip link set lo up")
            ]
        }
        let isAnyUp = openings.contains { $0.ports.contains(where: \.isActive) }
        return openings.map { opening in
            if survey[opening.device]?.error != nil {
                return .note(.devices, "\(opening.device) is not opened: see below, under providers")
            }
            if let failure = opening.failure {
                return .fault(.devices, "\(opening.device) does not open: \(failure.message)", try: failure.hint)
            }
            guard let dead = opening.ports.first, !opening.ports.contains(where: \.isActive) else {
                return .ok(.devices, "\(opening.device) opens, and has a port that is up")
            }
            let interface = opening.interface ?? "the device's network interface"
            let found = "no port of \(opening.device) is up: port \(dead.number) is \(dead.state)"
            let remedy = "check the cable and the switch; for RoCE: ip link set \(interface) up"
            // Another device may serve; without any, nothing works.
            return isAnyUp ? .warning(.devices, found, try: remedy) : .fault(.devices, found, try: remedy)
        }
    }

    /// Are the shared libraries there that devices need?
    func examineLibraries() -> [Finding] {
        var findings: [Finding] = []
        if let error = loadError("libibverbs.so.1") {
            findings.append(
                .fault(
                    .libraries, "libibverbs.so.1 does not load: \(error)",
                    try: "apt install libibverbs1, or dnf install libibverbs"))
        }
        if !kernelDevices.isEmpty, names(in: "/etc/libibverbs.d").allSatisfy({ !$0.hasSuffix(".driver") }) {
            findings.append(
                .warning(
                    .libraries, "the distribution's providers are not installed: libibverbs can serve no device",
                    try: "apt install ibverbs-providers; on Fedora they come with libibverbs"))
        }
        return findings.isEmpty ? [.ok(.libraries, "libibverbs.so.1 loads")] : findings
    }

    /// May this user open the device nodes of the kernel's devices?
    func examinePermissions() -> [Finding] {
        guard !kernelDevices.isEmpty else {
            return [.note(.permissions, "the kernel has no RDMA device: nothing to open under /dev/infiniband")]
        }
        let nodes = names(in: sysfs + "/class/infiniband_verbs").filter { $0.hasPrefix("uverbs") }
        guard !nodes.isEmpty else {
            return [
                .fault(
                    .permissions,
                    "the kernel knows \(kernelDevices.joined(separator: ", ")), but gives programs no access",
                    try: "load the module: modprobe ib_uverbs")
            ]
        }
        return nodes.map { node in
            let path = "/dev/infiniband/\(node)"
            switch accessError(path) {
            case nil: return .ok(.permissions, "\(path) can be opened")
            case .noSuchFileOrDirectory?:
                return .fault(
                    .permissions, "\(path) is missing",
                    try: "start udev, or in a container pass the node: docker run --device \(path)")
            case let error?:
                return .fault(
                    .permissions, "\(path) cannot be opened: \(error)",
                    try: "let your user in: usermod -aG rdma $USER and log in again, or MODE=\"0666\" in a udev rule")
            }
        }
    }

    /// Can connections be made by IP address? librdmacm needs the node of the connection manager.
    func examineConnections() -> [Finding] {
        guard !kernelDevices.isEmpty else { return [.ok(.connections, "no device needs the connection manager")] }
        let path = "/dev/infiniband/rdma_cm"
        switch accessError(path) {
        case nil: return [.ok(.connections, "\(path) can be opened")]
        case .noSuchFileOrDirectory?:
            return [
                .warning(
                    .connections, "\(path) is missing: programs that connect with librdmacm fail",
                    try: "load the module: modprobe rdma_ucm; in a container pass the node: docker run --device \(path)"
                )
            ]
        case let error?:
            return [
                .warning(
                    .connections, "\(path) cannot be opened: \(error); programs that connect with librdmacm fail",
                    try: "let your user in: usermod -aG rdma $USER and log in again, or MODE=\"0666\" in a udev rule")
            ]
        }
    }

    /// Can the ports' addresses be told to others?
    func examineAddresses() -> [Finding] {
        let findings = openings.flatMap { opening in
            opening.ports.filter { $0.isActive && $0.reach != .beyondLink }.map { port in
                let interface = opening.interface ?? "INTERFACE"
                let found =
                    port.reach == .nobody
                    ? "port \(port.number) of \(opening.device) has no GID: no connection can begin there"
                    : "port \(port.number) of \(opening.device) has only link-local GIDs: it is not known by an IP address"
                return Finding.warning(
                    .addresses, found, try: "give its interface one: ip address add ADDRESS/PREFIX dev \(interface)")
            }
        }
        return findings.isEmpty ? [.ok(.addresses, "every port that is up has an address")] : findings
    }

    /// Can enough memory be pinned?
    func examineMemory() -> [Finding] {
        guard let lockableMemory, !ignoresMemoryLimit else {
            return [.ok(.memory, "any amount of memory can be pinned")]
        }
        let text = "at most \(Units.size(lockableMemory)) of memory can be pinned (RLIMIT_MEMLOCK)"
        let remedy =
            "ulimit -l unlimited; for ever: \"* - memlock unlimited\" in /etc/security/limits.d/rdma.conf, or"
            + " LimitMEMLOCK=infinity in the service's unit"
        if kernelDevices.isEmpty { return [.note(.memory, text + "; software devices pin none")] }
        guard lockableMemory < 64 << 20 else { return [.ok(.memory, text)] }
        return [.warning(.memory, text + ": registering more fails with ENOMEM", try: remedy)]
    }

    /// Can the software device have its UDP port?
    func examinePort() -> [Finding] {
        let port: UInt16 = 4791
        let consequence = "the software device then reaches processes of this machine only"
        if exists(sysfs + "/module/rdma_rxe"), bindError(port) != nil {
            return [
                .warning(
                    .port, "the kernel module rdma_rxe holds UDP port \(port): \(consequence)",
                    try: "use the kernel's rxe devices, or unload it: modprobe -r rdma_rxe")
            ]
        }
        let owners = Set(udpOwners(of: port))
        if let other = owners.subtracting([userID]).min() {
            return [
                .warning(
                    .port, "user \(other) holds UDP port \(port): \(consequence)",
                    try: "ss -lunp 'sport = :\(port)' names the program; end it, or run as the same user")
            ]
        }
        if !owners.isEmpty {
            guard bindError(port) != nil else {
                return [.ok(.port, "UDP port \(port) is in use by your own programs, which share it")]
            }
            return [
                .warning(
                    .port, "a program of yours holds UDP port \(port) and does not share it: \(consequence)",
                    try: "ss -lunp 'sport = :\(port)' names the program; end it")
            ]
        }
        if let error = bindError(port) {
            return [
                .warning(
                    .port, "UDP port \(port) cannot be bound (\(error)): \(consequence)",
                    try: "look for what forbids it: a firewall of the security module, or a container's profile")
            ]
        }
        return [.ok(.port, "UDP port \(port) is free")]
    }

    /// The users who have bound that UDP port, from proc(5)'s net/udp and net/udp6.
    private func udpOwners(of port: UInt16) -> [UInt32] {
        ["/proc/net/udp", "/proc/net/udp6"].compactMap(text(of:)).flatMap { table in
            table.split(separator: "\n").dropFirst().compactMap { line in
                // sl local_address rem_address st queues timer retransmits uid ...
                let fields = line.split(separator: " ")
                guard fields.count > 7, let colon = fields[1].lastIndex(of: ":"),
                    UInt16(fields[1][colon...].dropFirst(), radix: 16) == port
                else { return nil }
                return UInt32(fields[7])
            }
        }
    }

    /// Do the ports use packets as large as they can?
    func examineMTU() -> [Finding] {
        let small: [Finding] = openings.flatMap { opening in
            opening.ports.filter { $0.isActive && $0.activeMTU > 0 && $0.activeMTU < $0.maximumMTU }.map { port in
                let interface = opening.interface ?? "INTERFACE"
                return Finding.note(
                    .mtu,
                    "port \(port.number) of \(opening.device) sends \(port.activeMTU) bytes in a packet, of"
                        + " \(port.maximumMTU) that it could",
                    try: "raise the MTU on the whole path, with room for the headers: ip link set \(interface) mtu"
                        + " \(port.maximumMTU + 104)")
            }
        }
        let useless: [Finding] = openings.compactMap(\.interface).compactMap { interface in
            guard let text = text(of: "\(sysfs)/class/net/\(interface)/mtu"), let mtu = Int(text.filter(\.isNumber)),
                mtu < 256 + 80
            else { return nil }
            return .fault(
                .mtu, "\(interface) has an MTU of \(mtu) bytes: RoCE needs 336 at least",
                try: "ip link set \(interface) mtu 1500")
        }
        let findings = useless + small
        return findings.isEmpty ? [.ok(.mtu, "every port uses its largest MTU")] : findings
    }

    /// Does every device have a provider, the one that ranks highest? Has one warned of something?
    func examineProviders() -> [Finding] {
        // Of the port, examinePort says more.
        let messages = survey.messages.filter { $0.level <= .warning && !$0.text.contains("4791") }.map { message in
            Finding.warning(
                .providers, "\(message.provider) says: \(message.text)",
                try: "set that right; with RDMA_LOG=debug providers say more")
        }
        let elections: [Finding] = survey.entries.flatMap { entry -> [Finding] in
            let look = "see every candidate: verbs providers \(entry.device.name)"
            let warnings = entry.warnings.map { Finding.warning(.providers, "\(entry.device.name): \($0)", try: look) }
            guard let error = entry.error else { return warnings }
            return [.fault(.providers, "\(entry.device.name) has no provider: \(error.sentence)", try: error.hint)]
                + warnings
        }
        let findings = messages + elections
        guard findings.isEmpty else { return findings }
        let served = survey.entries.compactMap { entry in
            entry.chosen.map { "\(entry.device.name) is served by \($0.provider)" }
        }
        return [.ok(.providers, served.isEmpty ? "no device needs a provider" : served.joined(separator: ", "))]
    }

    /// Can every driver file be used?
    func examineFiles() -> [Finding] {
        let problems = survey.problems.map { problem -> Finding in
            let place = [problem.path, problem.line.map(String.init)].compactMap { $0 }.joined(separator: ":")
            return .warning(
                .files, (place.isEmpty ? "" : place + ": ") + problem.sentence,
                try: problem.hint.isEmpty ? "correct the file or remove it" : problem.hint)
        }
        let unusable = survey.entries.flatMap(\.candidates).filter {
            // A match that does not fit, a mask and a missing library are ordinary; these are not.
            [.ownership, .providerABI, .kernelABI, .load, .negotiation, .name].contains($0.verdict.rule)
        }
        var seen: Set<String> = []
        let rejected = unusable.compactMap { candidate -> Finding? in
            guard let file = candidate.driverFile, seen.insert(file + candidate.verdict.sentence).inserted else {
                return nil
            }
            return .warning(
                .files, "\(file) is passed over: \(candidate.verdict.sentence)",
                try: "correct it, ask its vendor for a version that fits, or remove it")
        }
        let findings = problems + rejected
        return findings.isEmpty ? [.ok(.files, "no driver file is passed over for a fault")] : findings
    }

    /// Which environment variables change how providers are chosen?
    func examineSettings() -> [Finding] {
        let names = ["RDMA_PROVIDER", "RDMA_DRIVER_PATH"].filter { !(environment[$0] ?? "").isEmpty }
        guard !names.isEmpty else { return [.ok(.settings, "no environment variable interferes")] }
        return names.map { name in
            .note(.settings, "\(name)=\(environment[name] ?? "") decides over providers", try: "unset \(name)")
        }
    }
}
