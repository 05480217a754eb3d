// A ping-pong over a reliable connection: run `ping-pong` on one machine and `ping-pong HOST` on the other.
import Rendezvous
import Verbs

let host = CommandLine.arguments.dropFirst().first
let rounds = 1000

// Each peer uses the device through which it reaches the other.
let rendezvous = try host.map { try Rendezvous.connect(to: $0) } ?? Rendezvous.listen()
let context = try Device.openFirst(reaching: rendezvous.fileDescriptor)
let domain = try context.makeProtectionDomain()
let memory = try domain.makeMemoryRegion(byteCount: 4096)
let (message, receiveBuffer) = (try memory.sge(0..<64), try memory.sge(64..<128))
var completions = try context.makeCompletionQueue(capacity: 16)
var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
try pair.initialize()
try pair.postReceive(receiveBuffer)

// The peers exchange their endpoints over TCP, and connect.
let peer = try rendezvous.exchange(pair.endpoint())
try pair.connect(to: peer)
_ = try rendezvous.exchange("ready")

let start = ContinuousClock.now
if host != nil { try pair.postSend(.send, message) }
var received = 0
while received < rounds {
    let completion = try completions.poll(timeout: .seconds(10))
    try completion.check()
    guard completion.opcode == .receive else { continue }
    received += 1
    try pair.postReceive(receiveBuffer)
    if host == nil || received < rounds { try pair.postSend(.send, message) }
}
let time = ContinuousClock.now - start
_ = try rendezvous.exchange("done")
print("\(rounds) round trips on \(context.deviceName) with \(peer.gid), \(time / rounds) each")
