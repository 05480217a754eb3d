import CIBVerbs
import CLinux
import CSoftExtension
import RoCETransport

// The extension "soft-management" of rdma_soft.h.

nonisolated(unsafe) let managementExtension: UnsafeMutablePointer<rdma_soft_management> = {
    let functions = UnsafeMutablePointer<rdma_soft_management>.allocate(capacity: 1)
    functions.initialize(
        to: rdma_soft_management(
            size: UInt32(MemoryLayout<rdma_soft_management>.size), reserved: 0, device_number: deviceNumber,
            open: openMailbox, listen: listenForService, receive: receiveFromMailbox, send: sendManagement,
            watch: watchProcess))
    return functions
}()

private func deviceNumber(context: UnsafeMutablePointer<ibv_context>?) -> UInt32 {
    guard let context else { return 0 }
    return UInt32(context.soft.pointee.slot.number)
}

/// Opens the mailbox whose name `write` writes. Returns -1 and sets errno on failure.
private func open(_ write: (UnsafeMutablePointer<CChar>) -> Void) -> Int32 {
    var name = InlineArray<96, CChar>(repeating: 0)
    let mailbox = withUnsafeMutableBytes(of: &name) { name in
        let name = name.baseAddress!.assumingMemoryBound(to: CChar.self)
        write(name)
        return linux_mailbox_open(name)
    }
    if mailbox >= 0 { return mailbox }
    linux_set_errno(-mailbox)
    return -1
}

private func openMailbox(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    let slot = Int32(deviceNumber(context: context))
    return open { linux_mailbox_of_slot(slot, $0) }
}

private func listenForService(
    context: UnsafeMutablePointer<ibv_context>?, service: UInt64, gid: UnsafePointer<UInt8>?
) -> Int32 {
    open { linux_mailbox_of_service(service, gid, $0) }
}

private func receiveFromMailbox(
    context: UnsafeMutablePointer<ibv_context>?, mailbox: Int32, way: UnsafeMutablePointer<rdma_soft_mad_way>?,
    mad: UnsafeMutableRawPointer?
) -> Int32 {
    guard let way, let mad else { return EINVAL }
    var message = InlineArray<37, UInt64>(repeating: 0)
    return withUnsafeMutableBytes(of: &message) { message in
        let received = linux_mailbox_receive(mailbox, message.baseAddress, message.count)
        if received < 0 { return -received }
        // A message of another version of soft, or of no version, is dropped. The caller counts it, so that a flood of them
        // does not hold it here.
        guard Int(received) == message.count, message.load(as: UInt64.self) == ManagementPort.layout else {
            return EMSGSIZE
        }
        withUnsafeMutableBytes(of: &way.pointee) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: message[8..<ManagementPort.headByteCount]))
        }
        mad.copyMemory(
            from: message.baseAddress! + ManagementPort.headByteCount, byteCount: ManagementMessage.byteCount)
        return 0
    }
}

private func sendManagement(
    context: UnsafeMutablePointer<ibv_context>?, way: UnsafePointer<rdma_soft_mad_way>?, mad: UnsafeRawPointer?
) -> Int32 {
    guard let context = context?.soft, let way, let mad else { return EINVAL }
    let bytes = UnsafeRawBufferPointer(start: mad, count: ManagementMessage.byteCount)
    guard let message = ManagementMessage(bytes) else { return EINVAL }
    let source = withUnsafeBytes(of: way.pointee.source) { GID(at: $0.baseAddress!) }
    let destination = withUnsafeBytes(of: way.pointee.destination) { GID(at: $0.baseAddress!) }
    context.lockForControl()
    defer { context.unlock() }
    context.followInterface()
    guard context.guarded.pointee.gids.contains(source) else { return EADDRNOTAVAIL }
    let guarded = context.guarded
    if guarded.pointee.link.usesSharedMemory && guarded.pointee.gids.isLocal(destination) {
        return guarded.pointee.management.pass(message, from: source, to: destination)
    }
    let path = Path(source: source, destination: destination, tag: Route.datagrams)
    let isSent = context.sendManagementDatagram(bytes, path, &guarded.pointee.management)
    guarded.pointee.sockets.flush()
    return isSent ? 0 : EADDRNOTAVAIL
}

private func watchProcess(
    context: UnsafeMutablePointer<ibv_context>?, gid: UnsafePointer<UInt8>?, communicationID: UInt32
) -> Int32 {
    guard let context = context?.soft, let gid else {
        linux_set_errno(EINVAL)
        return -1
    }
    context.lockForControl()
    let isLocal = context.guarded.pointee.gids.isLocal(GID(at: UnsafeRawPointer(gid)))
    context.unlock()
    let connection = isLocal ? Slot.connect(Int(communicationID >> 24)) : -EHOSTUNREACH
    guard connection >= 0 else {
        linux_set_errno(-connection)
        return -1
    }
    // The peer has a limited number of connections (`Senders.capacity`), and a pidfd costs it nothing.
    let process = linux_open_process(connection)
    guard process >= 0 || process == -ESRCH else { return connection }
    linux_close(connection)
    if process >= 0 { return process }
    linux_set_errno(ECONNREFUSED)
    return -1
}
