import Testing
import ToolSupport

/// Runs of `verbs ping --all`.
enum Ping {
    /// The options of a run with so many messages for each operation, all of them verified.
    static func verified(_ count: Int) -> [String] {
        ["--count", "\(count - 2)", "--warm-up", "2", "--verify", "--json"]
    }

    /// Looks at the client's report: that nothing was wrong, and on RC nothing was lost.
    static func check(_ outcome: Tool.Outcome, sent count: Int) throws {
        let runs = try #require(try outcome.document()["runs"] as? [[String: Any]])
        #expect(runs.count >= 2)
        for run in runs {
            let transport = (run["run"] as? [String: Any])?["transport"] as? String
            let name = "\(transport ?? "") \(run["operation"] ?? "")"
            let client = try #require(run["client"] as? [String: Any])
            let server = try #require(run["server"] as? [String: Any])
            let lost = try #require(client["lost"] as? Int)
            #expect(lost == 0 || transport != "rc" && lost < count, "\(name)")
            #expect(client["corrupted"] as? Int == 0 && server["corrupted"] as? Int == 0, "\(name)")
            #expect(client["verified"] as? Int == count - lost, "\(name)")
        }
    }
}
