import CSimulator

extension Mlx5Codec {
    func createCompletions(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        let known =
            IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION.rawValue | IB_UVERBS_CQ_FLAGS_IGNORE_OVERRUN.rawValue
        try demand(flags & ~known == 0, EOPNOTSUPP, "flags that this kernel does not support", has: Int(flags))
        // The minimum is the size of the struct up to `flags`, which older providers do not send.
        let request = try driver.read(mlx5_ib_create_cq(), minimum: 22)
        let knownBits = UInt16(
            MLX5_IB_CREATE_CQ_FLAGS_CQE_128B_PAD.rawValue | MLX5_IB_CREATE_CQ_FLAGS_UAR_PAGE_INDEX.rawValue
                | MLX5_IB_CREATE_CQ_FLAGS_REAL_TIME_TS.rawValue)
        try demand(
            request.flags & ~knownBits == 0, EINVAL, "bits that this driver does not support", has: Int(request.flags))
        try demand(
            request.cqe_size == 64 || request.cqe_size == 128, EINVAL, "a CQE has 64 or 128 bytes",
            has: Int(request.cqe_size))
        try demand(request.reserved0 == 0 && request.reserved1 == 0, EINVAL, "a reserved field is not zero")
        try demand(request.cqe_comp_en == 0, EOPNOTSUPP, "this device does not compress completions")
        let pages = pages(queue.context)
        if request.flags & UInt16(MLX5_IB_CREATE_CQ_FLAGS_UAR_PAGE_INDEX.rawValue) != 0 {
            try demand(
                pages.has(UInt32(request.uar_page_index)), EINVAL,
                "there is no UAR page of this number", has: Int(request.uar_page_index))
        } else {
            try demand(pages.staticCount > 0, EINVAL, "a completion queue without a UAR page")
        }
        let count = roundedUp(queue.entries + 1)
        let ring = Mlx5Completions(
            record: try DoorbellRecord(request.db_addr),
            bytes: try programMemory(request.buf_addr, Int(count) * Int(request.cqe_size), alignment: 64), count: count,
            stride: Int(request.cqe_size), number: 0x400 + queue.handle,
            ignoresOverrun: flags & IB_UVERBS_CQ_FLAGS_IGNORE_OVERRUN.rawValue != 0)
        try driver.respond(mlx5_ib_create_cq_resp(cqn: ring.number, reserved: 0), minimum: 4)
        queue.vendor = ring
        queue.entries = count - 1
    }

    /// Writes MLX5_CQE_RESIZE_CQ, the last CQE in the old memory; later CQEs are written to the new memory.
    func resizeCompletions(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        let request = try driver.read(mlx5_ib_resize_cq(), minimum: 16)
        try demand(request.reserved0 == 0 && request.reserved1 == 0, EINVAL, "a reserved field is not zero")
        try demand(
            request.cqe_size == 64 || request.cqe_size == 128, EINVAL, "a CQE has 64 or 128 bytes",
            has: Int(request.cqe_size))
        let count = roundedUp(entries + 1)
        let ring = ring(queue)
        let waiting = (ring.producer &- ring.consumer) & 0xFF_FFFF
        try demand(
            waiting < count, EINVAL, "more unpolled CQEs than the new size has room for", has: Int(entries),
            wants: Int(waiting))
        let bytes = try programMemory(request.buf_addr, Int(count) * Int(request.cqe_size), alignment: 64)
        writeResize(ring)
        ring.bytes = bytes
        ring.count = count
        ring.stride = Int(request.cqe_size)
        queue.entries = count - 1
    }

    func createShared(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        // The minimum is the size of the struct up to `flags`.
        let request = try driver.read(mlx5_ib_create_srq(), minimum: 20)
        try demand(
            request.flags & ~UInt32(MLX5_SRQ_FLAG_SIGNATURE) == 0, EINVAL,
            "bits that this driver does not support", has: Int(request.flags))
        try demand(request.flags == 0, EOPNOTSUPP, "this device checks no signatures")
        try demand(request.reserved0 == 0 && request.reserved1 == 0, EINVAL, "a reserved field is not zero")
        let count = roundedUp(queue.maximumRequests + 1)
        let stride = max(32, roundedUp(16 + 16 * queue.maximumSGEs))
        let ring = Mlx5Shared(
            record: try DoorbellRecord(request.db_addr),
            bytes: try programMemory(request.buf_addr, Int(count * stride), alignment: 64), count: count,
            stride: Int(stride))
        queue.vendor = ring
        queue.maximumRequests = count - 1
        // `Device.add` assigns this number afterwards.
        try driver.respond(mlx5_ib_create_srq_resp(srqn: device.nextSharedNumber, reserved: 0), minimum: 4)
    }

    func createQueues(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        try demand(flags == 0, EOPNOTSUPP, "this device knows no flags of queue pairs", has: Int(flags))
        // The minimum is the size of the struct up to `ece_options`.
        let request = try driver.read(mlx5_ib_create_qp(), minimum: 48)
        let known = UInt32(
            MLX5_QP_FLAG_SCATTER_CQE | MLX5_QP_FLAG_ALLOW_SCATTER_CQE
                | MLX5_QP_FLAG_BFREG_INDEX | MLX5_QP_FLAG_UAR_PAGE_INDEX)
        try demand(
            request.flags & ~known == 0, EINVAL, "bits that this driver does not support", has: Int(request.flags))
        try demand(request.ece_options == 0, EINVAL, "this device has no enhanced connection establishment")
        let pages = pages(queuePair.context)
        try checkUserIndex(request.uidx, pages)
        let bfreg = try bfreg(request, pages)

        let hasReceives = queuePair.sharedReceives == nil && request.rq_wqe_count > 0
        if hasReceives {
            try checkCount(request.rq_wqe_count, most: identity.maximumRequests)
            try demand(
                (4...9).contains(request.rq_wqe_shift), EINVAL, "a receive WQE has 16 to 512 bytes, 2^",
                has: Int(request.rq_wqe_shift))
        }
        if request.sq_wqe_count > 0 { try checkCount(request.sq_wqe_count, most: 1 << 15) }
        let receiveSize = hasReceives ? Int(request.rq_wqe_count) << Int(request.rq_wqe_shift) : 0
        let sendSize = Int(request.sq_wqe_count) * Mlx5Queues.wqebb
        let bytes = try programMemory(request.buf_addr, receiveSize + sendSize, alignment: 64)
        queuePair.vendor = Mlx5Queues(
            record: try DoorbellRecord(request.db_addr), sends: bytes + receiveSize, sendWQEBBs: request.sq_wqe_count,
            receives: hasReceives
                ? Mlx5Receives(bytes, count: request.rq_wqe_count, stride: 1 << Int(request.rq_wqe_shift)) : nil,
            userIndex: request.uidx & 0xFF_FFFF,
            scattersToCompletions: request.flags & UInt32(MLX5_QP_FLAG_SCATTER_CQE) != 0)
        var response = mlx5_ib_create_qp_resp()
        response.bfreg_index = bfreg
        response.comp_mask = 0
        try driver.respond(response, minimum: 4)
    }

    private func checkCount(_ count: UInt32, most: UInt32) throws(Refusal) {
        try demand(count & (count - 1) == 0, EINVAL, "the size of a queue is a power of 2", has: Int(count))
        try demand(count <= most, EINVAL, "a larger queue than the device supports", has: Int(count), wants: Int(most))
    }

    /// With cqe_version 1, `uidx` is a user index of 24 bits; with version 0 it must be 0xFFFFFF.
    private func checkUserIndex(_ index: UInt32, _ pages: Mlx5Pages) throws(Refusal) {
        try demand(
            pages.cqeVersion == 0 ? index == 0xFF_FFFF : index <= 0xFF_FFFF, EINVAL,
            "a user index that this cqe_version has not", has: Int(index))
    }

    /// The `bfreg_index` of the response: the queue pair's doorbell register, or `UInt32.max` when the program has
    /// chosen it.
    private func bfreg(_ request: mlx5_ib_create_qp, _ pages: Mlx5Pages) throws(Refusal) -> UInt32 {
        if request.flags & UInt32(MLX5_QP_FLAG_UAR_PAGE_INDEX) != 0 {
            try demand(
                pages.has(request.bfreg_index), EINVAL, "there is no UAR page of this number",
                has: Int(request.bfreg_index))
            return .max
        }
        try demand(pages.staticCount > 0, EINVAL, "a queue pair without a UAR page")
        if request.flags & UInt32(MLX5_QP_FLAG_BFREG_INDEX) != 0 {
            try demand(request.bfreg_index < 512, EINVAL, "there is no such register", has: Int(request.bfreg_index))
            return .max
        }
        return pages.nextBfreg()
    }
}

/// The smallest power of 2 that is not less than `value`.
func roundedUp(_ value: UInt32) -> UInt32 {
    value <= 1 ? 1 : 1 << UInt32(32 - (value - 1).leadingZeroBitCount)
}
