import CIBVerbs
import Glibc
import PeerSupport

extension Stream {
    // MARK: - ibv_post_send

    func postSends(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let count = random.chance(40) ? 1 : 1 + random.below(16)
        let defect = fillChain(count, pair, percent: 6)
        try postChain(count, pair, defect)
    }

    /// Fills the list. Returns the defect of its last request.
    private func fillChain(_ count: Int, _ pair: PairModel, percent: Int) -> Defect? {
        // In a full queue the libraries check the defect and the room in another order.
        let hasRoom = pair.outstanding.count + count <= Int(pair.limits.max_send_wr)
        var defect = random.chance(percent) && hasRoom ? random.pick(Defect.allCases) : nil
        if pair.plan.type == IBV_QPT_UD && defect == .length { defect = .opcode }
        for index in 0..<count {
            fillSend(index, pair, index == count - 1 ? defect : nil)
        }
        if pair.mustFence { requests.sends[0].send_flags |= IBV_SEND_FENCE.rawValue }
        requests.linkSends(count)
        return defect
    }

    /// Posts the list in `requests`.
    func postChain(_ count: Int, _ pair: PairModel, _ defect: Defect?) throws(Difference) {
        operation = "posting \(count) sends\(defect.map { ", the last with a wrong \($0)" } ?? "") to \(pair.name)"
        pair.fillFree(with: random.any())
        let before = pair.wqebb
        let results = try both { (side) throws(Difference) -> (errno: Int32, accepted: Int) in
            requests.adopt(count, sides[side], pair.plan)
            var bad: UnsafeMutablePointer<ibv_send_wr>?
            let result = ibv_post_send(sides[side].pairs[pair.index], requests.sends, &bad)
            return (result, result == 0 ? count : bad.map { $0 - requests.sends } ?? -1)
        }
        let accepted = Twin(results.vendor.accepted, results.ours.accepted)
        try expectEqual(accepted, "\(operation): how many were taken")
        let errors = Twin(results.vendor.errno, results.ours.errno)
        var mustFence = false
        if let defect {
            try expectErrors(errors, defect)
            if defect.isLate && accepted.ours > 0 { try dropStores() }
            mustFence = defect.isLate
        } else {
            try expectEqual(errors, "\(operation): errno value")
        }
        try recordPosted(accepted.ours, pair, from: before)
        if mustFence { pair.mustFence = true }
        if errors.vendor != 0 { pair.fillFree(with: random.any()) }
        try pair.compare(operation)
    }

    private func expectErrors(_ errors: Twin<Int32>, _ defect: Defect) throws(Difference) {
        if errors.vendor != defect.errno.vendor || errors.ours != defect.errno.ours {
            throw Difference(
                "\(operation): errno value: the vendor's library answers \(errors.vendor), ours \(errors.ours); "
                    + "not \(defect.errno.vendor) and \(defect.errno.ours)")
        }
    }

    /// Records the posted requests, and the first WQEBB of each from the vendor's queue.
    private func recordPosted(_ accepted: Int, _ pair: PairModel, from before: UInt16) throws(Difference) {
        guard accepted > 0 else { return }
        var wqebb = before
        let ring = pair.sends.vendor
        for index in 0..<accepted {
            pair.outstanding.append(
                PostedSend(wqebb: wqebb, opcode: requests.sends[index].opcode, landing: requests.landings[index]))
            let control = UInt32(
                bigEndian: ring.load(fromByteOffset: Int(wqebb) * 64 % ring.count + 4, as: UInt32.self))
            wqebb &+= UInt16((control & 0x3F) + 3) / 4
        }
        pair.mustFence = false
        posted += accepted
        if wqebb != pair.wqebb {
            throw Difference("\(operation): the vendor's record says block \(pair.wqebb), its requests \(wqebb)")
        }
    }

    // MARK: - ibv_qp_ex

    /// Posts requests with the `ibv_wr_…` builders. There must be room for them: libmlx5's builders overwrite posted
    /// requests when the queue is full.
    func build(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let room = Int(pair.limits.max_send_wr) - pair.outstanding.count
        let count = min(room, random.chance(40) ? 1 : 1 + random.below(8))
        guard count > 0 else { return }
        var defect = fillChain(count, pair, percent: 5)
        // There is no builder for an unknown opcode.
        if defect == .opcode || defect == .sges {
            defect = nil
            fillSend(count - 1, pair, nil)
            requests.linkSends(count)
            if pair.mustFence { requests.sends[0].send_flags |= IBV_SEND_FENCE.rawValue }
        }
        let isAborted = random.chance(4)
        operation = "building \(count) sends\(defect.map { ", the last with a wrong \($0)" } ?? "") on \(pair.name)"
        pair.fillFree(with: random.any(), immediates: true)
        let before = pair.wqebb
        let style = random.below(2)
        let errors = try both { (side) throws(Difference) -> Int32 in
            let builder = sides[side].builders[index]!
            requests.adopt(count, sides[side], pair.plan)
            ibv_wr_start(builder)
            for request in 0..<count { build(requests.sends + request, builder, pair, style) }
            if isAborted {
                ibv_wr_abort(builder)
                return 0
            }
            return ibv_wr_complete(builder)
        }
        if let defect, !isAborted {
            try expectErrors(errors, defect)
        } else {
            try expectEqual(errors, "\(operation): errno value")
        }
        if errors.vendor == 0 && !isAborted {
            try recordPosted(count, pair, from: before)
        } else {
            pair.fillFree(with: random.any())
        }
        try pair.compare(operation)
    }

    private func build(
        _ request: UnsafeMutablePointer<ibv_send_wr>, _ builder: UnsafeMutablePointer<ibv_qp_ex>, _ pair: PairModel,
        _ style: Int
    ) {
        builder.pointee.wr_id = request.pointee.wr_id
        builder.pointee.wr_flags = request.pointee.send_flags & ~IBV_SEND_INLINE.rawValue
        begin(request, builder)
        guard request.pointee.opcode != IBV_WR_LOCAL_INV && request.pointee.opcode != IBV_WR_BIND_MW else { return }
        let isDatagram = pair.plan.type == IBV_QPT_UD
        func setAddress() {
            ibv_wr_set_ud_addr(
                builder, request.pointee.wr.ud.ah, request.pointee.wr.ud.remote_qpn, request.pointee.wr.ud.remote_qkey)
        }
        // Address and data can be set in either order.
        if isDatagram && style == 0 { setAddress() }
        setData(request, builder, style)
        if isDatagram && style == 1 { setAddress() }
    }

    private func begin(_ request: UnsafeMutablePointer<ibv_send_wr>, _ builder: UnsafeMutablePointer<ibv_qp_ex>) {
        let rdma = request.pointee.wr.rdma
        let atomic = request.pointee.wr.atomic
        switch request.pointee.opcode {
        case IBV_WR_SEND: ibv_wr_send(builder)
        case IBV_WR_SEND_WITH_IMM: ibv_wr_send_imm(builder, request.pointee.imm_data)
        case IBV_WR_SEND_WITH_INV: ibv_wr_send_inv(builder, request.pointee.invalidate_rkey)
        case IBV_WR_RDMA_WRITE: ibv_wr_rdma_write(builder, rdma.rkey, rdma.remote_addr)
        case IBV_WR_RDMA_WRITE_WITH_IMM:
            ibv_wr_rdma_write_imm(builder, rdma.rkey, rdma.remote_addr, request.pointee.imm_data)
        case IBV_WR_RDMA_READ: ibv_wr_rdma_read(builder, rdma.rkey, rdma.remote_addr)
        case IBV_WR_ATOMIC_CMP_AND_SWP:
            ibv_wr_atomic_cmp_swp(builder, atomic.rkey, atomic.remote_addr, atomic.compare_add, atomic.swap)
        case IBV_WR_ATOMIC_FETCH_AND_ADD:
            ibv_wr_atomic_fetch_add(builder, atomic.rkey, atomic.remote_addr, atomic.compare_add)
        case IBV_WR_LOCAL_INV: ibv_wr_local_inv(builder, request.pointee.invalidate_rkey)
        default:
            var info = request.pointee.bind_mw.bind_info
            ibv_wr_bind_mw(builder, request.pointee.bind_mw.mw, request.pointee.bind_mw.rkey, &info)
        }
    }

    private func setData(
        _ request: UnsafeMutablePointer<ibv_send_wr>, _ builder: UnsafeMutablePointer<ibv_qp_ex>, _ style: Int
    ) {
        let count = Int(request.pointee.num_sge)
        let list = request.pointee.sg_list
        if request.pointee.send_flags & IBV_SEND_INLINE.rawValue != 0 {
            for place in 0..<count {
                requests.buffers[place] = ibv_data_buf(
                    addr: UnsafeMutableRawPointer(bitPattern: UInt(list![place].addr)), length: Int(list![place].length)
                )
            }
            if count == 1 && style == 0 {
                ibv_wr_set_inline_data(builder, requests.buffers[0].addr, requests.buffers[0].length)
            } else {
                ibv_wr_set_inline_data_list(builder, count, requests.buffers)
            }
        } else if count == 1 && style == 0 {
            ibv_wr_set_sge(builder, list![0].lkey, list![0].addr, list![0].length)
        } else {
            ibv_wr_set_sge_list(builder, count, list)
        }
    }

    // MARK: - Windows and addresses

    /// ibv_bind_mw(3): a window of type 1, whose new rkey is returned at once.
    func bindWindow(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        operation = "binding a window by \(pair.name)"
        pair.fillFree(with: random.any())
        let before = pair.wqebb
        var attributes = ibv_mw_bind()
        attributes.wr_id = random.any()
        attributes.send_flags = random.chance(50) ? IBV_SEND_SIGNALED.rawValue : 0
        if pair.mustFence { attributes.send_flags |= IBV_SEND_FENCE.rawValue }
        attributes.bind_info = binding(requests.region)
        let errors = try both { (side) throws(Difference) -> Int32 in
            attributes.bind_info.mr = sides[side].region
            return ibv_bind_mw(sides[side].pairs[index], sides[side].windows[0], &attributes)
        }
        try expectEqual(errors, "\(operation): errno value")
        try expectEqual(
            Twin(sides.vendor.windows[0].pointee.rkey, sides.ours.windows[0].pointee.rkey),
            "\(operation): key of the window")
        if errors.ours == 0 {
            requests.sends[0].opcode = IBV_WR_BIND_MW
            requests.landings[0] = nil
            try recordPosted(1, pair, from: before)
        }
        try pair.compare(operation)
    }

    /// Creates an address handle; it replaces the one at `place`, or is appended if that is nil.
    func makeAddress(_ place: Int?) throws(Difference) {
        operation = "making an address handle"
        var attributes = ibv_ah_attr()
        let isEthernet = kind.contains("roce")
        attributes.port_num = 1
        attributes.dlid = random.any(UInt16.self) | 1
        attributes.sl = random.any(UInt8.self) & 15
        attributes.src_path_bits = random.any(UInt8.self) & 0x7F
        attributes.static_rate = UInt8(random.below(19))
        attributes.is_global = isEthernet || random.chance(60) ? 1 : 0
        attributes.grh.dgid.global.subnet_prefix = random.any()
        attributes.grh.dgid.global.interface_id = random.any()
        // Not 0: without a flow label the libraries choose a random UDP source port.
        attributes.grh.flow_label = random.any(UInt32.self) | 1
        attributes.grh.hop_limit = random.any()
        attributes.grh.traffic_class = random.any()
        // On InfiniBand the libraries do not check the GID index.
        attributes.grh.sgid_index = isEthernet ? random.any(UInt8.self) & 3 : random.any()
        _ = try both { (side) throws(Difference) -> Void in
            let made = have(sides[side].library.createAddress(sides[side].domain, &attributes), operation)
            guard let place else { return sides[side].addresses.append(made) }
            equal(sides[side].library.destroyAddress(sides[side].addresses[place]), 0, "destroying an address handle")
            sides[side].addresses[place] = made
        }
    }
}
