import CIBVerbs
import CProviderABI
import Testing

@testable import ProviderLoader

@Suite("Opening a device")
struct OpeningTests {
    @Test("With nothing in /etc, the built-in providers serve kernel and software devices")
    func builtIn() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let survey = bench.loader.survey()
        #expect(survey.entries.map(\.device.name) == ["mlx5_0", "soft0"])
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(survey["soft0"]?.chosen?.provider == "soft")
        #expect(survey.problems == [])
        for name in ["mlx5_0", "soft0"] {
            let opened = try bench.loader.open(name)
            #expect(opened.description.name == name)
            #expect(opened.warnings == [])
            #expect(opened.context.pointee.device == opened.device.pointee.device)
            #expect(opened.close() == 0)
        }
    }
}
