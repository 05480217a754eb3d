import Foundation
import Testing

extension Soft {
    @Suite("Harm to processes that exchange data")
    struct ChaosTests {
        /// RDMA_CHAOS_SECONDS in the environment makes it longer.
        @Test(
            """
            While peers are killed and stopped, memory is deregistered, queue pairs are destroyed and limits are small, no \
            byte is lost or wrong, nothing hangs, and nothing is left
            """)
        func chaos() throws {
            let seconds = ProcessInfo.processInfo.environment["RDMA_CHAOS_SECONDS"] ?? "15"
            let process = Process()
            process.executableURL = PeerProcess.built("soft-chaos")
            process.arguments = ["--seconds", seconds]
            let output = Pipe()
            process.standardOutput = output
            process.standardError = output
            try process.run()
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0, "\(text)")
            // Only broken runs are silent; the summary shows how much was done.
            print(text)
        }
    }
}
