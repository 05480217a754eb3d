import CLinux
import CProviderABI
import Testing

@testable import Verbs

@Suite("Advice about an errno value")
struct AdviceTests {
    @Test("a byte count is printed in the largest unit that divides it")
    func bytes() {
        #expect(Advice.byteText(1 << 30) == "1 GiB" && Advice.byteText(512 << 30) == "512 GiB")
        #expect(Advice.byteText(512 << 20) == "512 MiB" && Advice.byteText(3 << 10) == "3 KiB")
        #expect(Advice.byteText(8 << 20) == "8 MiB" && Advice.byteText(30) == "30 bytes")
        #expect(Advice.byteText(0) == "0 bytes" && Advice.byteText((1 << 30) + 1) == "1073741825 bytes")
    }

    @Test("the memory lock advice names RLIMIT_MEMLOCK only if the process has a limit")
    func memoryLock() {
        let limit = linux_memlock_limit()
        let message = Advice.memoryLock.message ?? ""
        #expect(message.contains("RLIMIT_MEMLOCK is \(Advice.byteText(limit))") == (limit != .max), "\(message)")
    }

    @Test("EMFILE, ENFILE and ENOSYS have their own messages")
    func system() {
        let limit = "RLIMIT_NOFILE is \(linux_descriptor_limit())"
        #expect(Advice.message(for: .tooManyOpenFiles)?.contains(limit) == true)
        #expect(Advice.message(for: .tooManyOpenFilesInSystem)?.contains("fs.file-max") == true)
        #expect(Advice.message(for: .noFunction)?.contains("sandbox") == true)
    }

    @Test("rdma_explain does nothing with a core whose struct ends before explain")
    func olderCore() {
        var core = rdma_core()
        core.explain = { _, _ in Issue.record("explain is beyond core.size") }
        core.size = UInt32(MemoryLayout<rdma_core>.offset(of: \.explain)!)
        #expect(rdma_explain(&core, 22, "text") == 22)
        #expect(rdma_explain(nil, 22, "text") == 22)
        core.size = UInt32(MemoryLayout<rdma_core>.size)
        core.explain = nil
        #expect(rdma_explain(&core, 22, "text") == 22)
    }
}
