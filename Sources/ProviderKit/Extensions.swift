/// Whether a program asks for an extension of a provider (`query_extension` of rdma_provider.h, chapter 7), by its name and
/// version.
public func isExtension(
    _ name: UnsafePointer<CChar>?, _ version: UInt32, _ offered: StaticString, _ offeredVersion: UInt32
) -> Bool {
    guard let name, version == offeredVersion else { return false }
    // With the terminating zero, so that a longer name differs.
    for index in 0...offered.utf8CodeUnitCount
    where UInt8(bitPattern: name[index]) != offered.utf8Start[index] {
        return false
    }
    return true
}
