import Foundation
import Testing

/// A program of Debian's that runs in the background, with its output in a file.
struct Program {
    let output: String

    /// Starts the program. timeout(1) ends it after two minutes.
    ///
    /// - Parameter prefix: A command that runs the program elsewhere, such as on another host.
    init(_ command: String, prefix: String = "") async throws {
        output = "/dev/shm/\(UUID().uuidString)"
        // What puts the program elsewhere becomes timeout(1), so that its process is known.
        try await Bench.shell(
            """
            (
                \(prefix) timeout 120 \(command) & echo $! >\(output).process
                status=0; wait $! || status=$?; echo "ended with $status"
            ) >\(output) 2>&1 &
            """)
    }

    /// Waits until the output contains `text`, and returns the whole output.
    @discardableResult
    func awaitOutput(_ text: String) async throws -> String {
        try await soon("grep -q '\(text)' \(output)")
        return try await Bench.shell("cat \(output)")
    }

    /// Ends a program that does not exit by itself, and waits until it has ended.
    func terminate() async throws {
        try await Bench.shell("kill $(cat \(output).process)")
        try await awaitOutput("ended with")
    }

    /// Waits until the program exits, which must be with status 0, and returns its output.
    @discardableResult
    func end() async throws -> String {
        let output = try await awaitOutput("ended with")
        #expect(output.contains("ended with 0"), "\(output)")
        return output
    }
}

/// Waits until a shell command succeeds, two minutes at most.
func soon(_ condition: String) async throws {
    try await Bench.shell("for try in $(seq 1200); do \(condition) && exit 0; sleep 0.1; done; exit 1")
}

/// Waits until an rdma_cm identifier listens.
func awaitListener() async throws { try await soon("rdma resource show cm_id | grep -q LISTEN") }

/// Stops a process, and waits until all its threads have stopped: they do so one after the other.
func stop(_ process: pid_t) async throws {
    kill(process, SIGSTOP)
    try await soon("! grep -h ^State: /proc/\(process)/task/*/status | grep -qv stopped")
}
