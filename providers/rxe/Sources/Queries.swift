import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// Hands a struct over to a caller who may know a shorter or a longer one: what fits is copied, the rest is zero.
private func store<Value>(_ value: Value, to target: UnsafeMutableRawPointer, size: Int) {
    withUnsafeBytes(of: value) { bytes in
        let known = min(size, bytes.count)
        target.copyMemory(from: bytes.baseAddress!, byteCount: known)
        (target + known).initializeMemory(as: UInt8.self, repeating: 0, count: size - known)
    }
}

func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    guard let context, let attr, size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    do {
        var answer = ibv_device_attr_ex()
        let version = try context.rxe.pointee.kernel.queryDevice(&answer)
        write(version, to: &answer.orig_attr)
        store(answer, to: attr, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

/// The kernel packs the three numbers of a version into 16 bits each.
private func write(_ version: UInt64, to attributes: inout ibv_device_attr) {
    var text = Sentence()
    text.append(Int(version >> 32 & 0xFFFF))
    text.append(".")
    text.append(Int(version >> 16 & 0xFFFF))
    text.append(".")
    text.append(Int(version & 0xFFFF))
    text.withCString { text in
        withUnsafeMutableBytes(of: &attributes.fw_ver) { bytes in
            var index = 0
            while text[index] != 0 {
                bytes[index] = UInt8(bitPattern: text[index])
                index += 1
            }
        }
    }
}

func queryPort(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, attr: UnsafeMutablePointer<ibv_port_attr>?, size: Int
) -> Int32 {
    guard let context, let attr else { return EINVAL }
    do {
        store(try context.rxe.pointee.kernel.queryPort(port), to: attr, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

func queryGID(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt32, index: UInt32,
    entry: UnsafeMutablePointer<ibv_gid_entry>?, flags: UInt32, size: Int
) -> Int32 {
    guard let context, let entry else { return EINVAL }
    if flags != 0 { return EOPNOTSUPP }
    do {
        store(try context.rxe.pointee.kernel.queryGID(port: port, index: index), to: entry, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

func queryGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, size: Int
) -> Int {
    guard let context, let entries else { return -Int(EINVAL) }
    if flags != 0 { return -Int(EOPNOTSUPP) }
    do {
        return try context.rxe.pointee.kernel.queryGIDTable(entries, capacity: capacity, size: size)
    } catch {
        return -Int(error.rawValue)
    }
}

func queryPartitionKey(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, index: Int32, key: UnsafeMutablePointer<UInt16>?
) -> Int32 {
    guard let context, let key else { return EINVAL }
    do {
        key.pointee = try context.pointee.device.queryPartitionKey(port: port, index: index).bigEndian
        return 0
    } catch {
        return error.rawValue
    }
}
