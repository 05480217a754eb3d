import CLinux
import CProviderABI
import Foundation
import ProviderKit
import TestSupport
import Testing

@Suite("Sentences and refusals")
struct SentenceTests {
    @Test("A sentence is put together from literals, C strings and numbers", arguments: [0, 7, -12, Int.max, Int.min])
    func append(number: Int) {
        var sentence = Sentence("port ")
        sentence.append(number)
        "lo".withCString {
            sentence.append(" on ")
            sentence.append($0)
        }
        sentence.append(nil as UnsafePointer<CChar>?)
        var text = ""
        sentence.withCString { text = String(cString: $0) }
        #expect(text == "port \(number) on lo")
    }

    @Test("A sentence that is too long is cut, and the reason it goes into stays terminated")
    func long() {
        var sentence = Sentence()
        for _ in 0..<100 { sentence.append("123456789 ") }
        sentence.append(42)
        var why = OpenedContext.emptyReason
        sentence.store(in: &why)
        #expect(OpenedContext.text(of: why).utf8.count == 507)
        sentence.store(in: nil)
    }

    @Test("A refused object is nil, with the reason in errno")
    func refusal() {
        let object: UnsafeMutablePointer<Int>? = failure(EBUSY)
        #expect(object == nil)
        #expect(linux_errno() == EBUSY)
    }
}
