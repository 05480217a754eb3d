import SoftProvider

/// Rules of faults that the software device injects on request (Documentation/faults.md).
package enum FaultRules {
    /// The environment variable that has the rules.
    package static let variable = "RDMA_SOFT_FAULTS"

    /// The reason why these rules cannot be used, or nil. `rules` are the rules themselves, or "@" and the path of a file
    /// with them, given by the option `--faults`.
    package static func problem(with rules: String) -> String? {
        var problem: String?
        rules.withCString { text in checkFaultRules(text, from: "--faults") { problem = String(cString: $0) } }
        return problem
    }
}
