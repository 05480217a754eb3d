@testable import SoftProvider

/// Passes the fuzzer's input to the code of soft that reads packets to queue pair 1: as a packet, and as a MAD.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzManagement(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    // In memory of exactly its length, so that the sanitizer notices a byte that is read beyond it.
    let input = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
    defer { input.deallocate() }
    input.copyMemory(from: UnsafeRawBufferPointer(start: start, count: count))
    let bytes = UnsafeRawBufferPointer(input)
    if let mad = ManagementPort.message(in: bytes) { check(mad) }
    check(bytes)
    return 0
}

/// A message has a receiver. A reply in the place of a process goes to the sender, and needs no reply itself.
private func check(_ mad: UnsafeRawBufferPointer) {
    guard let message = ManagementMessage(mad) else { return }
    if case .slot(let slot) = message.receiver, !(0...255).contains(slot) { fatalError("slot \(slot)") }
    var reply = [UInt8](repeating: 0xAA, count: ManagementMessage.byteCount)
    guard reply.withUnsafeMutableBytes({ message.writeReply(to: $0) }) else { return }
    reply.withUnsafeBytes { bytes in
        guard let answer = ManagementMessage(bytes), case .slot(Int(mad[24])) = answer.receiver else {
            fatalError("the reply is not to the sender")
        }
        var second = [UInt8](repeating: 0, count: ManagementMessage.byteCount)
        if second.withUnsafeMutableBytes({ answer.writeReply(to: $0) }) { fatalError("a reply to a reply") }
    }
}
