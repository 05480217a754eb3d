import Foundation
import ProviderKit
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: layouts")
struct LayoutTests {
    @Test("Every field has a number of its own, by which a mutant is selected")
    func numbers() throws {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: folder.appendingPathComponent("Sources/Layouts.swift"), encoding: .utf8)
        let numbers = text.matches(of: /\{ Field\((\d+),/).compactMap { Int($0.1) }.sorted()
        #expect(numbers == Array(0..<fieldCount))
    }

    @Test("The header of a work request is opcode, flags, index in the order of the host, and length")
    func header() {
        withUnsafeTemporaryAllocation(byteCount: 16, alignment: 16) { memory in
            memory.baseAddress!.putHeader(WorkRequestOpcode.send, flags: 0x0D, index: 0x1234, length: 3)
            #expect(Array(memory.prefix(8)) == [0x15, 0x0D, 0x34, 0x12, 0, 0, 0, 3])
        }
    }

    @Test("The fields of a CQE are extracted from their bits")
    func completion() {
        // QPN 0xABCDE, status 0x15, of a send, operation 4.
        var bytes: [UInt8] = [0xAB, 0xCD, 0xE2, 0xB4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x34, 0x12, 1, 2, 3, 4, 9, 8, 7, 6]
        bytes.withUnsafeMutableBytes { memory in
            let completion = Completion(memory.baseAddress!)
            #expect(completion.queuePair == 0xABCDE && completion.status == 0x15 && completion.isSend)
            #expect(completion.operation == 4 && completion.length == 0x102 && completion.key == 0x0304_0506)
            #expect(completion.index == 0x1234 && completion.sequence == 0x0708_3412)
            #expect(completion.sharedReceive == 0x0908_0706)
        }
    }
}
