import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// Memory regions that are not memory of the application: dma-bufs and the null region; and on-demand paging.

/// Checks an access to memory with on-demand paging, and makes the memory present (`Configuration.memoryCheck`).
func isMapped(_ memory: UnsafeMutableRawPointer, _ length: UInt64, _ forWriting: Bool) -> Bool {
    linux_populate_memory(memory, Int(length), forWriting) == 0
}

/// `ibv_advise_mr`: makes the memory of SGEs present. It is done when the call returns, with IBV_ADVISE_MR_FLAG_FLUSH or
/// without.
func adviseMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, advice: ib_uverbs_advise_mr_advice, flags: UInt32,
    sgList: UnsafeMutablePointer<ibv_sge>?, count: UInt32
) -> Int32 {
    guard let pd, sgList != nil || count == 0 else { return EINVAL }
    guard flags & ~IB_UVERBS_ADVISE_MR_FLAG_FLUSH.rawValue == 0 else {
        return refusal(EINVAL, "flags: only IBV_ADVISE_MR_FLAG_FLUSH is known")
    }
    var forWriting = false
    var populates = true
    switch advice {
    case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH: break
    case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE: forWriting = true
    case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT: populates = false
    default: return refusal(EOPNOTSUPP, "the advice is not known")
    }
    let context = pd.pointee.context!.soft
    for index in 0..<Int(count) {
        let sge = SGE(
            address: sgList![index].addr, length: sgList![index].length, lkey: sgList![index].lkey)
        context.lockForControl()
        let memory: UnsafeMutableRawPointer?
        do throws(RoCETransport.Errno) {
            memory = try context.pointee.engine.onDemandMemory(sge, pd.domain.engine, forWriting: forWriting)
        } catch {
            context.unlock()
            return refusal(
                error.rawValue, "an SGE is not inside a region with on-demand paging that allows this advice")
        }
        context.unlock()
        guard let memory, populates else { continue }
        let error = linux_populate_memory(memory, Int(sge.length), forWriting)
        if error != 0 { return refusal(error, "an SGE names memory that is not mapped, or may not be written") }
    }
    return 0
}

func allocateNullRegion(pd: UnsafeMutablePointer<ibv_pd>?) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd else { return failure(EINVAL) }
    let context = pd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    let key: UInt32
    do throws(RoCETransport.Errno) {
        key = try context.pointee.engine.registerNullRegion(pd.domain.engine)
    } catch {
        return failure(tooMany("memory regions", Int(Limits.maxMR), "max_mr"))
    }
    return makeRegion(
        pd, key: key, address: nil, length: Int(bitPattern: UInt.max), virtualAddress: 0,
        access: IBV_ACCESS_LOCAL_WRITE.rawValue, .null)
}

/// `ibv_reg_dmabuf_mr`: maps the dma-buf, which its exporter has to allow, and registers the mapping. The bytes are
/// accessed through the processor.
func registerDMABuf(
    pd: UnsafeMutablePointer<ibv_pd>?, offset: UInt64, length: Int, virtualAddress: UInt64, descriptor: Int32,
    access: Int32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd else { return failure(EINVAL) }
    let wanted = UInt32(bitPattern: access)
    let page = UInt64(linux_page_size())
    guard length > 0, UInt64(length) <= DeviceLimits.memoryRegionBytes,
        !offset.addingReportingOverflow(UInt64(length)).overflow
    else { return failure(refusal(EINVAL, "the length of the region is 0 or more than max_mr_size")) }
    guard wanted & IBV_ACCESS_ON_DEMAND.rawValue == 0 else {
        return failure(refusal(EOPNOTSUPP, "a dma-buf is registered without IBV_ACCESS_ON_DEMAND"))
    }
    guard offset % page == virtualAddress % page else {
        return failure(refusal(EINVAL, "offset and iova differ in their offset within a page"))
    }
    let size = linux_file_size(descriptor)
    guard size >= 0 else { return failure(refusal(Int32(-size), "the descriptor is no dma-buf")) }
    guard offset + UInt64(length) <= UInt64(size) else {
        return failure(refusal(EINVAL, "the range ends after the dma-buf"))
    }
    let inPage = Int(offset % page)
    let protection: Int32 = wanted & IBV_ACCESS_LOCAL_WRITE.rawValue != 0 ? 3 : 1
    let mappedLength = length + inPage
    guard let mapping = linux_map_node(descriptor, offset - UInt64(inPage), mappedLength, protection) else {
        let error = linux_errno()
        return failure(
            refusal(
                error == EACCES || error == EPERM ? error : EOPNOTSUPP,
                "the exporter does not allow this process to map the dma-buf"))
    }
    let region = registerPart(
        pd: pd, mapping + inPage, length: length, virtualAddress: virtualAddress, access: wanted,
        address: UnsafeMutableRawPointer(bitPattern: UInt(offset)), .mapping(mapping, mappedLength))
    if region == nil {
        let error = linux_errno()
        linux_unmap(mapping, mappedLength)
        linux_set_errno(error)
    }
    return region
}
