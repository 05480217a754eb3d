/// What one check of `verbs doctor` has found.
struct Finding: Codable, Equatable {
    /// How much it stands in the way.
    enum Status: String, Codable, CaseIterable, Comparable {
        /// As it should be.
        case ok
        /// Worth knowing.
        case note
        /// It works, but less well than it could, or not everything works.
        case warning
        /// It stands in the way.
        case fault

        static func < (left: Status, right: Status) -> Bool {
            allCases.firstIndex(of: left)! < allCases.firstIndex(of: right)!
        }
    }

    /// The checks, by the names that `--json` shows.
    enum Check: String, Codable, CaseIterable {
        case kernel, devices, libraries, permissions, connections, memory, port, addresses, mtu, providers, files,
            settings
    }

    var check: Check
    var status: Status
    /// What was found.
    var found: String
    /// What to try; nil where nothing is to be done.
    var remedy: String?

    static func ok(_ check: Check, _ found: String) -> Finding {
        Finding(check: check, status: .ok, found: found, remedy: nil)
    }

    static func note(_ check: Check, _ found: String, try remedy: String? = nil) -> Finding {
        Finding(check: check, status: .note, found: found, remedy: remedy)
    }

    static func warning(_ check: Check, _ found: String, try remedy: String) -> Finding {
        Finding(check: check, status: .warning, found: found, remedy: remedy)
    }

    static func fault(_ check: Check, _ found: String, try remedy: String) -> Finding {
        Finding(check: check, status: .fault, found: found, remedy: remedy)
    }
}
