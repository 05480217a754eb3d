import CSimulator
import CSimulatorABI

// The functions of sim_calls.h, through which a program reaches the simulator. Each holds the lock.

/// A device's number from the path of its node, or -1.
@c(sim_find_node)
public func findNode(_ path: UnsafePointer<CChar>) -> Int32 {
    locked {
        var manager = path
        if skip("/dev/infiniband/rdma_cm", &manager) && manager.pointee == 0 {
            return simulation.manager.devices.contains { $0 != nil } ? Int32(SIM_NODE_MANAGER) : -1
        }
        for device in simulation.devices {
            guard let device else { continue }
            var path = path
            if skip("/dev/infiniband/uverbs", &path) && parse(&path) == device.index && path.pointee == 0 {
                return Int32(device.index)
            }
        }
        return -1
    }
}

private func skip(_ prefix: StaticString, _ text: inout UnsafePointer<CChar>) -> Bool {
    for index in 0..<prefix.utf8CodeUnitCount {
        guard UInt8(bitPattern: text[index]) == prefix.utf8Start[index] else { return false }
    }
    text += prefix.utf8CodeUnitCount
    return true
}

private func parse(_ text: inout UnsafePointer<CChar>) -> Int? {
    var value: Int?
    while (0x30...0x39).contains(text.pointee), (value ?? 0) < 1000 {
        value = (value ?? 0) * 10 + Int(text.pointee - 0x30)
        text += 1
    }
    return value
}

/// The node's device number for stat(2): the kernel's numbers for uverbs, from 231:192; one of misc for rdma_cm.
@c(sim_node_number)
public func nodeNumber(_ device: Int32) -> UInt64 {
    device == Int32(SIM_NODE_MANAGER) ? UInt64(10) << 8 | 121 : UInt64(231) << 8 | UInt64(192 + device)
}

/// open(2) of a device's node: a descriptor, or a negative errno value.
@c(sim_open)
public func openNode(_ index: Int32) -> Int32 {
    locked {
        if index == Int32(SIM_NODE_MANAGER) { return openManager(simulation.manager) }
        guard let device = simulation.device(index) else { return -ENXIO }
        let descriptor = sim_memory_file()
        if descriptor >= 0 {
            simulation.add(.context(Context(device, descriptor: descriptor)), descriptor: descriptor)
        }
        return descriptor
    }
}

/// open(2) of /dev/infiniband/rdma_cm in a network namespace that has this device alone.
@c(sim_open_manager)
public func openManager(_ index: Int32) -> Int32 {
    locked {
        guard let device = simulation.device(index) else { return -ENXIO }
        if device.manager === simulation.manager { device.manager = ConnectionManager() }
        return openManager(device.manager)
    }
}

private func openManager(_ manager: ConnectionManager) -> Int32 {
    do throws(Refusal) {
        let file = try ManagerFile(manager)
        simulation.add(.manager(file), descriptor: file.descriptor)
        return file.descriptor
    } catch {
        return -error.errno
    }
}

/// The device whose node a descriptor has open, SIM_NODE_MANAGER, or -1.
@c(sim_device_of)
public func deviceOf(_ descriptor: Int32) -> Int32 {
    locked {
        switch simulation.entry(descriptor) {
        case .context(let context): return Int32(context.device.index)
        case .manager: return Int32(SIM_NODE_MANAGER)
        case .events, .foreign: return -1
        }
    }
}

/// A number of the open file behind a descriptor; 0: none.
@c(sim_serial)
public func serialNumber(_ descriptor: Int32) -> UInt64 { locked { simulation.serial(descriptor) } }

/// ioctl(2): 0 or a positive errno value.
@c(sim_ioctl)
public func uverbsIoctl(_ descriptor: Int32, _ request: UInt, _ argument: UnsafeMutableRawPointer?) -> Int32 {
    locked {
        guard case .context(let context) = simulation.entry(descriptor), let argument else { return ENOTTY }
        // _IOWR(RDMA_IOCTL_MAGIC, 1, struct ib_uverbs_ioctl_hdr)
        if request != 0xC018_1B01 || context.device.options.usesWrite { return ENOTTY }
        do throws(Refusal) {
            var call = try MethodCall(argument, descriptor, context)
            try call.perform()
            return 0
        } catch {
            return context.device.record(error, of: name(ofMethodAt: argument))
        }
    }
}

/// write(2) of a command: 0 or a positive errno value.
@c(sim_write)
public func uverbsWrite(_ descriptor: Int32, _ command: UnsafeRawPointer?, _ size: Int) -> Int32 {
    locked {
        let bytes = UnsafeRawBufferPointer(start: command, count: size)
        if case .manager(let file) = simulation.entry(descriptor) { return write(bytes, to: file) }
        guard case .context(let context) = simulation.entry(descriptor) else { return EINVAL }
        do throws(Refusal) {
            try context.write(bytes)
            return 0
        } catch {
            return context.device.record(error, of: name(ofCommandIn: bytes))
        }
    }
}

/// A command of rdma_cm. A refusal is recorded by the first device.
private func write(_ bytes: UnsafeRawBufferPointer, to file: ManagerFile) -> Int32 {
    defer { file.manager.deliver() }
    do throws(Refusal) {
        try file.write(bytes)
        return 0
    } catch {
        // The program waits, or has no event.
        if error.errno == EAGAIN { return EAGAIN }
        for device in file.manager.devices { if let device { return device.record(error, of: "rdma_cm") } }
        return error.errno
    }
}

/// read(2) of an event: its size, 0 when none is waiting, or a negative errno value.
@c(sim_read)
public func readEvent(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer?, _ size: Int) -> Int {
    locked {
        guard case .events(let file) = simulation.entry(descriptor), let buffer else { return -Int(EINVAL) }
        return file.read(buffer, size)
    }
}

/// Before close(2).
@c(sim_close)
public func closeDescriptor(_ descriptor: Int32) {
    locked { simulation.close(descriptor) }
}

/// Closes the event files of an open device.
@c(sim_close_events)
public func closeEvents(_ descriptor: Int32) {
    locked {
        guard case .context(let context) = simulation.entry(descriptor) else { return }
        for file in simulation.eventFiles(of: context) {
            simulation.close(file)
            sim_discard(file)
        }
    }
}

/// mmap(2): 0 or a positive errno value.
@c(sim_mmap)
public func mapMemory(
    _ descriptor: Int32, _ length: Int, _ protection: Int32, _ flags: Int32, _ offset: UInt64,
    _ mapping: UnsafeMutablePointer<sim_mapping>?
) -> Int32 {
    locked {
        guard case .context(let context) = simulation.entry(descriptor), let mapping else { return ENODEV }
        do throws(Refusal) {
            try demand(flags & 1 != 0, EINVAL, "a private mapping: the device would not see the program's stores")
            try demand(context.isReady, EIO, "there is no context yet")
            try demand(!context.device.isDead, EIO, "the device is dead")
            mapping.pointee = try context.device.codec.map(
                context, offset: offset, length: length, protection: protection)
            return 0
        } catch {
            return context.device.record(error, of: "mmap")
        }
    }
}

/// A trapped store to a UAR page was executed.
@c(sim_stored)
public func stored(
    _ index: Int32, _ page: UInt32, _ offset: UInt32, _ size: UInt32, _ bytes: UnsafePointer<UInt8>
) {
    locked {
        guard let device = simulation.device(index) else { return }
        let bytes = UnsafeRawBufferPointer(start: bytes, count: Int(size))
        var store = uverbs_sim_store()
        store.page = page
        store.offset = offset
        store.size = size
        withUnsafeMutableBytes(of: &store.value) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(8, bytes.count)]))
        }
        device.record(store)
        device.codec.stored(page: page, offset: offset, size: size, bytes)
    }
}

/// Runs a device that has a thread. Returns the longest time that the thread may sleep while the wire is not readable,
/// in nanoseconds; negative when the device is no longer open.
@c(sim_run_freely)
public func runFreely(_ index: Int32, _ wire: UnsafeMutablePointer<Int32>) -> Int64 {
    locked {
        guard let device = simulation.device(index) else { return -1 }
        wire.pointee = device.wire?.descriptor ?? -1
        return device.runFreely()
    }
}

// MARK: - Names, for refusals

private func name(ofMethodAt header: UnsafeMutableRawPointer) -> StaticString {
    let fields = header.loadUnaligned(as: ib_uverbs_ioctl_hdr.self)
    switch (uverbs_default_objects(rawValue: UInt32(fields.object_id)), fields.method_id) {
    case (UVERBS_OBJECT_DEVICE, 0): return name(ofStructAt: header, Int(fields.num_attrs))
    case (UVERBS_OBJECT_DEVICE, UInt16(UVERBS_METHOD_GET_CONTEXT.rawValue)): return "GET_CONTEXT"
    case (UVERBS_OBJECT_DEVICE, _): return "a method of the device"
    case (UVERBS_OBJECT_CQ, 0): return "CQ_CREATE"
    case (UVERBS_OBJECT_CQ, _): return "CQ_DESTROY"
    case (UVERBS_OBJECT_QP, 0): return "QP_CREATE"
    case (UVERBS_OBJECT_QP, _): return "QP_DESTROY"
    case (UVERBS_OBJECT_SRQ, 0): return "SRQ_CREATE"
    case (UVERBS_OBJECT_SRQ, _): return "SRQ_DESTROY"
    case (UVERBS_OBJECT_PD, _): return "PD_DESTROY"
    case (UVERBS_OBJECT_MR, _): return "MR_DESTROY"
    case (UVERBS_OBJECT_MW, _): return "MW_DESTROY"
    case (UVERBS_OBJECT_AH, _): return "AH_DESTROY"
    default: return "ioctl"
    }
}

/// The command of INVOKE_WRITE.
private func name(ofStructAt header: UnsafeMutableRawPointer, _ count: Int) -> StaticString {
    for index in 0..<count {
        let attribute = header + 24 + 16 * index
        guard attribute.load(as: UInt16.self) == UInt16(UVERBS_ATTR_WRITE_CMD.rawValue) else { continue }
        return name(ofCommand: UInt32(truncatingIfNeeded: attribute.load(fromByteOffset: 8, as: UInt64.self)))
    }
    return "INVOKE_WRITE"
}

private func name(ofCommandIn bytes: UnsafeRawBufferPointer) -> StaticString {
    bytes.count < 4 ? "write" : name(ofCommand: bytes.load(0, as: UInt32.self))
}

private func name(ofCommand command: UInt32) -> StaticString {
    let extended = IB_USER_VERBS_CMD_FLAG_EXTENDED
    return CommandShape(number: command & ~extended, isExtended: command & extended != 0)?.name ?? "write"
}
