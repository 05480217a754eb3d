/// Parses a datagram with every parser of this module. For tests and fuzzing: no datagram may crash the program.
///
/// - Returns: The number of values that were parsed.
@discardableResult
package func readEverything(_ datagram: [UInt8]) -> Int {
    var count = KernelEvent(kernelObject: datagram) == nil ? 0 : 1
    var states = InterfaceStates()
    guard let messages = try? Message.all(in: datagram) else { return count }
    for case .data(let type, let payload) in messages.map(\.kind) {
        func tried<Value>(_ read: () throws(MalformedMessage) -> Value?) {
            if let _ = try? read() { count += 1 }
        }
        tried { () throws(MalformedMessage) in try states.update(type: type, payload) }
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
