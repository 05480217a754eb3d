import Glibc

/// `ADDRESS:PORT` of a `struct sockaddr_in` or `[ADDRESS]:PORT` of a `struct sockaddr_in6`; nil for every other family
/// and for too few bytes.
func addressText(_ bytes: ArraySlice<UInt8>) -> String? {
    func text(_ family: Int32, _ address: ArraySlice<UInt8>) -> String? {
        var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(family, Array(address), &buffer, socklen_t(buffer.count)) != nil else { return nil }
        return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
    guard bytes.count >= 4 else { return nil }
    let fields = Array(bytes)
    let port = UInt16(fields[2]) << 8 | UInt16(fields[3])
    switch Int32(machineNumber(fields[0..<2])) {
    // The IPv4 address follows the port; the IPv6 address follows the port and four bytes of flow information.
    case AF_INET where fields.count >= 8: return text(AF_INET, fields[4..<8]).map { "\($0):\(port)" }
    case AF_INET6 where fields.count >= 24: return text(AF_INET6, fields[8..<24]).map { "[\($0)]:\(port)" }
    default: return nil
    }
}
