import Glibc
import RoCETransport
import TestSupport

/// The part of a receiver's memory that only one stream writes to, and its expected contents: the effect of the
/// stream's WRITEs in their order. Each byte of a WRITE that is not acknowledged may be written or not.
final class RemoteMemory {
    let window: UnsafeMutableRawBufferPointer
    /// Words for atomics.
    let words: UnsafeMutablePointer<UInt64>
    /// The expected values of the words.
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

    /// Executes an atomic in the model, and returns the original value.
    func apply(_ work: Work) -> UInt64 {
        let index = work.remoteOffset / 8
        let original = model[index]
        if work.isAtomicWrite {
            model[index] = work.payload.loadUnaligned(as: UInt64.self)
        } else if work.opcode == .fetchAndAdd {
            model[index] &+= work.compareAdd
        } else if original == work.compareAdd {
            model[index] = work.swap
        }
        return original
    }

    /// The window after all WRITEs before `index`.
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

    /// Whether `bytes` are possible contents of `range` of the window after all work requests before `index`, and any
    /// part of those from `index` to `end`.
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

    /// Whether the contents of the window are possible: see `explains`.
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
