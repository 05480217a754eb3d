// A queue pair of soft on another host, for tests of ATOMIC WRITE and FLUSH:
//
//     placement-peer DEVICE REGION-ACCESS PAIR-ACCESS ENDPOINT FILE REQUEST…
//
// It writes its endpoint into FILE, connects to ENDPOINT, makes the requests one after the other, prints opcode and status of
// each completion, and serves requests until FILE is removed. Then it prints the words of its memory that are not 0. The
// accesses are numbers of enum ibv_access_flags. A request is write,OFFSET,VALUE or flush,OFFSET,LENGTH,PLACEMENT,LEVEL.

import Glibc
import Verbs

struct Failure: Error { let text: String }

func request(_ words: [UInt64], _ kind: Substring, _ memory: RemoteMemory, on pair: inout QueuePair) throws(VerbsError)
{
    let target = RemoteMemory(
        address: memory.address + words[0], rkey: memory.rkey, byteCount: kind == "write" ? 8 : words[1])
    try pair.postExtended { (requests) throws(VerbsError) in
        if kind == "write" {
            let value: [1 of UInt64] = [words[1]]
            try requests.append(.atomicWrite(to: target), inline: value.span.bytes)
        } else {
            try requests.append(
                .flush(
                    target, placement: FlushPlacement(rawValue: UInt8(words[2])),
                    selectivity: FlushSelectivity(rawValue: UInt32(words[3]))))
        }
    }
}

func run(_ words: [String]) throws {
    guard words.count >= 5, let regionAccess = UInt32(words[1]), let pairAccess = UInt32(words[2]),
        let peer = Endpoint(words[3]), let remote = peer.memory
    else { throw Failure(text: "DEVICE REGION-ACCESS PAIR-ACCESS ENDPOINT FILE REQUEST…") }
    let context = try Device.named(words[0]).open()
    let domain = try context.makeProtectionDomain()
    let memory = try domain.makeMemoryRegion(byteCount: 4096, access: AccessFlags(rawValue: regionAccess))
    var completions = try context.makeCompletionQueue(capacity: 16)
    var creation = QueuePair.CreationOptions()
    creation.extendedOperations = [.atomicWrite, .flush]
    var pair = try domain.makeQueuePair(.reliableConnection, completions: completions, options: creation)
    let address = try context.addresses().first { $0.gid.isIPv4Mapped == peer.gid.isIPv4Mapped && !$0.gid.isLinkLocal }
    let own = try pair.endpoint(at: address, memory: memory.remote)
    var options = ConnectionOptions()
    options.access = AccessFlags(rawValue: pairAccess)
    // 1.07 s: longer than it takes to resolve an address again on a network that loses packets.
    options.timeout = LocalACKTimeout(rawValue: 18)
    try pair.connect(to: peer, options: options)
    let file = creat(words[4] + ".new", 0o600)
    let line = Array("\(own)".utf8)
    write(file, line, line.count)
    close(file)
    rename(words[4] + ".new", words[4])

    for word in words.dropFirst(5) {
        let parts = word.split(separator: ",")
        try request(parts.dropFirst().map { UInt64($0)! }, parts[0], remote, on: &pair)
        let completion = try completions.poll(timeout: .seconds(300))
        print(completion.status == .success ? "\(completion.opcode)" : "\(completion.status)")
    }
    while access(words[4], F_OK) == 0 { usleep(20_000) }
    for offset in stride(from: 0, to: 4096, by: 8) {
        let value = try memory.loadAcquiring(at: offset)
        if value != 0 { print("\(offset)=\(value)") }
    }
}

do {
    try run(Array(CommandLine.arguments.dropFirst()))
} catch {
    let line = Array("placement-peer: \(error)\n".utf8)
    write(STDERR_FILENO, line, line.count)
    // The test waits for FILE.
    if CommandLine.arguments.count > 5 { close(creat(CommandLine.arguments[5], 0o600)) }
    exit(1)
}
