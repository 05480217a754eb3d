import ArgumentParser
import Glibc
import Verbs

/// The option for faults that the software device injects.
struct FaultOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Inject faults into the software devices that this command opens, on this machine: rules such as "seed=7; \
            loss=1%", or @FILE. Documentation/faults.md describes them.
            """, valueName: "rules"))
    var faults: String?

    func validate() throws {
        guard let faults else { return }
        if faults.utf8.contains(0) { throw ValidationError("The rules of --faults contain a NUL character.") }
        if let problem = FaultRules.problem(with: faults) { throw ValidationError(problem) }
    }

    /// Sets the environment for the devices that this process and its server open.
    /// - Parameters:
    ///   - device: Becomes the device of the loopback interface if none was given and the server is on this machine.
    ///   - peer: The peer of the run.
    func prepare(_ device: inout DeviceOptions, _ peer: PeerOptions) throws(ToolError) {
        guard let faults else { return }
        let isLocal = peer.host == nil && !peer.isServer
        if device.device == nil && isLocal { device.device = "soft0" }
        guard let name = device.device else {
            throw ToolError(
                .usage, "--faults needs a software device",
                hint: "name it: --device soft_eth0; verbs devices lists them")
        }
        guard try Device.chosen(name)[0].details.kind == .software else {
            throw ToolError(
                .unsupported, "\(name) is not a software device: faults cannot be injected",
                hint: "use one: --device soft0; verbs devices lists them")
        }
        setenv(FaultRules.variable, faults, 1)
    }
}
