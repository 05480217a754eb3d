import CSimulator
import CSimulatorABI

// The functions of uverbs_sim.h.

/// Creates a device from a description. Returns its number, or a negative errno value.
@c(uverbs_sim_create)
public func createDevice(_ description: UnsafePointer<CChar>?) -> Int32 {
    guard let description, let options = Options(description) else { return -EINVAL }
    return locked {
        do throws(Refusal) {
            return Int32(try simulation.create(options).index)
        } catch {
            return -error.errno
        }
    }
}

/// Removes every device.
@c(uverbs_sim_remove_all)
public func removeAllDevices() {
    locked { simulation.removeAll() }
}

/// Runs a device until no queue pair can make progress. Returns the number of executed work requests.
@c(uverbs_sim_step)
public func stepDevice(_ index: Int32) -> Int32 {
    locked { Int32(truncatingIfNeeded: simulation.device(index)?.step() ?? 0) }
}

/// The reason of the last refusal.
@c(uverbs_sim_refusal)
public func lastRefusal(_ index: Int32) -> UnsafePointer<CChar>? {
    locked { simulation.device(index)?.lastRefusal }
}

/// The number of refusals.
@c(uverbs_sim_refusals)
public func countRefusals(_ index: Int32) -> Int32 {
    locked { Int32(truncatingIfNeeded: simulation.device(index)?.refusals ?? 0) }
}

/// Clears the reason and the number of refusals.
@c(uverbs_sim_forgive)
public func forgiveRefusals(_ index: Int32) {
    locked { simulation.device(index)?.clearRefusals() }
}

/// Copies the stores to UAR pages since the last call.
@c(uverbs_sim_stores)
public func readStores(
    _ index: Int32, _ stores: UnsafeMutablePointer<uverbs_sim_store>?, _ capacity: Int32
) -> Int32 {
    locked {
        guard let device = simulation.device(index), let stores else { return 0 }
        let count = min(Int(capacity), device.stores.count)
        for position in 0..<max(0, count) { stores[position] = device.stores[position] }
        device.stores.removeAll(keepingCapacity: true)
        return Int32(count)
    }
}

/// Raises an asynchronous event.
@c(uverbs_sim_inject)
public func injectEvent(_ index: Int32, _ event: Int32, _ number: UInt32) -> Int32 {
    locked {
        guard let device = simulation.device(index) else { return ENOENT }
        let type = ibv_event_type(rawValue: UInt32(bitPattern: event))
        let source: EventSource?
        switch type {
        case IBV_EVENT_CQ_ERR: source = device.completionQueues.first { $0.handle == number }
        case IBV_EVENT_SRQ_ERR, IBV_EVENT_SRQ_LIMIT_REACHED: source = device.sharedReceiveQueue(number: number)
        case IBV_EVENT_DEVICE_FATAL, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR, IBV_EVENT_LID_CHANGE,
            IBV_EVENT_PKEY_CHANGE, IBV_EVENT_SM_CHANGE, IBV_EVENT_CLIENT_REREGISTER, IBV_EVENT_GID_CHANGE:
            for context in device.contexts { context.events?.add(element: UInt64(number), type: type.rawValue) }
            return 0
        default: source = device.queuePair(number: number)
        }
        guard let source else { return ENOENT }
        device.raise(type, source)
        return 0
    }
}

/// Makes the device fail.
@c(uverbs_sim_fail)
public func failDevice(_ index: Int32) -> Int32 {
    locked {
        guard let device = simulation.device(index) else { return ENOENT }
        device.die()
        return 0
    }
}

/// Connects a queue pair.
@c(uverbs_sim_connect)
public func connectQueuePair(
    _ index: Int32, _ number: UInt32, _ port: UInt16, _ peer: UInt32, _ initiates: Int32
) -> Int32 {
    perform(index) { device throws(Refusal) in
        let most = UInt8(device.codec.identity.maxReadAtomic)
        try device.connect(
            number, to: peer, at: port == 0 ? device.lid : port, isInitiator: initiates != 0, initiatorDepth: most,
            responderResources: most)
    }
}

/// Ends the connection of a queue pair.
@c(uverbs_sim_disconnect)
public func disconnectQueuePair(_ index: Int32, _ number: UInt32, _ end: Int32) -> Int32 {
    perform(index) { device throws(Refusal) in
        switch uverbs_sim_end(rawValue: UInt32(bitPattern: end)) {
        case UVERBS_SIM_CLOSE: try device.disconnect(number, .close)
        case UVERBS_SIM_TERMINATE: try device.disconnect(number, .terminate)
        case UVERBS_SIM_ABORT: try device.disconnect(number, .abort)
        default: throw Refusal(EINVAL, "there is no such end of a connection", has: Int(end))
        }
    }
}

/// Stops the doorbells of a device, or resumes them.
@c(uverbs_sim_stop_doorbells)
public func stopDoorbells(_ index: Int32, _ stopped: Int32) -> Int32 {
    perform(index) { device throws(Refusal) in
        try device.codec.stopDoorbells(stopped != 0)
    }
}

private func perform(_ index: Int32, _ body: (Device) throws(Refusal) -> Void) -> Int32 {
    locked {
        guard let device = simulation.device(index) else { return ENOENT }
        do throws(Refusal) {
            try body(device)
            return 0
        } catch {
            return device.record(error, of: "the connection manager")
        }
    }
}

/// Writes a CQE of a queue pair.
@c(uverbs_sim_complete)
public func writeCompletion(
    _ index: Int32, _ number: UInt32, _ wanted: UnsafePointer<uverbs_sim_completion>?
) -> Int32 {
    locked {
        guard let device = simulation.device(index), let queuePair = device.queuePair(number: number),
            let wanted = wanted?.pointee
        else { return ENOENT }
        let opcode = ibv_wc_opcode(rawValue: wanted.opcode)
        let isReceive = wanted.opcode & IBV_WC_RECV.rawValue != 0
        var completion = Completion(
            queuePair: queuePair, isReceive: isReceive, tag: wanted.tag, status: wanted.status)
        switch opcode {
        case IBV_WC_RDMA_WRITE, IBV_WC_RECV_RDMA_WITH_IMM: completion.operation = .write
        case IBV_WC_RDMA_READ: completion.operation = .read
        case IBV_WC_COMP_SWAP: completion.operation = .compareAndSwap
        case IBV_WC_FETCH_ADD: completion.operation = .fetchAndAdd
        case IBV_WC_BIND_MW: completion.operation = .bind
        case IBV_WC_LOCAL_INV: completion.operation = .invalidate
        default: completion.operation = .send
        }
        completion.byteLength = wanted.byte_length
        completion.hasImmediate = wanted.flags & IBV_WC_WITH_IMM.rawValue != 0
        completion.invalidated = wanted.flags & IBV_WC_WITH_INV.rawValue != 0
        completion.isGlobal = wanted.flags & IBV_WC_GRH.rawValue != 0
        completion.immediate = wanted.immediate
        completion.isSolicited = wanted.solicited != 0
        completion.source = wanted.source_queue_pair
        completion.lid = wanted.source_lid
        completion.serviceLevel = wanted.service_level
        completion.pathBits = wanted.path_bits
        completion.pkeyIndex = wanted.partition_key_index
        completion.vendorError = wanted.vendor_error
        device.complete(completion, on: isReceive ? queuePair.receiveCompletions : queuePair.sendCompletions)
        return 0
    }
}

// MARK: - Comparison of two libraries, byte by byte

/// Holds or releases a device.
@c(uverbs_sim_hold)
public func holdDevice(_ index: Int32, _ held: Int32) -> Int32 {
    locked {
        guard let device = simulation.device(index) else { return ENOENT }
        device.isHeld = held != 0
        return 0
    }
}

/// The address and size of memory that program and device share.
@c(uverbs_sim_memory)
public func sharedMemory(
    _ index: Int32, _ area: Int32, _ number: UInt32, _ start: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> UInt64 {
    locked {
        guard let device = simulation.device(index), let start,
            let memory = device.memory(uverbs_sim_area(rawValue: UInt32(bitPattern: area)), number)
        else { return 0 }
        start.pointee = memory.baseAddress
        return UInt64(memory.count)
    }
}

extension Device {
    fileprivate func memory(_ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer? {
        switch area {
        case UVERBS_SIM_SENDS, UVERBS_SIM_RECEIVES, UVERBS_SIM_RECORD:
            queuePair(number: number).flatMap { codec.memory($0, area) }
        case UVERBS_SIM_SHARED_RECEIVES, UVERBS_SIM_SHARED_RECORD:
            sharedReceiveQueue(number: number).flatMap { codec.memory($0, area) }
        case UVERBS_SIM_COMPLETIONS, UVERBS_SIM_COMPLETION_RECORD:
            completionQueues.first { $0.handle == number }.flatMap { codec.memory($0, area) }
        default: nil
        }
    }
}

/// Writes the bytes of a CQE.
@c(uverbs_sim_write)
public func writeCQE(_ index: Int32, _ number: UInt32, _ receives: Int32, _ entry: UnsafeRawPointer?) -> Int32 {
    locked {
        guard let device = simulation.device(index), let queuePair = device.queuePair(number: number), let entry else {
            return ENOENT
        }
        return device.write(entry, of: queuePair, isReceive: receives != 0) ? 0 : ENOSPC
    }
}

/// Removes the WQE at the head of a send queue and returns it.
@c(uverbs_sim_take)
public func removeRequest(
    _ index: Int32, _ number: UInt32, _ request: UnsafeMutablePointer<uverbs_sim_request>?
) -> Int32 {
    locked {
        guard let device = simulation.device(index), let queuePair = device.queuePair(number: number), let request,
            device.codec.fetchSend(queuePair, device.send)
        else { return ENOENT }
        device.codec.retireSend(queuePair)
        request.pointee = device.send.description
        return 0
    }
}

extension SendRequest {
    fileprivate var description: uverbs_sim_request {
        var all = uverbs_sim_request()
        all.tag = tag
        all.opcode = opcode.rawValue
        all.flags = flags
        all.immediate = invalidates ? invalidKey : hasImmediate ? immediate : 0
        all.remote_key = remoteKey
        all.remote_address = remoteAddress
        all.compare = compare
        all.swap_or_add = swapOrAdd
        all.queue_pair = destination.queuePair
        all.queue_key = destination.qkey
        all.lid = UInt32(destination.lid)
        all.service_level = UInt32(destination.serviceLevel)
        all.gid = destination.gid
        all.sge_count = UInt32(sgeCount)
        withUnsafeMutableBytes(of: &all.sges) { bytes in
            for index in 0..<min(sgeCount, bytes.count / MemoryLayout<SGE>.size) {
                bytes.storeBytes(
                    of: sges[index], toByteOffset: index * MemoryLayout<SGE>.size, as: SGE.self)
            }
        }
        return all
    }

    private var opcode: ibv_wr_opcode {
        switch operation {
        case .send: invalidates ? IBV_WR_SEND_WITH_INV : hasImmediate ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND
        case .write: hasImmediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE
        case .read: IBV_WR_RDMA_READ
        case .compareAndSwap: IBV_WR_ATOMIC_CMP_AND_SWP
        case .fetchAndAdd: IBV_WR_ATOMIC_FETCH_AND_ADD
        case .bind: IBV_WR_BIND_MW
        case .invalidate, .none: IBV_WR_LOCAL_INV
        }
    }
}
