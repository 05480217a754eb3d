import CSimulator

/// A UAR page, which the program may map.
final class UARPage: Object {
    /// The UAR index, the `uar_page_index` of CREATE_CQ and the `bfreg_index` of CREATE_QP.
    let number: UInt32
    let offset: UInt64
    let isNoncombining: Bool
    /// The simulator's mapping of the page, from which it reads the program's stores.
    let bytes: UnsafeMutableRawPointer

    init(_ context: Context, number: UInt32, offset: UInt64, isNoncombining: Bool) throws(Refusal) {
        guard let bytes = sim_view(context.descriptor, offset, Mlx5Pages.pageSize) else {
            throw Refusal(ENOMEM, "no memory for a UAR page")
        }
        self.bytes = bytes
        self.number = number
        self.offset = offset
        self.isNoncombining = isNoncombining
        super.init(.uar, context)
    }
}

/// The UAR pages of an open device.
final class Mlx5Pages: VendorState {
    static let pageSize = 4096
    /// Number of doorbell registers (bfregs) in a page, at 0x800 and 0xA00.
    static let bfregsPerPage: UInt32 = 2

    let cqeVersion: UInt8
    /// Number of static UAR pages, which are mapped by index; 0: UAR pages are objects.
    let staticCount: UInt32
    private(set) var all: [UARPage] = []
    /// The bfreg of the last queue pair on static pages; they are assigned round robin.
    private var lastBfreg: UInt32 = 0
    /// Indexes of the dynamic pages that a kernel without UAR objects has allocated.
    private var dynamic: [UInt32] = []

    init(cqeVersion: UInt8, staticCount: UInt32) {
        self.cqeVersion = cqeVersion
        self.staticCount = staticCount
        super.init()
    }

    /// Allocates a UAR object.
    func allocate(_ context: Context, number: UInt32, isNoncombining: Bool) throws(Refusal) -> UARPage {
        let page = try UARPage(
            context, number: number, offset: 1 << 32 + UInt64(number) << 12, isNoncombining: isNoncombining)
        all.append(page)
        return page
    }

    /// A UAR page of a kernel without UAR objects, mapped by index. All mappings with one offset are of the same page.
    func page(
        _ context: Context, number: UInt32, at offset: UInt64, isNoncombining: Bool
    ) throws(Refusal) -> UARPage {
        for page in all where page.offset == offset { return page }
        let page = try UARPage(
            context, number: number, offset: offset, isNoncombining: isNoncombining)
        all.append(page)
        return page
    }

    /// Allocates a dynamic page of a kernel without UAR objects (MLX5_IB_MMAP_ALLOC_WC). Each index can be allocated
    /// once.
    func allocateDynamic(_ index: UInt32) throws(Refusal) {
        try demand(!dynamic.contains(index), EINVAL, "this page was allocated already", has: Int(index))
        dynamic.append(index)
    }

    /// The bfreg for the next queue pair on static pages, numbered as libmlx5 does: four to a page, of which two exist.
    /// bfreg 0 is shared and never returned.
    func nextBfreg() -> UInt32 {
        let usable = staticCount * Mlx5Pages.bfregsPerPage
        lastBfreg = lastBfreg + 1 < usable ? lastBfreg + 1 : 1
        return lastBfreg / 2 * 4 + lastBfreg % 2
    }

    func has(_ number: UInt32) -> Bool { all.contains { $0.number == number } }

    func end(_ page: UARPage) {
        all.removeAll { $0 === page }
        sim_end_view(page.bytes, Mlx5Pages.pageSize)
    }

    func endAll() {
        // UAR objects were destroyed before.
        for page in all { sim_end_view(page.bytes, Mlx5Pages.pageSize) }
        all = []
    }
}

extension Mlx5Codec {
    /// GET_CONTEXT.
    func openContext(_ context: Context, _ driver: DriverData) throws(Refusal) {
        // A provider from before cqe_version sends 16 or 8 bytes.
        let request = try driver.read(mlx5_ib_alloc_ucontext_req_v2(), minimum: 8)
        try demand(
            request.flags & ~UInt32(MLX5_IB_ALLOC_UCTX_DEVX.rawValue) == 0, EINVAL,
            "flags that this kernel does not support",
            has: Int(request.flags))
        try demand(
            request.comp_mask == 0 && request.reserved0 == 0 && request.reserved1 == 0 && request.reserved2 == 0,
            EOPNOTSUPP, "a reserved field is not zero")
        try demand(request.total_num_bfregs > 0, EINVAL, "total_num_bfregs is 0")
        let bfregs = (request.total_num_bfregs + 3) & ~3
        try demand(
            request.num_low_latency_bfregs <= bfregs - 1, EINVAL, "more low-latency bfregs than bfregs",
            has: Int(request.num_low_latency_bfregs), wants: Int(bfregs - 1))
        let wantsObjects = request.lib_caps & UInt64(MLX5_LIB_CAP_DYN_UAR.rawValue) != 0
        let isStatic = !wantsObjects || device.options.hasStaticPages || device.options.usesWrite
        let version = device.options.hasCQEVersion0 ? 0 : min(1, request.max_cqe_version)

        var response = mlx5_ib_alloc_ucontext_resp()
        response.qp_tab_size = identity.maximumQueuePairs
        response.bf_reg_size = 512
        response.tot_bfregs = isStatic ? bfregs : 0
        response.cache_line_size = 64
        response.max_sq_desc_sz = 1024
        response.max_rq_desc_sz = 512
        response.max_send_wqebb = 1 << 15
        response.max_recv_wr = identity.maximumRequests
        response.max_srq_recv_wr = identity.maximumSharedRequests
        response.num_ports = 1
        response.comp_mask = MLX5_IB_ALLOC_UCONTEXT_RESP_MASK_CORE_CLOCK_OFFSET.rawValue
        response.response_length = UInt32(min(driver.output.count, MemoryLayout<mlx5_ib_alloc_ucontext_resp>.size))
        response.cqe_version = version
        response.cmds_supp_uhw = UInt8(
            MLX5_USER_CMDS_SUPP_UHW_QUERY_DEVICE.rawValue | MLX5_USER_CMDS_SUPP_UHW_CREATE_AH.rawValue)
        response.eth_min_inline = UInt8(MLX5_USER_INLINE_MODE_NONE.rawValue)
        response.hca_core_clock_offset = 0x40
        response.log_uar_size = 12
        response.num_uars_per_page = 1
        response.num_dyn_bfregs = isStatic ? 512 : 0
        // The minimum is the size of the struct up to response_length, which every kernel returns.
        try driver.respond(response, minimum: 44)
        context.vendor = Mlx5Pages(cqeVersion: version, staticCount: isStatic ? bfregs / 2 : 0)
    }

    /// mmap(2) of a UAR page or the core clock. A kernel without UAR objects decodes the offset: bits 12 to 19, and
    /// further bits from 28 on, are the index, bits 20 to 27 the command (`enum mlx5_ib_mmap_cmd`).
    func mapPage(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        let pages = pages(context)
        try demand(
            length == Mlx5Pages.pageSize, EINVAL, "a mapping is of one whole UAR page, in bytes",
            has: length, wants: Mlx5Pages.pageSize)
        if pages.staticCount == 0 {
            for page in pages.all where page.offset == offset { return mapping(page) }
        }
        let number = offset >> 12
        let command = UInt32(truncatingIfNeeded: number >> 8 & 0xFF)
        let index = UInt32(truncatingIfNeeded: number & 0xFF | number >> 8 & 0xFF00)
        switch command {
        case MLX5_IB_MMAP_CORE_CLOCK.rawValue where index == 0:
            // PROT_WRITE
            try demand(protection & 2 == 0, EPERM, "the core clock is read-only")
            return sim_mapping(trapped: false, device: Int32(device.index), page: 0, offset: offset)
        case MLX5_IB_MMAP_REGULAR_PAGE.rawValue, MLX5_IB_MMAP_WC_PAGE.rawValue, MLX5_IB_MMAP_NC_PAGE.rawValue:
            try demand(pages.staticCount > 0, EINVAL, "no UAR object has this offset")
            try demand(
                index < pages.staticCount, EINVAL, "there is no page of this index", has: Int(index),
                wants: Int(pages.staticCount))
        case MLX5_IB_MMAP_ALLOC_WC.rawValue:
            try demand(pages.staticCount > 0, EINVAL, "no UAR object has this offset")
            try demand(index < 256, EINVAL, "there is no page of this index", has: Int(index), wants: 256)
            try pages.allocateDynamic(index)
        default: throw Refusal(EINVAL, "nothing can be mapped by this command", has: Int(command))
        }
        return mapping(
            try pages.page(
                context, number: nextUARIndex(), at: offset, isNoncombining: command == MLX5_IB_MMAP_NC_PAGE.rawValue)
        )
    }

    private func mapping(_ page: UARPage) -> sim_mapping {
        sim_mapping(
            trapped: device.options.isTrapped, device: Int32(device.index), page: page.number, offset: page.offset)
    }

    /// The methods of MLX5_IB_OBJECT_UAR.
    func callMethod(_ context: Context, _ method: MethodCall) throws(Refusal) {
        let isPage = UInt32(method.object) == MLX5_IB_OBJECT_UAR.rawValue && !device.options.hasStaticPages
        switch UInt32(method.method) {
        case MLX5_IB_METHOD_UAR_OBJ_ALLOC.rawValue where isPage: try allocatePage(context, method)
        case MLX5_IB_METHOD_UAR_OBJ_DESTROY.rawValue where isPage:
            try method.check([AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE, .handle(.uar))])
            try context.destroy(
                try context.object(method.handle(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE) ?? 0, .uar))
        default:
            throw Refusal(MethodCall.unknown, "this kernel has no such object or method", has: Int(method.object))
        }
    }

    private func allocatePage(_ context: Context, _ method: MethodCall) throws(Refusal) {
        try method.check([
            AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE, .newHandle),
            AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_ALLOC_TYPE, .input(8...8)),
            AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, .output(8)),
            AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, .output(4)),
            AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, .output(4)),
        ])
        let type: UInt64 = method.value(MLX5_IB_ATTR_UAR_OBJ_ALLOC_TYPE, 0)
        try demand(
            type <= UInt64(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC.rawValue), EOPNOTSUPP, "there is no such type of page",
            has: Int(truncatingIfNeeded: type))
        let page = try pages(context).allocate(
            context, number: nextUARIndex(), isNoncombining: type == UInt64(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC.rawValue))
        context.add(page)
        method.made(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE, UInt64(page.handle))
        method.respond(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, page.offset)
        method.respond(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, UInt32(Mlx5Pages.pageSize))
        method.respond(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, page.number)
    }
}
