/// The result of one check of `verbs doctor`.
struct Finding: Codable, Equatable {
    /// The severity, in increasing order.
    enum Status: String, Codable, CaseIterable, Comparable {
        /// No problem.
        case ok
        /// Information.
        case note
        /// RDMA works with restrictions.
        case warning
        /// RDMA does not work.
        case error

        static func < (left: Status, right: Status) -> Bool {
            allCases.firstIndex(of: left)! < allCases.firstIndex(of: right)!
        }
    }

    /// The checks; the raw values are the names in JSON documents.
    enum Check: String, Codable, CaseIterable {
        case system, kernel, devices, libraries, permissions, connections, memory, port, addresses, mtu, providers,
            files,
            settings
    }

    var check: Check
    var status: Status
    var message: String
    /// What the user can try; nil if nothing needs to be done.
    var hint: String?

    static func ok(_ check: Check, _ message: String) -> Finding {
        Finding(check: check, status: .ok, message: message, hint: nil)
    }

    static func note(_ check: Check, _ message: String, try hint: String? = nil) -> Finding {
        Finding(check: check, status: .note, message: message, hint: hint)
    }

    static func warning(_ check: Check, _ message: String, try hint: String) -> Finding {
        Finding(check: check, status: .warning, message: message, hint: hint)
    }

    static func error(_ check: Check, _ message: String, try hint: String) -> Finding {
        Finding(check: check, status: .error, message: message, hint: hint)
    }
}
