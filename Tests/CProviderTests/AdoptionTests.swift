import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation
import Testing

@Suite("Adoption of a context by the core (rdma_adopt_context)")
struct AdoptionTests {
    /// Adopts a `struct verbs_context` with `sz` = `madeBytes`. The control table has `query_port`,
    /// `close_xrcd`, `post_srq_ops` and `destroy_flow_action`.
    private func adopt(madeBytes: Int, _ body: (UnsafeMutablePointer<verbs_context>) -> Void) {
        var table = rdma_context_ops()
        table.size = UInt32(MemoryLayout<rdma_context_ops>.size)
        table.query_port = { _, _, _, _ in 0 }
        table.close_xrcd = { _ in 0 }
        table.post_srq_ops = { _, _, _ in EBADMSG }
        table.destroy_flow_action = { _ in EBADMSG }
        let verbs = UnsafeMutablePointer<verbs_context>.allocate(capacity: 1)
        defer { verbs.deallocate() }
        verbs.initialize(to: verbs_context())
        verbs.pointee.sz = madeBytes
        verbs.pointee.context.abi_compat = UnsafeMutableRawPointer(bitPattern: UInt.max)
        withUnsafePointer(to: &table) { table in
            var opened = rdma_context(
                size: UInt32(MemoryLayout<rdma_context>.size), flags: 0, context: nil, ops: table)
            // Through a pointer to the whole struct: the core accesses the members before the ibv_context.
            let end = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
            opened.context = (UnsafeMutableRawPointer(verbs) + end).assumingMemoryBound(to: ibv_context.self)
            rdma_adopt_context(&opened)
        }
        body(verbs)
    }

    @Test("rdma_adopt_context fills verbs_context from the control table, and every null slot of context->ops")
    func slots() {
        adopt(madeBytes: MemoryLayout<verbs_context>.size) { verbs in
            #expect(verbs.pointee.query_port != nil)
            #expect(verbs.pointee.close_xrcd != nil)
            #expect(verbs.pointee.post_srq_ops?(nil, nil, nil) == EBADMSG)
            #expect(verbs.pointee.destroy_flow_action?(nil) == EBADMSG)
            #expect(verbs.pointee.create_qp_ex == nil)
            #expect(verbs.pointee.context.ops.post_send != nil)
        }
    }

    @Test("rdma_adopt_context does not write beyond the verbs_context of an older verbs.h")
    func olderHeader() throws {
        let first = try #require(MemoryLayout<verbs_context>.offset(of: \.advise_mr))
        adopt(madeBytes: MemoryLayout<verbs_context>.size - first) { verbs in
            #expect(verbs.pointee.query_port == nil)
            #expect(verbs.pointee.close_xrcd != nil)
        }
    }
}
