import CIBVerbs
import CProviderABI
import Foundation
import Testing

@Suite("What the core does to a context")
struct AdoptionTests {
    /// A `struct verbs_context` that says how much of it was made, with a table that has every query.
    private func adopt(madeBytes: Int, _ body: (UnsafeMutablePointer<verbs_context>) -> Void) {
        var table = rdma_context_ops()
        table.size = MemoryLayout<rdma_context_ops>.size
        table.query_port = { _, _, _, _ in 0 }
        table.close_xrcd = { _ in 0 }
        let verbs = UnsafeMutablePointer<verbs_context>.allocate(capacity: 1)
        defer { verbs.deallocate() }
        verbs.initialize(to: verbs_context())
        verbs.pointee.sz = madeBytes
        verbs.pointee.context.abi_compat = UnsafeMutableRawPointer(bitPattern: UInt.max)
        withUnsafePointer(to: &table) { table in
            var opened = rdma_context(
                size: UInt32(MemoryLayout<rdma_context>.size), flags: 0, context: nil, ops: table)
            // Through the whole struct's pointer: the core goes back from the context to what lies before it.
            let end = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
            opened.context = (UnsafeMutableRawPointer(verbs) + end).assumingMemoryBound(to: ibv_context.self)
            rdma_adopt_context(&opened)
        }
        body(verbs)
    }

    @Test("The slots of struct verbs_context come from the table, and those of context->ops are never null")
    func slots() {
        adopt(madeBytes: MemoryLayout<verbs_context>.size) { verbs in
            #expect(verbs.pointee.query_port != nil)
            #expect(verbs.pointee.close_xrcd != nil)
            #expect(verbs.pointee.create_qp_ex == nil)
            #expect(verbs.pointee.context.ops.post_send != nil)
        }
    }

    @Test("A context made with an older verbs.h is not written to where it has no slot")
    func olderHeader() throws {
        let first = try #require(MemoryLayout<verbs_context>.offset(of: \.advise_mr))
        adopt(madeBytes: MemoryLayout<verbs_context>.size - first) { verbs in
            #expect(verbs.pointee.query_port == nil)
            #expect(verbs.pointee.close_xrcd != nil)
        }
    }
}
