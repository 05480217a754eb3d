// A ping-pong over a reliable connection: run `ping-pong` on one machine and `ping-pong HOST` on the other.
import Verbs

let host = CommandLine.arguments.dropFirst().first
let rounds = 1000

let context = try Device.openFirst()
let domain = try context.makeProtectionDomain()
let memory = try domain.makeMemoryRegion(byteCount: 4096)
let (ball, glove) = (try memory.slice(0..<64), try memory.slice(64..<128))
var completions = try context.makeCompletionQueue(capacity: 16)
var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
try pair.initialize()
try pair.postReceive(glove)

// Each side tells the other over TCP where it is reached, and connects to it.
let rendezvous = try host.map { try Rendezvous.connect(to: $0) } ?? Rendezvous.listen()
let peer = try rendezvous.exchange(pair.endpoint())
try pair.connect(to: peer)
_ = try rendezvous.exchange("ready")

let start = ContinuousClock.now
if host != nil { try pair.post(.send, ball) }
var caught = 0
while caught < rounds {
    let completion = try completions.poll(timeout: .seconds(10))
    try completion.check()
    guard completion.opcode == .receive else { continue }
    caught += 1
    try pair.postReceive(glove)
    if host == nil || caught < rounds { try pair.post(.send, ball) }
}
let time = ContinuousClock.now - start
_ = try rendezvous.exchange("done")
print("\(rounds) round trips on \(context.deviceName) with \(peer.gid), \(time / rounds) each")
