import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// Entries of the control table that return the kernel's response unchanged.

/// Copies a struct to a caller whose version of the struct has `size` bytes: copies the common prefix and zeroes the
/// rest.
public func store<Value>(_ value: Value, to target: UnsafeMutableRawPointer, size: Int) {
    withUnsafeBytes(of: value) { bytes in
        let known = min(size, bytes.count)
        target.copyMemory(from: bytes.baseAddress!, byteCount: known)
        (target + known).initializeMemory(as: UInt8.self, repeating: 0, count: size - known)
    }
}

/// `query_device_ex` (`ibv_query_device_ex`) for a provider that adds no attributes.
public func queryNativeDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    queryNativeDevice(context: context, input: input, attr: attr, size: size, versionDigits: 1)
}

/// `query_device_ex` (`ibv_query_device_ex`), with at least `versionDigits` digits in the last number of `fw_ver`.
public func queryNativeDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int, versionDigits: Int
) -> Int32 {
    guard let context, let attr, size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    do throws(KernelError) {
        var response = ibv_device_attr_ex()
        let version = try context.native.pointee.kernel.queryDevice(&response)
        setFirmware(version, of: &response.orig_attr, digits: versionDigits)
        store(response, to: attr, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

/// Sets `fw_ver` from a version of three 16-bit numbers, the encoding of most drivers.
/// - Parameter digits: The minimum number of digits of the last number.
public func setFirmware(_ version: UInt64, of attributes: inout ibv_device_attr, digits: Int = 1) {
    var text = MessageText()
    text.append(Int(version >> 32 & 0xFFFF))
    text.append(".")
    text.append(Int(version >> 16 & 0xFFFF))
    text.append(".")
    let last = Int(version & 0xFFFF)
    var least = 10
    for _ in 1..<max(digits, 1) {
        if last < least { text.append("0") }
        least *= 10
    }
    text.append(last)
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

/// `query_port`.
func queryNativePort(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, attr: UnsafeMutablePointer<ibv_port_attr>?, size: Int
) -> Int32 {
    guard let context, let attr else { return EINVAL }
    do throws(KernelError) {
        store(try context.native.pointee.kernel.queryPort(port), to: attr, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

/// `query_gid_ex`.
func queryNativeGID(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt32, index: UInt32,
    entry: UnsafeMutablePointer<ibv_gid_entry>?, flags: UInt32, size: Int
) -> Int32 {
    guard let context, let entry else { return EINVAL }
    if flags != 0 { return EOPNOTSUPP }
    do throws(KernelError) {
        store(try context.queryGID(port: port, index: index), to: entry, size: size)
        return 0
    } catch {
        return error.rawValue
    }
}

/// `query_gid_table`.
func queryNativeGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, size: Int
) -> Int {
    guard let context, let entries else { return -Int(EINVAL) }
    if flags != 0 { return -Int(EOPNOTSUPP) }
    do throws(KernelError) {
        return try context.queryGIDTable(entries, capacity: capacity, size: size)
    } catch {
        return -Int(error.rawValue)
    }
}

/// `query_pkey`.
func queryNativePartitionKey(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, index: Int32, key: UnsafeMutablePointer<UInt16>?
) -> Int32 {
    guard let context, let key else { return EINVAL }
    do throws(KernelError) {
        key.pointee = try context.pointee.device.queryPartitionKey(port: port, index: index).bigEndian
        return 0
    } catch {
        return error.rawValue
    }
}
