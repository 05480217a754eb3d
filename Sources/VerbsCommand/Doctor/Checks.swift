import ProviderLoader
import SystemPackage

extension SystemView {
    /// Runs every check; returns all findings.
    func examine() -> [Finding] {
        [
            examineSystem(), examineKernel(), examineAdapters(), examineDevices(), examineLibraries(),
            examinePermissions(),
            examineConnections(),
            examineMemory(), examinePort(), examineAddresses(), examineMTU(), examineProviders(), examineFiles(),
            examineSettings(),
        ].flatMap { $0 }
    }

    /// Checks what every device needs of the system: file descriptors, threads, system calls that a sandbox may forbid,
    /// /proc.
    func examineSystem() -> [Finding] {
        var findings: [Finding] = []
        if !exists("/proc/self") {
            findings.append(
                .warning(
                    .system, "/proc is not mounted: the owner of UDP port 4791 and mapped memory cannot be determined",
                    try: "mount -t proc proc /proc"))
        }
        if let left = freeDescriptors {
            findings.append(
                .error(
                    .system,
                    "only \(left) more file descriptors can be opened; two open devices need 32",
                    try: "raise the limit: ulimit -n 1024, or LimitNOFILE= in the service's unit"))
        }
        // EMFILE is reported above.
        for probe in probes {
            guard let error = probe.error, error != .tooManyOpenFiles else { continue }
            let message = "\(probe.call) fails: \(error.symbol) (\(error))"
            findings.append(
                probe.fallback.map { .warning(.system, message + "; " + $0, try: probe.hint(for: error)) }
                    ?? .error(.system, message, try: probe.hint(for: error)))
        }
        findings += slots.findings
        let success = "file descriptors, threads and system calls are available"
        return findings.isEmpty ? [.ok(.system, success)] : findings
    }

    /// Checks that the kernel's RDMA netlink can be queried, that network namespaces share devices, and that fork(2) is safe.
    func examineKernel() -> [Finding] {
        if let problem = kernelProblem {
            // If sysfs has no devices either, a missing RDMA subsystem is no problem.
            return kernelDevices.isEmpty
                ? [.note(.kernel, problem.message, try: problem.hint)]
                : [.warning(.kernel, problem.message, try: problem.hint)]
        }
        var findings: [Finding] = []
        if sharesDevices == false {
            findings.append(
                .note(
                    .kernel, "each RDMA device is visible in one network namespace only (exclusive mode)",
                    try:
                        "move a device: rdma dev set DEVICE netns NAMESPACE; or share all: rdma system set netns shared"
                ))
        }
        if !copiesOnFork, !kernelDevices.isEmpty {
            findings.append(
                .note(
                    .kernel, "this kernel does not copy registered memory for a child of fork(2)",
                    try:
                        "programs that call fork(2) need ibv_fork_init, or RDMAV_FORK_SAFE=1; or use Linux 5.12 or later"
                ))
        }
        return findings.isEmpty ? [.ok(.kernel, "the kernel responds to queries for RDMA devices")] : findings
    }

    /// Checks that there is a device, that it can be opened, and that a port of it is active.
    func examineDevices() -> [Finding] {
        if openings.isEmpty, let problem = survey.problems.first(where: { $0.code != nil }) {
            return [
                .error(
                    .devices, "the devices cannot be listed: \(problem.message)",
                    try: "solve the problems that the check system reports")
            ]
        }
        guard !openings.isEmpty else {
            return [
                .error(
                    .devices, "there is no RDMA device, not even the software device of the loopback interface",
                    try: "bring the loopback interface up: ip link set lo up")
            ]
        }
        let isAnyUp = openings.contains { $0.ports.contains(where: \.isActive) }
        let unlisted = survey.problems.filter { $0.code != nil }.map { problem in
            Finding.error(.devices, "devices are not listed: \(problem.message)", try: "see: verbs providers")
        }
        return examineReach() + unlisted
            + openings.map { opening in
                if survey[opening.device]?.error != nil {
                    return .note(.devices, "\(opening.device) is not opened: see the check providers")
                }
                if let failure = opening.failure {
                    return .error(.devices, "\(opening.device) cannot be opened: \(failure.message)", try: failure.hint)
                }
                guard let inactive = opening.ports.first, !opening.ports.contains(where: \.isActive) else {
                    return .ok(.devices, "\(opening.device) can be opened and has an active port")
                }
                let interface = opening.interface ?? "the device's network interface"
                let message = "no port of \(opening.device) is active: port \(inactive.number) is \(inactive.state)"
                let hint = "check the cable and the switch; for RoCE: ip link set \(interface) up"
                // Programs can use another device if one has an active port.
                return isAnyUp ? .warning(.devices, message, try: hint) : .error(.devices, message, try: hint)
            }
    }

    /// Notes that only the loopback interface has a device. Software devices of other interfaces are opened on request
    /// only, so that programs do not listen on a network unintentionally.
    private func examineReach() -> [Finding] {
        guard openings.allSatisfy({ $0.interface == "lo" }), !interfacesOnRequest.isEmpty else { return [] }
        let devices = interfacesOnRequest.map { "soft_\($0)" }.joined(separator: ", ")
        return [
            .note(
                .devices,
                "soft0 reaches this machine only; verbs ping and perf reach other machines through \(devices), which programs"
                    + " open by name",
                try: "for programs that open the first device: set RDMA_SOFT_INTERFACES="
                    + interfacesOnRequest.joined(separator: ",") + ", and select the device by its name")
        ]
    }

    /// Checks the shared libraries that devices need.
    func examineLibraries() -> [Finding] {
        var findings: [Finding] = []
        if let error = loadError("libibverbs.so.1") {
            findings.append(
                .error(
                    .libraries, "libibverbs.so.1 cannot be loaded: \(error)",
                    try: "apt install libibverbs1, or dnf install libibverbs"))
        }
        if !kernelDevices.isEmpty, names(in: "/etc/libibverbs.d").allSatisfy({ !$0.hasSuffix(".driver") }) {
            findings.append(
                .warning(
                    .libraries, "the distribution's providers are not installed: libibverbs cannot serve any device",
                    try: "apt install ibverbs-providers; on Fedora they are part of libibverbs"))
        }
        return findings.isEmpty ? [.ok(.libraries, "libibverbs.so.1 loads")] : findings
    }

    /// Checks that this user may open the device nodes of the kernel's devices.
    func examinePermissions() -> [Finding] {
        guard !kernelDevices.isEmpty else {
            return [.note(.permissions, "the kernel has no RDMA device: /dev/infiniband is not used")]
        }
        let nodes = names(in: sysfs + "/class/infiniband_verbs").filter { $0.hasPrefix("uverbs") }
        guard !nodes.isEmpty else {
            return [
                .error(
                    .permissions,
                    "the kernel has \(kernelDevices.joined(separator: ", ")), but no uverbs device nodes for programs",
                    try: "load the module: modprobe ib_uverbs")
            ]
        }
        return nodes.map { node in
            let path = "/dev/infiniband/\(node)"
            switch accessError(path) {
            case nil: return .ok(.permissions, "\(path) can be opened")
            case .noSuchFileOrDirectory?:
                return .error(
                    .permissions, "\(path) is missing",
                    try: "start udev; in a container, pass the node: docker run --device \(path)")
            case let error?:
                return .error(
                    .permissions, "\(path) cannot be opened: \(error)",
                    try:
                        "add your user to the group: usermod -aG rdma $USER and log in again, or MODE=\"0666\" in a udev rule"
                )
            }
        }
    }

    /// Checks the device node of the connection manager, which librdmacm needs.
    func examineConnections() -> [Finding] {
        guard !kernelDevices.isEmpty else { return [.ok(.connections, "no device needs the connection manager")] }
        let path = "/dev/infiniband/rdma_cm"
        switch accessError(path) {
        case nil: return [.ok(.connections, "\(path) can be opened")]
        case .noSuchFileOrDirectory?:
            return [
                .warning(
                    .connections, "\(path) is missing: programs that connect with librdmacm fail",
                    try:
                        "load the module: modprobe rdma_ucm; in a container, pass the node: docker run --device \(path)"
                )
            ]
        case let error?:
            return [
                .warning(
                    .connections, "\(path) cannot be opened: \(error); programs that connect with librdmacm fail",
                    try:
                        "add your user to the group: usermod -aG rdma $USER and log in again, or MODE=\"0666\" in a udev rule"
                )
            ]
        }
    }

    /// Checks that every active port has a GID that other hosts can reach.
    func examineAddresses() -> [Finding] {
        let findings = openings.flatMap { opening in
            opening.ports.filter { $0.isActive && $0.reach != .routable }.map { port in
                let interface = opening.interface ?? "INTERFACE"
                let name = "port \(port.number) of \(opening.device)"
                let message =
                    switch port.reach {
                    case .noGID: "\(name) has no GID: it cannot connect"
                    case .noAddress: "\(interface), the interface of \(opening.device), has no routable IP address"
                    default: "\(name) has only link-local GIDs: it has no routable IP address"
                    }
                return Finding.warning(
                    .addresses, message,
                    try: "add an address to its interface: ip address add ADDRESS/PREFIX dev \(interface)")
            }
        }
        let all = findings + examineDetection()
        return all.isEmpty ? [.ok(.addresses, "every active port has a routable address")] : all
    }

    /// Finds IPv6 addresses that sockets cannot be bound to, in proc(5)'s net/if_inet6 with the flags of
    /// linux/if_addr.h.
    private func examineDetection() -> [Finding] {
        let interfaces = Set(openings.compactMap(\.interface))
        return (text(of: "/proc/net/if_inet6") ?? "").split(separator: "\n").compactMap { line in
            // address ifindex prefix-length scope flags interface
            let fields = line.split(separator: " ")
            guard fields.count == 6, interfaces.contains(String(fields[5])), let flags = UInt32(fields[4], radix: 16)
            else {
                return nil
            }
            let (optimistic, failed, tentative): (UInt32, UInt32, UInt32) = (0x04, 0x08, 0x40)
            let address = stride(from: 0, to: 32, by: 4).map { start in
                fields[0].dropFirst(start).prefix(4)
            }.joined(separator: ":")
            let show = "ip -6 address show dev \(fields[5])"
            if flags & failed != 0 {
                return .warning(
                    .addresses,
                    "\(fields[5]) cannot use \(address): another host uses it (duplicate address detection failed)",
                    try: "give one of the hosts another address, and remove this one; \(show)")
            }
            guard flags & tentative != 0, flags & optimistic == 0 else { return nil }
            return .note(
                .addresses, "\(fields[5]) cannot use \(address) yet: duplicate address detection is not finished",
                try: "wait two seconds, or add the address with `nodad`; \(show)")
        }
    }

    /// Checks the limit of pinned memory.
    func examineMemory() -> [Finding] {
        guard let lockableMemory, !ignoresMemoryLimit else {
            return [.ok(.memory, "pinned memory is not limited")]
        }
        let text = "at most \(Units.size(lockableMemory)) of memory can be pinned (RLIMIT_MEMLOCK)"
        let hint =
            "ulimit -l unlimited; permanently: \"* - memlock unlimited\" in /etc/security/limits.d/rdma.conf, or"
            + " LimitMEMLOCK=infinity in the service's unit"
        if kernelDevices.isEmpty { return [.note(.memory, text + "; software devices do not pin memory")] }
        guard lockableMemory < 64 << 20 else { return [.ok(.memory, text)] }
        return [.warning(.memory, text + ": registering more fails with ENOMEM", try: hint)]
    }

    /// Checks that the software device can bind its UDP port.
    func examinePort() -> [Finding] {
        let port: UInt16 = 4791
        let consequence = "the software device reaches processes of this machine only"
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
                    try: "ss -lunp 'sport = :\(port)' shows the program; end it, or run as the same user")
            ]
        }
        if !owners.isEmpty {
            guard bindError(port) != nil else {
                return [.ok(.port, "UDP port \(port) is in use by your own programs, which share it (SO_REUSEPORT)")]
            }
            return [
                .warning(
                    .port, "a program of yours holds UDP port \(port) without SO_REUSEPORT: \(consequence)",
                    try: "ss -lunp 'sport = :\(port)' shows the program; end it")
            ]
        }
        if let error = bindError(port) {
            return [
                .warning(
                    .port, "UDP port \(port) cannot be bound (\(error)): \(consequence)",
                    try: "check the security module and the container's profile")
            ]
        }
        return [.ok(.port, "UDP port \(port) is free")]
    }

    /// The user IDs of the sockets that are bound to a UDP port, from proc(5)'s net/udp and net/udp6.
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

    /// Compares the active MTU of each port with its maximum MTU.
    func examineMTU() -> [Finding] {
        let roce = openings.filter { !$0.isIWARP }
        let small: [Finding] = roce.flatMap { opening in
            opening.ports.filter { $0.isActive && $0.activeMTU > 0 && $0.activeMTU < $0.maximumMTU }.map { port in
                let interface = opening.interface ?? "INTERFACE"
                return Finding.note(
                    .mtu,
                    "port \(port.number) of \(opening.device) has an active MTU of \(port.activeMTU) bytes; its maximum is"
                        + " \(port.maximumMTU)",
                    try: "raise the MTU on the whole path, including 104 bytes of headers: ip link set \(interface) mtu"
                        + " \(port.maximumMTU + 104)")
            }
        }
        let tooSmall: [Finding] = roce.compactMap(\.interface).compactMap { interface in
            guard let text = text(of: "\(sysfs)/class/net/\(interface)/mtu"), let mtu = Int(text.filter(\.isNumber)),
                mtu < 256 + 80
            else { return nil }
            return .error(
                .mtu, "\(interface) has an MTU of \(mtu) bytes: RoCE needs at least 336",
                try: "ip link set \(interface) mtu 1500")
        }
        let findings = tooSmall + small
        return findings.isEmpty ? [.ok(.mtu, "every port uses its maximum MTU")] : findings
    }

    /// Checks that every device is served by its highest-ranked provider, and that no provider logged a warning.
    func examineProviders() -> [Finding] {
        // examinePort reports UDP port 4791 in more detail.
        let messages = survey.messages.filter { $0.level <= .warning && !$0.text.contains("4791") }.map { message in
            Finding.warning(
                .providers, "\(message.provider) warns: \(message.text)",
                try: "solve this problem; with RDMA_LOG=debug providers log more")
        }
        let selections: [Finding] = survey.entries.flatMap { entry -> [Finding] in
            let hint = "see every candidate: verbs providers \(entry.device.name)"
            let warnings = entry.warnings.map { Finding.warning(.providers, "\(entry.device.name): \($0)", try: hint) }
            guard let error = entry.error else { return warnings }
            return [.error(.providers, "\(entry.device.name) has no provider: \(error.message)", try: error.hint)]
                + warnings
        }
        let unproved = survey.entries.compactMap { entry -> Finding? in
            guard let chosen = entry.chosen, chosen.proof == .simulator else { return nil }
            return .note(
                .providers,
                "\(entry.device.name) is served by \(chosen.provider), which was proved on a simulated device, not on "
                    + "silicon",
                try: ProvidersReport.wayBack)
        }
        let findings = messages + selections
        guard findings.isEmpty else { return findings + unproved }
        let served = survey.entries.compactMap { entry in
            entry.chosen.map { "\(entry.device.name) is served by \($0.provider)" }
        }
        let text = served.isEmpty ? "no device needs a provider" : served.joined(separator: ", ")
        return [.ok(.providers, text)] + unproved
    }

    /// Checks that every driver file can be used.
    func examineFiles() -> [Finding] {
        let problems = survey.problems.filter { $0.code == nil }.map { problem -> Finding in
            let place = [problem.path, problem.line.map(String.init)].compactMap { $0 }.joined(separator: ":")
            return .warning(
                .files, (place.isEmpty ? "" : place + ": ") + problem.message,
                try: problem.hint.isEmpty ? "correct the file or remove it" : problem.hint)
        }
        let unusable = survey.entries.flatMap(\.candidates).filter {
            // A match that does not fit, a mask and a missing library are normal; these rules indicate a problem.
            [.ownership, .providerABI, .kernelABI, .load, .negotiation, .name].contains($0.verdict.rule)
        }
        var seen: Set<String> = []
        let rejected = unusable.compactMap { candidate -> Finding? in
            guard let file = candidate.driverFile, seen.insert(file + candidate.verdict.message).inserted else {
                return nil
            }
            return .warning(
                .files, "\(file) is skipped: \(candidate.verdict.message)",
                try: "correct it, ask its vendor for a compatible version, or remove it")
        }
        let findings = problems + rejected
        return findings.isEmpty ? [.ok(.files, "no driver file is skipped because of an error")] : findings
    }

    /// Reports environment variables that affect the choice of providers.
    func examineSettings() -> [Finding] {
        let names = ["RDMA_PROVIDER", "RDMA_DRIVER_PATH"].filter { !(environment[$0] ?? "").isEmpty }
        guard !names.isEmpty else { return [.ok(.settings, "no environment variable affects the choice of providers")] }
        return names.map { name in
            .note(.settings, "\(name)=\(environment[name] ?? "") affects the choice of providers", try: "unset \(name)")
        }
    }
}
