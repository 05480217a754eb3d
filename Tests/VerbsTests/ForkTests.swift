import CLinux
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Verbs

/// In a child of a process with threads, the thread sanitizer waits for its own locks, which no thread releases.
private let canRunChildren = dlsym(UnsafeMutableRawPointer(bitPattern: 0), "__tsan_init") == nil

@Suite("fork(2)", .enabled(if: canRunChildren))
struct ForkTests {
    /// Runs fork-peer: a program that moves data over soft0, compares every byte, and forks 20 children meanwhile.
    private func forkPeer(_ scenario: String) throws -> (output: String, status: Int32) {
        let process = Process()
        let bundle = CommandLine.arguments.first { $0.contains(".xctest") } ?? CommandLine.arguments[0]
        let path = bundle.range(of: ".xctest").map { String(bundle[..<$0.upperBound]) } ?? bundle
        process.executableURL = URL(fileURLWithPath: path).deletingLastPathComponent().appendingPathComponent(
            "fork-peer")
        process.arguments = ["soft0", scenario, "20"]
        process.environment = ["RDMA_DRIVER_PATH": "", "SWIFT_BACKTRACE": "enable=no", "PATH": "/usr/bin:/bin"]
        // In the child that exits, the stacks of the parent's threads are gone, and with them references.
        process.environment?["ASAN_OPTIONS"] = "detect_leaks=0"
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (output, process.terminationStatus)
    }

    @Test(
        "the parent goes on, with every byte right, while a child writes into the same pages, exits or execs",
        arguments: ["writes", "exits", "execs"])
    func parentGoesOn(scenario: String) throws {
        let (output, status) = try forkPeer(scenario)
        #expect(
            status == 0 && output.contains("provider=soft") && output.contains("children=20 statuses=0 "), "\(output)")
    }

    /// The answers are those of post_send, post_recv, poll_cq, req_notify_cq, wr_complete and start_poll. None waits for a
    /// lock that a thread of the parent held.
    @Test("a child that posts or polls gets EPERM, and the parent goes on")
    func posts() throws {
        let (output, status) = try forkPeer("posts")
        #expect(status == 0 && output.contains("statuses=0 answers=1 1 -1 1 1 1 "), "\(output)")
    }

    @Test("a child that calls the API gets EPERM, and what it releases stays open in the parent")
    func calls() throws {
        let (output, status) = try forkPeer("calls")
        #expect(status == 0 && output.contains("children=20 statuses=0 "), "\(output)")
    }
}

@Suite("Pages that children of fork(2) do not inherit")
struct MarkedPagesTests {
    /// The pages that the kernel does not copy, by the calls of madvise(2).
    private final class Kernel: Sendable {
        let marked = Mutex<Set<UInt>>([])

        func advise(_ pages: Range<UInt>, _ advice: CInt) -> CInt {
            marked.withLock { marked in
                for page in pages {
                    if advice == MADV_DONTFORK { marked.insert(page) } else { marked.remove(page) }
                }
            }
            return 0
        }
    }

    @Test("a page is marked as long as a registration contains it, whatever their order", arguments: 0..<20)
    func counts(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let kernel = Kernel()
        var pages = MarkedPages()
        pages.advise = { kernel.advise($0, $1) }
        var registrations: [Range<UInt>] = []
        for _ in 0..<300 {
            if registrations.count > 12 || !registrations.isEmpty && random.next() % 2 == 0 {
                pages.release(registrations.remove(at: Int(random.next() % UInt64(registrations.count))))
            } else {
                let start = UInt(random.next() % 40)
                registrations.append(start..<start + 1 + UInt(random.next() % 20))
                #expect(pages.mark(registrations.last!) == 0)
            }
            #expect(kernel.marked.withLock { $0 } == Set(registrations.joined()))
            let counts = pages.segments.map { segment in
                segment.pages.allSatisfy { page in registrations.count { $0.contains(page) } == segment.count }
            }
            #expect(counts.allSatisfy { $0 })
            // Adjacent segments differ, so that they do not accumulate.
            #expect(
                zip(pages.segments, pages.segments.dropFirst()).allSatisfy {
                    $0.pages.upperBound < $1.pages.lowerBound
                        || $0.pages.upperBound == $1.pages.lowerBound && $0.count != $1.count
                })
        }
    }

    @Test("the kernel does not copy marked pages for a child, and copies them again afterwards (smaps)")
    func kernel() throws {
        let size = Int(linux_page_size())
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * size, alignment: size)
        defer { memory.deallocate() }
        memset(memory.baseAddress!, 1, memory.count)
        let middle = UnsafeMutableRawBufferPointer(rebasing: memory[size + 1..<2 * size + 1])
        var pages = MarkedPages()
        let range = try #require(MarkedPages.pages(of: middle))
        // The bytes touch two pages.
        #expect(range.lowerBound == UInt(bitPattern: memory.baseAddress!) + UInt(size) && range.count == 2 * size)
        #expect(pages.mark(range) == 0)
        #expect(try isKeptFromChildren(range.lowerBound) && isKeptFromChildren(range.upperBound - 1))
        #expect(try !isKeptFromChildren(range.lowerBound - 1) && !isKeptFromChildren(range.upperBound))
        pages.release(range)
        #expect(try !isKeptFromChildren(range.lowerBound))
    }

    @Test("pages that the kernel refuses to mark are not counted")
    func refused() {
        var pages = MarkedPages()
        pages.advise = { _, advice in advice == MADV_DONTFORK ? EINVAL : 0 }
        #expect(pages.mark(0..<4096) == EINVAL && pages.segments.isEmpty)
    }

    @Test("memory of a size that wraps, or of none, has no pages")
    func empty() {
        #expect(MarkedPages.pages(of: UnsafeMutableRawBufferPointer(start: nil, count: 0)) == nil)
        let last = UnsafeMutableRawPointer(bitPattern: UInt.max)
        #expect(MarkedPages.pages(of: UnsafeMutableRawBufferPointer(start: last, count: 4096)) == nil)
    }

    /// Whether the mapping of the address has the flag `dc` (do not copy on fork) in /proc/self/smaps.
    private func isKeptFromChildren(_ address: UInt) throws -> Bool {
        var isWithin = false
        let file = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
        for line in String(decoding: file.readDataToEndOfFile(), as: UTF8.self).split(separator: "\n") {
            if let range = line.wholeMatch(of: /([0-9a-f]+)-([0-9a-f]+) .*/),
                let start = UInt(range.1, radix: 16), let end = UInt(range.2, radix: 16)
            {
                isWithin = (start..<end).contains(address)
            } else if isWithin, line.hasPrefix("VmFlags:") {
                return line.split(separator: " ").contains("dc")
            }
        }
        return false
    }
}
