import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// Device memory (`ibv_dm`): memory of the process that only work requests, peers and the two copying functions reach.
struct SoftDeviceMemory: ~Copyable {
    var base = ibv_dm()
    private let room = ObjectRoom()
    /// The mapping, and its part that is aligned as requested.
    let mapping: UnsafeMutableRawPointer
    let mappedLength: Int
    let start: UnsafeMutableRawPointer
    let length: Int
    /// The number of memory regions on it, under the lock of the open device.
    var regions = 0
}

typealias DeviceMemoryPointer = UnsafeMutablePointer<SoftDeviceMemory>

extension UnsafeMutablePointer<ibv_dm> {
    fileprivate var soft: DeviceMemoryPointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftDeviceMemory.self)
    }
}

func allocateDeviceMemory(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_alloc_dm_attr>?
) -> UnsafeMutablePointer<ibv_dm>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == 0 else { return failure(EOPNOTSUPP, "comp_mask: no attribute is defined") }
    let length = attr.pointee.length
    guard length > 0 else { return failure(EINVAL, "the length of device memory is 0") }
    guard attr.pointee.log_align_req <= DeviceLimits.deviceMemoryLogAlignment else {
        return failure(
            overLimit(
                "log_align_req", attr.pointee.log_align_req, "the largest alignment",
                Int(DeviceLimits.deviceMemoryLogAlignment)))
    }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    guard length <= DeviceLimits.deviceMemoryBytes - soft.guarded.pointee.deviceMemory else {
        return failure(refusal(ENOMEM, "the device has no more memory (max_dm_size): free some first"))
    }
    let alignment = 1 << Int(attr.pointee.log_align_req)
    // Mapped memory is aligned to pages.
    let mappedLength = length + (alignment > Int(linux_page_size()) ? alignment : 0)
    guard let mapping = linux_map_memory(mappedLength) else { return failure(linux_errno()) }
    let address = (Int(bitPattern: mapping) + alignment - 1) & ~(alignment - 1)
    let memory = DeviceMemoryPointer.allocate(capacity: 1)
    memory.initialize(
        to: SoftDeviceMemory(
            mapping: mapping, mappedLength: mappedLength, start: mapping + (address - Int(bitPattern: mapping)),
            length: length))
    rdma_init_dm(&memory.pointee.base, context, 0)
    memory.pointee.base.memcpy_to_dm = copyToDeviceMemory
    memory.pointee.base.memcpy_from_dm = copyFromDeviceMemory
    soft.guarded.pointee.deviceMemory += length
    return UnsafeMutableRawPointer(memory).assumingMemoryBound(to: ibv_dm.self)
}

func freeDeviceMemory(dm: UnsafeMutablePointer<ibv_dm>?) -> Int32 {
    guard let dm else { return EINVAL }
    let memory = dm.soft
    let context = dm.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    guard memory.pointee.regions == 0 else {
        return refusal(EBUSY, "memory regions are registered on the device memory: deregister them first")
    }
    context.guarded.pointee.deviceMemory -= memory.pointee.length
    linux_unmap(memory.pointee.mapping, memory.pointee.mappedLength)
    memory.deinitialize(count: 1)
    memory.deallocate()
    return 0
}

extension DeviceMemoryPointer {
    /// The bytes from `offset` on; nil when they are not all inside.
    fileprivate func bytes(_ offset: UInt64, _ count: Int) -> UnsafeMutableRawPointer? {
        guard offset <= UInt64(pointee.length), count >= 0, UInt64(count) <= UInt64(pointee.length) - offset else {
            return nil
        }
        return pointee.start + Int(offset)
    }
}

private func copyToDeviceMemory(
    dm: UnsafeMutablePointer<ibv_dm>?, offset: UInt64, source: UnsafeRawPointer?, length: Int
) -> Int32 {
    guard let dm, source != nil || length == 0 else { return EINVAL }
    guard let target = dm.soft.bytes(offset, length) else { return refusal(EFAULT, outsideDeviceMemory) }
    if let source { target.copyMemory(from: source, byteCount: length) }
    return 0
}

private func copyFromDeviceMemory(
    target: UnsafeMutableRawPointer?, dm: UnsafeMutablePointer<ibv_dm>?, offset: UInt64, length: Int
) -> Int32 {
    guard let dm, target != nil || length == 0 else { return EINVAL }
    guard let source = dm.soft.bytes(offset, length) else { return refusal(EFAULT, outsideDeviceMemory) }
    if let target { target.copyMemory(from: source, byteCount: length) }
    return 0
}

private let outsideDeviceMemory: StaticString = "the range lies outside the device memory"

/// `ibv_reg_dm_mr`: the addresses of the region count from 0.
func registerDeviceMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, dm: UnsafeMutablePointer<ibv_dm>?, offset: UInt64, length: Int, access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd, let dm else { return failure(EINVAL) }
    guard pd.pointee.context == dm.pointee.context else {
        return failure(refusal(EINVAL, "device memory and protection domain belong to different open devices"))
    }
    guard access & IBV_ACCESS_ZERO_BASED.rawValue != 0 else {
        return failure(refusal(EINVAL, "a memory region of device memory needs IBV_ACCESS_ZERO_BASED"))
    }
    guard let start = dm.soft.bytes(offset, length) else { return failure(refusal(EINVAL, outsideDeviceMemory)) }
    return registerPart(
        pd: pd, start, length: length, virtualAddress: 0, access: access, address: nil, .deviceMemory(dm.soft))
}
