// A UD queue pair of soft on another host, for tests of multicast:
//
//     multicast-peer DEVICE GROUP send TEXT
//     multicast-peer DEVICE GROUP receive FILE
//
// The second form attaches to the group, makes FILE, and prints the next datagram's text.

import Glibc
import Verbs

struct Failure: Error { let text: String }

/// The Q_Key of the tests.
let qkey: UInt32 = 0x1122_3344

func run(_ words: [String]) throws {
    guard words.count == 4, let gid = GID(words[1]) else { throw Failure(text: "DEVICE GROUP send|receive TEXT|FILE") }
    let context = try Device.named(words[0]).open()
    let domain = try context.makeProtectionDomain()
    let memory = try domain.makeMemoryRegion(byteCount: 256)
    var completions = try context.makeCompletionQueue(capacity: 4)
    var pair = try domain.makeQueuePair(.unreliableDatagram, completions: completions)
    try pair.activate()
    var attributes = QueuePair.Attributes()
    attributes.qkey = qkey
    try pair.modify(attributes)
    if words[2] == "receive" {
        try pair.postReceive(memory.sge())
        try pair.attach(to: MulticastGroup(gid: gid))
        close(creat(words[3], 0o600))
        let completion = try completions.poll(timeout: .seconds(300))
        try completion.check()
        // After the area of the GRH.
        print(String(decoding: try memory.copyBytes(40..<completion.byteCount), as: UTF8.self))
        return
    }
    let source = try context.addresses().first { $0.gid.isIPv4Mapped == gid.isIPv4Mapped && !$0.gid.isLinkLocal }
    // The QPN of multicast datagrams: IBTA volume 1, 10.5.
    let group = Endpoint(
        queuePairNumber: 0xff_ffff, packetSequenceNumber: 0, gid: gid, lid: 0, mtu: .bytes1024, qkey: qkey)
    try memory.copyBytes(from: Array(words[3].utf8).span.bytes)
    try pair.postSend(
        .send, try memory.sge(0..<words[3].utf8.count), to: try domain.makeDestination(group, from: source))
    try completions.poll(timeout: .seconds(300)).check()
}

do {
    try run(Array(CommandLine.arguments.dropFirst()))
} catch {
    let line = Array("multicast-peer: \(error)\n".utf8)
    write(STDERR_FILENO, line, line.count)
    exit(1)
}
