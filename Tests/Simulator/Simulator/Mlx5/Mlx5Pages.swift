import CSimulator

/// A page of doorbells (UAR) that the program may map.
final class DoorbellPage: Object {
    /// In the device's own counting; also what a CQ or QP names it by.
    let number: UInt32
    let offset: UInt64
    let isNoncombining: Bool
    /// The simulator's view of it: a store of the program's can be read here.
    let bytes: UnsafeMutableRawPointer

    init(_ context: Context, number: UInt32, offset: UInt64, isNoncombining: Bool) throws(Refusal) {
        guard let bytes = sim_view(context.descriptor, offset, Mlx5Pages.pageSize) else {
            throw Refusal(ENOMEM, "no memory for a doorbell page")
        }
        self.bytes = bytes
        self.number = number
        self.offset = offset
        self.isNoncombining = isNoncombining
        super.init(.doorbellPage, context)
    }
}

/// The doorbell pages of an open device.
final class Mlx5Pages: VendorState {
    static let pageSize = 4096
    /// Registers of a page that doorbells of sends are written to: two, at 0x800 and 0xA00.
    static let registersPerPage: UInt32 = 2

    let cqeVersion: UInt8
    /// How many pages can be mapped by their index; 0: they are objects.
    let staticCount: UInt32
    private(set) var all: [DoorbellPage] = []
    /// Registers of static pages that queue pairs were given, in turn.
    private var nextRegister: UInt32 = 0
    /// Pages of the dynamic part that a static kernel gave, by index.
    private var dynamic: [UInt32] = []

    init(cqeVersion: UInt8, staticCount: UInt32) {
        self.cqeVersion = cqeVersion
        self.staticCount = staticCount
        super.init()
    }

    /// A page as an object, at an offset that stays good while it lives.
    func allocate(_ context: Context, number: UInt32, isNoncombining: Bool) throws(Refusal) -> DoorbellPage {
        let page = try DoorbellPage(
            context, number: number, offset: 1 << 32 + UInt64(number) << 12, isNoncombining: isNoncombining)
        all.append(page)
        return page
    }

    /// A page of a kernel without such objects: mapped by index. Each mapping of an index is of the same page.
    func page(
        _ context: Context, number: UInt32, at offset: UInt64, isNoncombining: Bool
    ) throws(Refusal) -> DoorbellPage {
        for page in all where page.offset == offset { return page }
        let page = try DoorbellPage(
            context, number: number, offset: offset, isNoncombining: isNoncombining)
        all.append(page)
        return page
    }

    /// A dynamic page of a static kernel is given once.
    func takeDynamic(_ index: UInt32) throws(Refusal) {
        try demand(!dynamic.contains(index), EINVAL, "this page was given already", has: Int(index))
        dynamic.append(index)
    }

    /// The register for the next queue pair on static pages, counted as libmlx5 does: four to a page, of which two exist.
    /// Register 0 is everybody's and never the next one.
    func takeRegister() -> UInt32 {
        let usable = staticCount * Mlx5Pages.registersPerPage
        nextRegister = nextRegister + 1 < usable ? nextRegister + 1 : 1
        return nextRegister / 2 * 4 + nextRegister % 2
    }

    func has(_ number: UInt32) -> Bool { all.contains { $0.number == number } }

    func end(_ page: DoorbellPage) {
        all.removeAll { $0 === page }
        sim_end_view(page.bytes, Mlx5Pages.pageSize)
    }

    func endAll() {
        // Pages that are objects are destroyed by themselves before.
        for page in all { sim_end_view(page.bytes, Mlx5Pages.pageSize) }
        all = []
    }
}

extension Mlx5Codec {
    /// GET_CONTEXT.
    func openContext(_ context: Context, _ driver: DriverData) throws(Refusal) {
        // A driver before cqe_version sends 16 bytes, or 8.
        let request = try driver.read(mlx5_ib_alloc_ucontext_req_v2(), minimum: 8)
        try demand(
            request.flags & ~UInt32(MLX5_IB_ALLOC_UCTX_DEVX.rawValue) == 0, EINVAL,
            "flags that this kernel does not know",
            has: Int(request.flags))
        try demand(
            request.comp_mask == 0 && request.reserved0 == 0 && request.reserved1 == 0 && request.reserved2 == 0,
            EOPNOTSUPP, "a reserved field is not zero")
        try demand(request.total_num_bfregs > 0, EINVAL, "no doorbell registers are asked for")
        let registers = (request.total_num_bfregs + 3) & ~3
        try demand(
            request.num_low_latency_bfregs <= registers - 1, EINVAL, "more registers of low latency than there are",
            has: Int(request.num_low_latency_bfregs), wants: Int(registers - 1))
        let wantsObjects = request.lib_caps & UInt64(MLX5_LIB_CAP_DYN_UAR.rawValue) != 0
        let isStatic = !wantsObjects || device.options.hasStaticPages || device.options.isWritten
        let version = device.options.usesNumbers ? 0 : min(1, request.max_cqe_version)

        var answer = mlx5_ib_alloc_ucontext_resp()
        answer.qp_tab_size = identity.maximumQueuePairs
        answer.bf_reg_size = 512
        answer.tot_bfregs = isStatic ? registers : 0
        answer.cache_line_size = 64
        answer.max_sq_desc_sz = 1024
        answer.max_rq_desc_sz = 512
        answer.max_send_wqebb = 1 << 15
        answer.max_recv_wr = identity.maximumRequests
        answer.max_srq_recv_wr = identity.maximumSharedRequests
        answer.num_ports = 1
        answer.comp_mask = MLX5_IB_ALLOC_UCONTEXT_RESP_MASK_CORE_CLOCK_OFFSET.rawValue
        answer.response_length = UInt32(min(driver.output.count, MemoryLayout<mlx5_ib_alloc_ucontext_resp>.size))
        answer.cqe_version = version
        answer.cmds_supp_uhw = UInt8(
            MLX5_USER_CMDS_SUPP_UHW_QUERY_DEVICE.rawValue | MLX5_USER_CMDS_SUPP_UHW_CREATE_AH.rawValue)
        answer.eth_min_inline = UInt8(MLX5_USER_INLINE_MODE_NONE.rawValue)
        answer.hca_core_clock_offset = 0x40
        answer.log_uar_size = 12
        answer.num_uars_per_page = 1
        answer.num_dyn_bfregs = isStatic ? 512 : 0
        // response_length is the last of what every kernel has.
        try driver.answer(answer, minimum: 44)
        context.vendor = Mlx5Pages(cqeVersion: version, staticCount: isStatic ? registers / 2 : 0)
    }

    /// mmap: a page of doorbells or the clock. What is mapped stands in the offset: a static kernel has the index in its
    /// bits 12 to 19, more of it from bit 28 on, and the command (`enum mlx5_ib_mmap_cmd`) in bits 20 to 27.
    func mapPage(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        let pages = pages(context)
        try demand(
            length == Mlx5Pages.pageSize, EINVAL, "a doorbell page is mapped as a whole and alone, in bytes",
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
            try demand(protection & 2 == 0, EPERM, "the clock can only be read")
            return sim_mapping(trapped: false, device: Int32(device.index), page: 0)
        case MLX5_IB_MMAP_REGULAR_PAGE.rawValue, MLX5_IB_MMAP_WC_PAGE.rawValue, MLX5_IB_MMAP_NC_PAGE.rawValue:
            try demand(pages.staticCount > 0, EINVAL, "pages are objects here, and none is at this offset")
            try demand(
                index < pages.staticCount, EINVAL, "there is no page of this index", has: Int(index),
                wants: Int(pages.staticCount))
        case MLX5_IB_MMAP_ALLOC_WC.rawValue:
            try demand(pages.staticCount > 0, EINVAL, "pages are objects here, and none is at this offset")
            try demand(index < 256, EINVAL, "there is no page of this index", has: Int(index), wants: 256)
            try pages.takeDynamic(index)
        default: throw Refusal(EINVAL, "nothing can be mapped by this command", has: Int(command))
        }
        return mapping(
            try pages.page(
                context, number: takePageNumber(), at: offset, isNoncombining: command == MLX5_IB_MMAP_NC_PAGE.rawValue)
        )
    }

    private func mapping(_ page: DoorbellPage) -> sim_mapping {
        sim_mapping(trapped: device.options.isTrapped, device: Int32(device.index), page: page.number)
    }

    /// The methods that only this driver has.
    func callMethod(_ context: Context, _ method: MethodCall) throws(Refusal) {
        let isPage = UInt32(method.object) == MLX5_IB_OBJECT_UAR.rawValue && !device.options.hasStaticPages
        switch UInt32(method.method) {
        case MLX5_IB_METHOD_UAR_OBJ_ALLOC.rawValue where isPage: try allocatePage(context, method)
        case MLX5_IB_METHOD_UAR_OBJ_DESTROY.rawValue where isPage:
            try method.check([AttributeSpecification(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE, .handle(.doorbellPage))])
            try context.destroy(
                try context.object(method.handle(MLX5_IB_ATTR_UAR_OBJ_DESTROY_HANDLE) ?? 0, .doorbellPage))
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
            context, number: takePageNumber(), isNoncombining: type == UInt64(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC.rawValue))
        context.add(page)
        method.made(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE, UInt64(page.handle))
        method.answer(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, page.offset)
        method.answer(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, UInt32(Mlx5Pages.pageSize))
        method.answer(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, page.number)
    }
}
