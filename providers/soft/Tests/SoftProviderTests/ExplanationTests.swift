import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    /// The explanations of errors that a user reads (`rdma_core.explain` of rdma_provider.h).
    @Suite("Explanations of errors")
    struct ExplanationTests {
        private let device: OpenDevice
        private let domain: UnsafeMutablePointer<ibv_pd>

        init() throws {
            device = try OpenDevice()
            domain = try created(device.table.alloc_pd(device.context))
        }

        /// The errno value and the explanation of a call that creates no object; 0 and "" if it creates one.
        private func refusal<Object>(_ make: () -> UnsafeMutablePointer<Object>?) -> (error: Int32, message: String) {
            rdma_drop_explanation()
            guard make() == nil else { return (0, "") }
            return (errno, rdma_explanation(errno).map { String(cString: $0) } ?? "")
        }

        /// The errno value and the explanation of a call that throws a `Refusal`; 0 and "" if it throws none.
        private func refusal(_ call: () throws -> Void) throws -> (error: Int32, message: String) {
            rdma_drop_explanation()
            do {
                try call()
                return (0, "")
            } catch let refusal as Refusal {
                return (refusal.errno, rdma_explanation(refusal.errno).map { String(cString: $0) } ?? "")
            }
        }

        @Test("With max_mr memory regions, the explanation of ENOMEM names max_mr")
        func regions() throws {
            var regions: [UnsafeMutablePointer<ibv_mr>] = []
            defer {
                for region in regions { _ = device.table.dereg_mr(region) }
                _ = device.table.dealloc_pd(domain)
            }
            while let region = device.table.reg_mr(domain, nil, 0, 0, 0) { regions.append(region) }
            #expect(errno == ENOMEM && regions.count == 65_535)
            let last = refusal { device.table.reg_mr(domain, nil, 0, 0, 0) }
            #expect(last.error == ENOMEM)
            #expect(last.message.hasPrefix("65535 memory regions exist, as many as the device can have (max_mr)"))
        }

        @Test("With max_qp queue pairs, the explanation names max_qp")
        func queuePairs() throws {
            let queue = try created(device.table.create_cq(device.context, 1, nil, nil, 0))
            var pairs: [UnsafeMutablePointer<ibv_qp>] = []
            defer {
                for pair in pairs { _ = device.table.destroy_qp(pair) }
                _ = device.table.destroy_cq(queue)
                _ = device.table.dealloc_pd(domain)
            }
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            (attr.pd, attr.send_cq, attr.recv_cq, attr.qp_type) = (domain, queue, queue, IBV_QPT_UD)
            (attr.cap.max_send_wr, attr.cap.max_send_sge) = (1, 1)
            while let pair = device.table.create_qp_ex(device.context, &attr) { pairs.append(pair) }
            #expect(errno == ENOMEM && pairs.count == 8189)
            let last = refusal { device.table.create_qp_ex(device.context, &attr) }
            let limit = "8189 queue pairs exist, as many as the device can have (max_qp, maxQueuePairs)"
            #expect(last.message.hasPrefix(limit))
        }

        @Test("Above a limit, the explanation contains the value, and the device attribute of the limit")
        func sizes() throws {
            defer { _ = device.table.dealloc_pd(domain) }
            let queue = try created(device.table.create_cq(device.context, 1, nil, nil, 0))
            defer { _ = device.table.destroy_cq(queue) }
            func pair(_ change: (inout ibv_qp_init_attr_ex) -> Void) -> String {
                var attr = ibv_qp_init_attr_ex()
                attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
                (attr.pd, attr.send_cq, attr.recv_cq, attr.qp_type) = (domain, queue, queue, IBV_QPT_RC)
                change(&attr)
                return refusal { device.table.create_qp_ex(device.context, &attr) }.message
            }
            #expect(pair { $0.cap.max_send_wr = 40_000 } == "max_send_wr 40000 is above max_qp_wr of the device, 32768")
            #expect(pair { $0.cap.max_recv_sge = 33 } == "max_recv_sge 33 is above max_sge of the device, 32")
            #expect(pair { $0.cap.max_inline_data = 2000 }.hasPrefix("max_inline_data 2000 is above"))
            #expect(pair { $0.qp_type = IBV_QPT_RAW_PACKET }.contains("types RC, UC and UD"))
            #expect(pair { $0.send_cq = nil }.contains("needs a protection domain and two completion queues"))
            let entries = refusal { device.table.create_cq(device.context, 1 << 30, nil, nil, 0) }
            #expect(entries.error == EINVAL)
            #expect(entries.message == "cqe 1073741824 is above max_cqe of the device, 4194304")
            let vector = refusal { device.table.create_cq(device.context, 1, nil, nil, 7) }
            #expect(vector.message.hasSuffix("there is no vector 7"))
            #expect(try refusal { try check(device.table.resize_cq(queue, 0)) }.message.contains("one entry at least"))
        }

        @Test("The explanation of an invalid address handle or port names the attribute, such as the GID index")
        func paths() throws {
            defer { _ = device.table.dealloc_pd(domain) }
            func handle(_ change: (inout ibv_ah_attr) -> Void) -> String {
                var attr = ibv_ah_attr()
                (attr.port_num, attr.is_global) = (1, 1)
                change(&attr)
                let refused = refusal { device.table.create_ah(domain, &attr) }
                #expect(refused.error == EINVAL)
                return refused.message
            }
            #expect(handle { $0.is_global = 0 }.contains("RoCE needs a global route"))
            #expect(handle { $0.port_num = 2 }.contains("port_num must be 1"))
            #expect(handle { $0.grh.sgid_index = 30 }.hasPrefix("GID index 30 is empty"))
            #expect(handle { $0.grh.sgid_index = 200 }.hasSuffix("there is no index 200"))
            #expect(handle { _ in }.contains("the destination GID (grh.dgid) is zero"))
            var port = ibv_port_attr()
            let second = try refusal {
                try check(device.table.query_port(device.context, 2, &port, MemoryLayout<ibv_port_attr>.size))
            }
            #expect(second.error == EINVAL && second.message == "the device has one port, number 1")
        }

        @Test("For a queue pair attribute out of range, the explanation contains its name and range")
        func attributes() throws {
            defer { _ = device.table.dealloc_pd(domain) }
            let endpoint = try Endpoint(device)
            let port = try refusal {
                try endpoint.modify([IBV_QP_STATE, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS]) {
                    $0.qp_state = IBV_QPS_INIT
                    $0.port_num = 9
                }
            }
            #expect(port.error == EINVAL && port.message == "port_num must be 1, not 9")
            // For an undefined transition, the core has the explanation, not the provider.
            let transition = try refusal { try endpoint.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RTS } }
            #expect(transition.error == EINVAL && transition.message.isEmpty)
        }

        @Test("For an object that is in use, the explanation lists the objects that use it")
        func busy() throws {
            let endpoint = try Endpoint(device)
            let queue = try refusal { try check(device.table.destroy_cq(endpoint.queue)) }
            #expect(queue.error == EBUSY && queue.message.contains("queue pairs still complete there"))
            let domain = try refusal { try check(device.table.dealloc_pd(endpoint.domain)) }
            #expect(domain.error == EBUSY && domain.message.contains("still use the domain, in total 2"))
            _ = device.table.dealloc_pd(self.domain)
        }
    }
}
