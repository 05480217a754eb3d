import CIBVerbs
import CProviderABI
import RoCEWire
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Unreliable datagrams")
    struct DatagramTests {
        private func endpoints(_ ends: Ends, gidIndex: UInt8) throws -> (
            Endpoint, Endpoint, UnsafeMutablePointer<ibv_ah>
        ) {
            let (first, second) = try ends.open()
            var options = Endpoint.Options()
            options.type = IBV_QPT_UD
            options.gidIndex = gidIndex
            let (a, b) = try pair(options, on: first, and: second)
            var route = a.ahAttr(to: try b.address)
            route.grh.traffic_class = 0x20
            return (a, b, try created(a.device.table.create_ah(a.domain, &route)))
        }

        @Test(
            "A UD message is received after its GRH area, with src_qp", arguments: Ends.allCases,
            [0, 1] as [UInt8])
        func arrives(ends: Ends, gidIndex: UInt8) throws {
            let (a, b, handle) = try endpoints(ends, gidIndex: gidIndex)
            defer { _ = a.device.table.destroy_ah(handle) }
            let target = try b.address
            a.fill(0, 4096, seed: 3)
            for length in [0, 1, 100, 4096] {
                try b.postReceive(id: 5, [b.sge(0, 40 + 4096)])
                try a.post(IBV_WR_SEND_WITH_IMM, [a.sge(0, length)]) { request in
                    request.setDestination(target, handle)
                    request.imm_data = 0x1122_3344
                }
                try a.success()
                let received = try b.success()
                #expect(received.byte_len == 40 + length)
                #expect(received.src_qp == a.pair.pointee.qp_num)
                #expect(received.wc_flags & IBV_WC_GRH.rawValue != 0)
                #expect(received.imm_data == 0x1122_3344)
                #expect(b.bytes(40, length) == a.bytes(0, length))
                try expectHeader(b.bytes(0, 40), from: a.address, to: target, isIPv4: gidIndex == 0)
            }
        }

        private func expectHeader(_ bytes: [UInt8], from: Address, to: Address, isIPv4: Bool) throws {
            if isIPv4 {
                #expect(bytes.prefix(20).allSatisfy { $0 == 0 })
                let header = try bytes[20...].withUnsafeBytes { try IPv4Header(parsing: $0) }
                #expect(Array(bytes[32..<36]) == Array(from.gid[12...]))
                #expect(Array(bytes[36..<40]) == Array(to.gid[12...]))
                #expect(header.typeOfService == 0x20)
                #expect(header.checksum == header.computedChecksum)
            } else {
                let header = try bytes.withUnsafeBytes { try IPv6Header(parsing: $0) }
                #expect(header.trafficClass == 0x20)
                #expect(Array(bytes[8..<24]) == from.gid)
                #expect(Array(bytes[24..<40]) == to.gid)
            }
        }

        @Test("A datagram with a wrong Q_Key, or without a posted receive, is dropped silently")
        func drops() throws {
            let (a, b, handle) = try endpoints(.twoDevices, gidIndex: 0)
            defer { _ = a.device.table.destroy_ah(handle) }
            var target = try b.address
            try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.setDestination(target, handle) }
            try a.success()
            b.poll { $0.droppedNoReceive == 1 }
            try b.postReceive(id: 1, [b.sge(0, 128)])
            target.queueKey ^= 1
            try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.setDestination(target, handle) }
            try a.success()
            b.poll { $0.droppedQKey == 1 }
            // The third datagram is the first to be received.
            target.queueKey ^= 1
            try a.post(IBV_WR_SEND, [a.sge(0, 3)]) { $0.setDestination(target, handle) }
            #expect(try b.success().byte_len == 43)
        }

        @Test("A datagram longer than the receive is dropped, and the receive is used for the next one")
        func tooLong() throws {
            let (a, b, handle) = try endpoints(.twoDevices, gidIndex: 0)
            defer { _ = a.device.table.destroy_ah(handle) }
            let target = try b.address
            try b.postReceive(id: 1, [b.sge(0, 40 + 16)])
            // The last datagram fits.
            for length in [17, 4096, 16] {
                try a.post(IBV_WR_SEND, [a.sge(0, length)]) { $0.setDestination(target, handle) }
                try a.success()
            }
            let received = try b.success()
            #expect(received.wr_id == 1 && received.byte_len == 56)
            #expect(b.device.counters.droppedTooLong == 2 && b.pair.pointee.state == IBV_QPS_RTS)
        }

        @Test("A UD message longer than the MTU completes with LOC_LEN_ERR; without an address handle it is EINVAL")
        func refusesBadDatagrams() throws {
            let (a, b, handle) = try endpoints(.twoDevices, gidIndex: 0)
            defer { _ = a.device.table.destroy_ah(handle) }
            let target = try b.address
            #expect(throws: Refusal(EINVAL)) {
                try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { request in
                    request.setDestination(target, handle)
                    request.wr.ud.ah = nil
                }
            }
            #expect(throws: Refusal(EINVAL)) {
                try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { $0.setDestination(target, handle) }
            }
            try a.post(IBV_WR_SEND, [a.sge(0, 4097)]) { $0.setDestination(target, handle) }
            #expect(try a.completions()[0].status == IBV_WC_LOC_LEN_ERR)
        }
    }
}
