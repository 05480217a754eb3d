import CSimulator
import CSimulatorABI

@testable import Simulator

/// For any commands of rdma_cm and any messages of other connection managers, the simulator neither crashes nor hangs,
/// and accesses only the program's memory (checked by the address sanitizer).
///
/// The input is a byte that selects the device, RoCE or iWARP, and a list of commands: a byte that selects one (from 128:
/// a message that arrives), a byte with half the length of its body, and the body.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzConnectionManager(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count >= 1 else { return 0 }
    let device = devices[Int(start[0] & 1)]
    // A host of its own.
    device.manager = ConnectionManager()
    guard let file = try? ManagerFile(device.manager) else { fatalError("rdma_cm does not open") }
    simulation.add(.manager(file), descriptor: file.descriptor)
    let program = Program(file: file, device: device)
    var position = 1
    while position + 2 <= count {
        let (command, length) = (start[position], min(Int(start[position + 1]) * 2, count - position - 2))
        let body = UnsafeRawBufferPointer(start: start + position + 2, count: length)
        if command < 128 { program.write(UInt32(command % 24), body) } else { program.receive(body) }
        position += 2 + length
    }
    _ = device.step()
    simulation.close(file.descriptor)
    sim_discard(file.descriptor)
    return 0
}

private nonisolated(unsafe) let devices = (["mlx5 roce", "cxgb4 t5 notrap"] as [String]).map {
    simulation.device(uverbs_sim_create($0))!
}

private struct Program {
    let file: ManagerFile
    let device: Device

    /// Larger than every command and every response.
    private static let size = 600
    private static let room = 1024

    /// Writes a command, padded with zeros. The address of its response is that of a buffer.
    func write(_ number: UInt32, _ body: UnsafeRawBufferPointer) {
        let command = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 + Self.size, alignment: 8)
        let response = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.room, alignment: 8)
        defer {
            command.deallocate()
            response.deallocate()
        }
        command.initializeMemory(as: UInt8.self, repeating: 0)
        response.initializeMemory(as: UInt8.self, repeating: 1)
        command.storeBytes(of: number, as: UInt32.self)
        command.storeBytes(of: UInt16(Self.size), toByteOffset: 4, as: UInt16.self)
        command.storeBytes(of: UInt16(Self.room), toByteOffset: 6, as: UInt16.self)
        UnsafeMutableRawBufferPointer(rebasing: command[8...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: body[..<min(body.count, Self.size)]))
        let address = UInt64(UInt(bitPattern: response.baseAddress))
        switch Int(number) {
        case RDMA_USER_CM_CMD_CREATE_ID: command.storeBytes(of: address, toByteOffset: 16, as: UInt64.self)
        case RDMA_USER_CM_CMD_BIND, RDMA_USER_CM_CMD_RESOLVE_ADDR, RDMA_USER_CM_CMD_RESOLVE_IP,
            RDMA_USER_CM_CMD_RESOLVE_ROUTE, RDMA_USER_CM_CMD_CONNECT, RDMA_USER_CM_CMD_LISTEN,
            RDMA_USER_CM_CMD_ACCEPT, RDMA_USER_CM_CMD_REJECT, RDMA_USER_CM_CMD_DISCONNECT, RDMA_USER_CM_CMD_NOTIFY:
            break
        case RDMA_USER_CM_CMD_SET_OPTION:
            // The value, at most as long as the buffer.
            command.storeBytes(of: address, toByteOffset: 8, as: UInt64.self)
            let length = command.loadUnaligned(fromByteOffset: 28, as: UInt32.self) % UInt32(Self.room)
            command.storeBytes(of: length, toByteOffset: 28, as: UInt32.self)
        default: command.storeBytes(of: address, toByteOffset: 8, as: UInt64.self)
        }
        try? file.write(UnsafeRawBufferPointer(command))
        device.manager.deliver()
    }

    /// Delivers a message from the device's own port.
    func receive(_ body: UnsafeRawBufferPointer) {
        var message = sim_cm_message()
        withUnsafeMutableBytes(of: &message) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: body[..<min(body.count, $0.count)]))
        }
        try? device.manager.receive(
            ConnectionManager.Arrival(device: device, message: message, source: device.lid))
        device.manager.deliver()
    }
}
