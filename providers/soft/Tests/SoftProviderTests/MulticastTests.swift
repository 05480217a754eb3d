import CIBVerbs
import CProviderABI
import Glibc
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Multicast")
    struct MulticastTests {
        private static let port: UInt16 = 4797

        private func gid(_ bytes: [UInt8]) -> ibv_gid {
            var gid = ibv_gid()
            withUnsafeMutableBytes(of: &gid) { $0.copyBytes(from: bytes) }
            return gid
        }

        private func group(_ last: UInt8, high: [UInt8] = [UInt8](repeating: 0, count: 10)) -> ibv_gid {
            gid(high + [0xFF, 0xFF, 239, 77, 3, last])
        }

        private func datagrams(_ device: OpenDevice) throws -> Endpoint {
            var options = Endpoint.Options()
            options.type = IBV_QPT_UD
            let end = try Endpoint(device, options)
            try end.connect(to: end.address)
            return end
        }

        private func device() throws -> OpenDevice {
            let device = try OpenDevice()
            device.useDatagrams(port: Self.port)
            return device
        }

        /// Sends to the group from an endpoint, with the first byte as a mark.
        private func send(_ mark: UInt8, from end: Endpoint, to group: ibv_gid) throws {
            var route = end.ahAttr(to: try end.address)
            route.grh.dgid = group
            let handle = try created(end.device.table.create_ah(end.domain, &route))
            defer { _ = end.device.table.destroy_ah(handle) }
            end.memory.storeBytes(of: mark, as: UInt8.self)
            try end.post(IBV_WR_SEND_WITH_IMM, [end.sge(0, 100)]) { request in
                request.imm_data = 7
                request.wr.ud.ah = handle
                request.wr.ud.remote_qpn = 0xFF_FFFF
                request.wr.ud.remote_qkey = end.queueKey
            }
            try end.success()
        }

        @Test("A datagram reaches every attached queue pair of every device of the host, and no other")
        func delivers() throws {
            let (first, second) = (try device(), try device())
            let sender = try datagrams(first)
            let ends = [try datagrams(first), try datagrams(first), try datagrams(second), try datagrams(second)]
            var one = group(1)
            var other = group(2)
            let attach = first.table.attach_mcast!
            let detach = first.table.detach_mcast!
            for end in ends[..<3] { try check(attach(end.pair, &one, 0)) }
            // Attached twice, it receives once.
            try check(attach(ends[0].pair, &one, 0))
            try check(attach(ends[3].pair, &other, 0))
            for end in ends {
                for index in 0..<4 { try end.postReceive(id: UInt64(index), [end.sge(index * 200, 140)]) }
            }
            try send(11, from: sender, to: one)
            for end in ends[..<3] {
                let received = try end.success()
                #expect(received.byte_len == 140 && received.wc_flags & IBV_WC_GRH.rawValue != 0)
                #expect(received.src_qp == sender.pair.pointee.qp_num && received.imm_data == 7)
                #expect(end.bytes(40, 1) == [11])
                let header = try end.bytes(20, 20).withUnsafeBytes { try IPv4Header(parsing: $0) }
                #expect(header.destination == 0xEF4D_0301 && header.source == 0x7F00_0001)
            }
            // The form of RoCEv1 names the same group.
            try check(detach(ends[1].pair, &one, 0))
            try send(12, from: sender, to: group(1, high: [0xFF, 0x0E] + [UInt8](repeating: 0, count: 8)))
            try send(13, from: sender, to: other)
            for end in [ends[0], ends[2]] {
                try end.success()
                #expect(end.bytes(200 + 40, 1) == [12])
            }
            try ends[3].success()
            #expect(ends[3].bytes(40, 1) == [13])
            // The datagram to the other group came later and has arrived, so none is on its way to those detached.
            var none = ibv_wc()
            for end in [ends[0], ends[1]] { #expect(first.context.pointee.ops.poll_cq(end.queue, 1, &none) == 0) }

            #expect(detach(ends[1].pair, &one, 0) == EINVAL)
            #expect(first.table.destroy_qp(ends[0].pair) == EBUSY)
            for end in [ends[0], ends[2]] { try check(detach(end.pair, &one, 0)) }
            try check(detach(ends[3].pair, &other, 0))
        }

        @Test("Sleeping devices are woken by a datagram to a group")
        func wakes() throws {
            let (first, second) = (try device(), try device())
            let sender = try datagrams(first)
            let channel = try created(second.table.create_comp_channel(second.context))
            do {
                var options = Endpoint.Options()
                options.type = IBV_QPT_UD
                options.channel = channel
                let end = try Endpoint(second, options)
                try end.connect(to: end.address)
                var one = group(9)
                try check(second.table.attach_mcast(end.pair, &one, 0))
                try end.postReceive([end.sge(0, 140)])
                #expect(second.context.pointee.ops.req_notify_cq(end.queue, 0) == 0)
                try send(5, from: sender, to: one)
                var queue: UnsafeMutablePointer<ibv_cq>?
                try check(second.table.get_cq_event(channel, &queue))
                ibv_ack_cq_events(end.queue, 1)
                try end.success()
                try check(second.table.detach_mcast(end.pair, &one, 0))
            }
            try check(second.table.destroy_comp_channel(channel))
        }

        @Test("A connected queue pair and a GID that is not multicast are EINVAL")
        func refusals() throws {
            let device = try device()
            let connected = try Endpoint(device)
            let end = try datagrams(device)
            var one = group(1)
            #expect(device.table.attach_mcast(connected.pair, &one, 0) == EINVAL)
            var host = gid([UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 10, 0, 0, 1])
            #expect(device.table.attach_mcast(end.pair, &host, 0) == EINVAL)
            #expect(device.table.detach_mcast(end.pair, &one, 0) == EINVAL)
        }

        @Test("Many groups are joined and left in any order, up to max_mcast_grp")
        func many() throws {
            let device = try device()
            let end = try datagrams(device)
            var joined = 0
            var error: Int32 = 0
            while error == 0 {
                var one = gid(
                    [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 239, 78, UInt8(joined >> 8), UInt8(joined & 255)])
                error = device.table.attach_mcast(end.pair, &one, 0)
                if error == 0 { joined += 1 }
            }
            // The system's own limit of memberships for each socket does not count: there is one socket for each group.
            #expect(error == ENOMEM && joined == 256)
            for index in stride(from: 0, to: 256, by: 2) {
                var one = gid([UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 239, 78, 0, UInt8(index)])
                try check(device.table.detach_mcast(end.pair, &one, 0))
            }
            let last = gid([UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 239, 78, 0, 255])
            try end.postReceive([end.sge(0, 140)])
            try send(3, from: end, to: last)
            try end.success()
            for index in stride(from: 1, to: 256, by: 2) {
                var one = gid([UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 239, 78, 0, UInt8(index)])
                try check(device.table.detach_mcast(end.pair, &one, 0))
            }
        }
    }
}
