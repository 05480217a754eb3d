import Testing

@testable import VerbsCommand

@Suite("The contents of verified messages")
struct PatternTests {
    /// Message `number`; checks that the bytes before and after it are not changed.
    private func message(_ number: UInt64, size: Int, _ direction: Pattern.Direction = .request) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: size + 2)
        bytes.withUnsafeMutableBytes {
            Pattern.fill(.init(rebasing: $0[1..<size + 1]), number: number, direction: direction)
        }
        #expect(bytes.first == 0xEE && bytes.last == 0xEE)
        return Array(bytes[1..<size + 1])
    }

    private func difference(_ bytes: [UInt8], _ number: UInt64, _ direction: Pattern.Direction = .request) -> Int? {
        bytes.withUnsafeBytes { Pattern.firstDifference($0, number: number, direction: direction) }
    }

    @Test("a filled message of any size verifies, and a change of any byte is found at its offset")
    func everyByte() {
        for size in 1...67 {
            for number in [0, 1, 254, 255, 256, .max] as [UInt64] {
                var bytes = message(number, size: size)
                #expect(difference(bytes, number) == nil)
                for index in bytes.indices {
                    bytes[index] ^= 0x10
                    #expect(difference(bytes, number) == index, "size \(size)")
                    bytes[index] ^= 0x10
                }
            }
        }
    }

    @Test("consecutive messages, and the two directions, differ")
    func distinct() {
        for size in [1, 8, 16, 64] {
            #expect(difference(message(7, size: size), 8) != nil)
            #expect(size == 1 || difference(message(7, size: size), 7, .reply) != nil)
        }
        // An old message is detected although it ends in the same byte.
        #expect(difference(message(7, size: 64), 7 + 256) == 1)
    }

    @Test("the last byte of the first message is not 0")
    func firstMark() {
        #expect(message(0, size: 1) == [1])
        #expect(message(255, size: 1) == [0])
    }

    @Test("the number of a message is found, also after losses")
    func numbers() {
        for size in [1, 15, 16, 100] {
            for (expected, number) in [(0, 0), (3, 3), (3, 5), (250, 300), (1 << 40, 1 << 40)] as [(UInt64, UInt64)] {
                let found = message(number, size: size).withUnsafeBytes {
                    Pattern.number(of: $0, expected: expected, filled: true)
                }
                #expect(found == number, "size \(size)")
            }
        }
        // A long message contains its number, so an old message is detected; an empty one has no number.
        let late = message(5, size: 16).withUnsafeBytes {
            Pattern.number(of: $0, expected: 900, filled: true)
        }
        #expect(late == 5)
        let marked: [UInt8] = Array(repeating: 0, count: 15) + [Pattern.mark(256)]
        #expect(marked.withUnsafeBytes { Pattern.number(of: $0, expected: 256, filled: false) } == 256)
        #expect(Pattern.number(of: .init(start: nil, count: 0), expected: 9, filled: true) == 9)
    }

    @Test("a complete other message is distinguished from a corrupted message")
    func others() {
        for size in [1, 15, 16, 100] {
            func isOther(_ bytes: [UInt8], than number: UInt64) -> Bool {
                bytes.withUnsafeBytes { Pattern.isOther($0, than: number, .request) }
            }
            #expect(!isOther(message(7, size: size), than: 7), "size \(size)")
            #expect(isOther(message(6, size: size), than: 7) && isOther(message(8, size: size), than: 7))
            var wrong = message(6, size: size)
            wrong[size / 2] ^= 0x10
            // A message of one byte contains only its number.
            #expect(isOther(wrong, than: 7) == (size == 1), "size \(size)")
        }
    }

    @Test("latencies: minimum and maximum are exact, percentiles have three digits")
    func recorder() throws {
        var recorder = Recorder()
        #expect(recorder.summary == nil)
        for value in 1...1000 as ClosedRange<UInt64> { recorder.record(nanoseconds: value * 1001) }
        let summary = try #require(recorder.summary)
        #expect(summary.min == 1001 && summary.max == 1_001_000 && summary.mean == 501_000)
        #expect(abs(Int(summary.p50) - 500_500) < 1000)
        #expect(abs(Int(summary.p99) - 990_990) < 1000)
        #expect(recorder.ranges(lines: 5).reduce(0) { $0 + $1.count } == 1000)
        #expect(recorder.ranges(lines: 5).first?.from == 1001)
    }
}
