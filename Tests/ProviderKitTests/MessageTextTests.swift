import CIBVerbs
import CLinux
import CProviderABI
import Foundation
import ProviderKit
import TestSupport
import Testing

@Suite("Message texts and failures")
struct MessageTextTests {
    @Test("A text is composed of literals, C strings and numbers", arguments: [0, 7, -12, Int.max, Int.min])
    func append(number: Int) {
        var message = MessageText("port ")
        message.append(number)
        "lo".withCString {
            message.append(" on ")
            message.append($0)
        }
        message.append(nil as UnsafePointer<CChar>?)
        var text = ""
        message.withCString { text = String(cString: $0) }
        #expect(text == "port \(number) on lo")
    }

    @Test("A text that is too long is truncated, and the rdma_reason is null-terminated")
    func long() {
        var message = MessageText()
        for _ in 0..<100 { message.append("123456789 ") }
        message.append(42)
        var why = OpenedContext.emptyReason
        message.store(in: &why)
        #expect(OpenedContext.text(of: why).utf8.count == 507)
        message.store(in: nil)
    }

    @Test("A reason of a later core, which has fields behind the text, keeps them")
    func laterReason() {
        struct LaterReason {
            var reason = OpenedContext.emptyReason
            var added: UInt64 = .max
        }
        var why = LaterReason()
        why.reason.size = UInt32(MemoryLayout<LaterReason>.size)
        String(repeating: "x", count: 2000).withCString { rdma_set_reason(&why.reason, $0) }
        #expect(OpenedContext.text(of: why.reason).utf8.count == 507)
        #expect(why.added == .max)
        // An rdma_reason without room for the text stays as it is.
        why.reason.size = 8
        rdma_set_reason(&why.reason, "short")
        #expect(OpenedContext.text(of: why.reason).utf8.count == 507)
    }

    @Test("Room behind objects has the size that rdma_provider.h promises, and follows the public struct")
    func room() {
        #expect(MemoryLayout<ObjectRoom>.size == Int(RDMA_OBJECT_ROOM))
        let window = allocatePublicStruct(ibv_mw.self)
        defer { window.deallocate() }
        let room = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(window) + MemoryLayout<ibv_mw>.size, count: Int(RDMA_OBJECT_ROOM))
        #expect(room.allSatisfy { $0 == 0 })
    }

    @Test("failure() returns nil and sets errno")
    func refusal() {
        let object: UnsafeMutablePointer<Int>? = failure(EBUSY)
        #expect(object == nil)
        #expect(linux_errno() == EBUSY)
    }
}
