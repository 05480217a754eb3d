/// Reads a datagram in every way there is, as whatever it may be: what comes from the kernel must never be able to stop
/// a program. For tests and fuzzing.
///
/// - Returns: how many values could be read.
@discardableResult
package func readEverything(_ datagram: [UInt8]) -> Int {
    var count = KernelEvent(kernelObject: datagram) == nil ? 0 : 1
    var states = InterfaceStates()
    guard let messages = try? Message.all(in: datagram) else { return count }
    for case .data(let type, let payload) in messages.map(\.kind) {
        func tried<Value>(_ read: () throws(MalformedMessage) -> Value?) {
            if let _ = try? read() { count += 1 }
        }
        tried { () throws(MalformedMessage) in try states.take(type: type, payload) }
        tried { () throws(MalformedMessage) in try KernelEvent(monitor: payload) }
        tried { () throws(MalformedMessage) in try RDMADevice(payload) }
        tried { () throws(MalformedMessage) in try RDMALink(payload) }
        tried { () throws(MalformedMessage) in try CharacterDevice(payload) }
        tried { () throws(MalformedMessage) in try RDMASystem(payload) }
        tried { () throws(MalformedMessage) in try HardwareCounter.all(payload) }
        tried { () throws(MalformedMessage) in try QueuePairResource.all(payload) }
        tried { () throws(MalformedMessage) in try CompletionQueueResource.all(payload) }
        tried { () throws(MalformedMessage) in try MemoryRegionResource.all(payload) }
        tried { () throws(MalformedMessage) in try ProtectionDomainResource.all(payload) }
        tried { () throws(MalformedMessage) in try ConnectionResource.all(payload) }
        tried { () throws(MalformedMessage) in try ContextResource.all(payload) }
        tried { () throws(MalformedMessage) in try SharedReceiveQueueResource.all(payload) }
    }
    return count
}
