import Glibc
import RoCETransport
import TestSupport

/// The part of a receiver's memory that one stream alone writes to, and what it must hold: the effect of the stream's
/// WRITEs in their order. WRITEs that are not acknowledged may have happened or not, byte by byte.
final class RemoteMemory {
    let window: UnsafeMutableRawBufferPointer
    /// Words for atomics.
    let words: UnsafeMutablePointer<UInt64>
    /// What the words must hold.
    private(set) var model: [UInt64]
    private let initial: UnsafeMutableRawBufferPointer
    /// The window after all WRITEs before work request `applied`.
    private let state: UnsafeMutableRawBufferPointer
    private var applied = 0

    static let wordCount = 4

    init(_ host: Host, oracle: Arena, size: Int, random: inout SplitMix) {
        window = host.take(size)
        random.fill(window)
        initial = oracle.take(size)
        initial.copyMemory(from: UnsafeRawBufferPointer(window))
        state = oracle.take(size)
        state.copyMemory(from: UnsafeRawBufferPointer(window))
        words = host.take(8 * Self.wordCount).bindMemory(to: UInt64.self).baseAddress!
        model = (0..<Self.wordCount).map { _ in random.next() }
        for index in 0..<Self.wordCount { words[index] = model[index] }
    }

    /// Carries out an atomic in the model, and returns what it finds.
    func apply(_ work: Work) -> UInt64 {
        let index = work.remoteOffset / 8
        let original = model[index]
        if work.opcode == .fetchAdd {
            model[index] &+= work.compareAdd
        } else if original == work.compareAdd {
            model[index] = work.swap
        }
        return original
    }

    /// The window as all WRITEs before `index` leave it.
    private func state(before index: Int, _ works: [Work]) -> UnsafeMutableRawBufferPointer {
        if index < applied {
            state.copyMemory(from: UnsafeRawBufferPointer(initial))
            applied = 0
        }
        while applied < index {
            let work = works[applied]
            if work.isWrite, work.size > 0, work.fault == nil {
                memcpy(state.baseAddress! + work.remoteOffset, work.payload.baseAddress!, work.size)
            }
            applied += 1
        }
        return state
    }

    /// Whether `bytes` can be what `range` of the window holds when everything before work request `index` was carried
    /// out, and any part of those after it up to `end`.
    func explains(
        _ bytes: UnsafeRawPointer, at range: Range<Int>, after index: Int, upTo end: Int, _ works: [Work]
    ) -> Bool {
        let expected = state(before: index, works)
        if range.isEmpty || memcmp(bytes, expected.baseAddress! + range.lowerBound, range.count) == 0 { return true }
        for offset in range {
            let byte = bytes.load(fromByteOffset: offset - range.lowerBound, as: UInt8.self)
            if byte == expected[offset] { continue }
            guard index < end, works[index..<end].contains(where: { $0.mayHaveWritten(byte, at: offset) }) else {
                return false
            }
        }
        return true
    }

    /// Whether the real window can be what it must be; see above.
    func holds(after index: Int, upTo end: Int, _ works: [Work]) -> Bool {
        explains(UnsafeRawPointer(window.baseAddress!), at: 0..<window.count, after: index, upTo: end, works)
    }
}

extension Work {
    fileprivate func mayHaveWritten(_ byte: UInt8, at offset: Int) -> Bool {
        guard isWrite, fault == nil, offset >= remoteOffset, offset < remoteOffset + size else { return false }
        return payload[offset - remoteOffset] == byte
    }
}
