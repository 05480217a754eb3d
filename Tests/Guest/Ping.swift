import Testing
import ToolSupport

/// Runs of `verbs ping --all`.
enum Ping {
    /// The options of a run with `count` messages per operation, all of them verified.
    static func verified(_ count: Int) -> [String] {
        ["--count", "\(count - 2)", "--warm-up", "2", "--verify", "--json"]
    }

    /// Checks the client's report: no message is corrupted, and on RC none is lost.
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
