import Foundation
import Testing
import ToolSupport

@Suite("SchemaValidator detects violations")
struct SchemaTests {
    private func faults(_ json: String) throws -> [String] {
        try SchemaValidator(named: "doctor").faults(JSONSerialization.jsonObject(with: Data(json.utf8)))
    }

    @Test("a valid document passes")
    func right() throws {
        #expect(
            try faults(
                #"{"schema": "verbs-doctor-2", "worst": "ok", "findings": [{"check": "mtu", "status": "ok", "message": ""}]}"#
            ).isEmpty)
    }

    @Test(
        "an invalid document fails",
        arguments: [
            #"{"schema": "verbs-doctor-3", "worst": "ok", "findings": []}"#,
            #"{"schema": "verbs-doctor-2", "findings": []}"#,
            #"{"schema": "verbs-doctor-2", "worst": "bad", "findings": []}"#,
            #"{"schema": "verbs-doctor-2", "worst": "ok", "findings": {}}"#,
            #"{"schema": "verbs-doctor-2", "worst": "ok", "findings": [], "more": 1}"#,
            #"{"schema": "verbs-doctor-2", "worst": "ok", "findings": [{"check": "mtu", "status": "ok", "message": 1}]}"#,
            #"{"schema": "verbs-doctor-2", "worst": "ok", "findings": [{"check": "mtu", "status": "ok"}]}"#,
        ])
    func wrong(json: String) throws {
        #expect(try faults(json).count == 1)
    }

    @Test("types, minimums and patterns are checked")
    func types() throws {
        let ping = try SchemaValidator(named: "ping")
        let faults = ping.faults(["isRoundTrip": 1, "verify": true, "size": -1, "elapsedNanoseconds": 1.5])
        for expected in ["$.isRoundTrip: 1 is not of type boolean", "$.size: -1 is below 0"] {
            #expect(faults.contains(expected), "\(faults)")
        }
        #expect(faults.contains { $0.hasPrefix("$.elapsedNanoseconds: 1.5") })
        #expect(!faults.contains { $0.hasPrefix("$.verify") })
    }
}
