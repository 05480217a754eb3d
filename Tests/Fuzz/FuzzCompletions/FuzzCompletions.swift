import CIBVerbs
import ProviderKit

@testable import Mlx5Provider

/// For any bytes in an mlx5 completion queue: polling and cleaning access only the queue, the work completion and the
/// memory of the posted requests (checked by the address sanitizer), and return at most one completion per CQE.
///
/// The first byte of the input selects the CQE size and the queue pair that is cleaned; the rest is the queue's memory.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCompletions(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count >= 1 else { return 0 }
    let choice = start[0]
    let shift: UInt32 = choice & 1 == 0 ? 6 : 7
    let entries: UInt32 = 8
    guard let memory = DeviceMemory(byteCount: Int(entries) << Int(shift)) else { return 0 }
    memory.start.copyMemory(from: start + 1, byteCount: min(count - 1, Int(entries) << Int(shift)))
    let words = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 8)
    defer { words.deallocate() }
    var ring = CompletionRing(
        memory: memory, mask: entries - 1, shift: shift, doorbellRecord: words, armSequence: words + 8, uarPage: words,
        // Not accessed by the tested functions.
        context: Mlx5ContextPointer(bitPattern: 64)!)
    if choice & 2 != 0 {
        ring.clean(UInt32(choice >> 2), hasUserIndex: choice & 4 != 0, shared: nil, isInBatch: choice & 1 != 0)
        if ring.consumer > entries { fatalError("more completions were removed than the queue holds") }
    }
    let requests = PostedRequests()
    var polled: UInt32 = 0
    while let completion = ring.next() {
        polled += 1
        // At most one pass over the ring, because the owner bits do not change.
        if polled > entries { fatalError("more completions than entries") }
        requests.complete(completion)
    }
    memory.free()
    return 0
}

/// A READ and a receive with memory of exactly the size of their SGEs.
private struct PostedRequests: ~Copyable {
    private let queue = UnsafeMutableRawPointer.allocate(byteCount: 256, alignment: 64)
    private let data = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
    private let posted = UnsafeMutablePointer<PostedSend>.allocate(capacity: 4)
    private let ids = UnsafeMutablePointer<UInt64>.allocate(capacity: 4)
    private let retired = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)

    init() {
        queue.initializeMemory(as: UInt8.self, repeating: 0, count: 256)
        posted.initialize(repeating: PostedSend(id: 0, number: 0, opcode: 0), count: 4)
        ids.initialize(repeating: 0, count: 4)
        retired.storeBytes(of: 0, as: UInt64.self)
        let address = UInt64(UInt(bitPattern: data))
        for index in 0..<4 {
            let wqe = queue + 64 * index
            wqe.put(
                Filled(ControlSegment.index, UInt32(index)), Filled(ControlSegment.opcode, Opcode.read))
            wqe.put(Filled(ControlSegment.queuePair, 1), Filled(ControlSegment.segments, 4))
            (wqe + 32).putSGE(16, 1, address)
            (wqe + 48).putSGE(48, 1, address + 16)
        }
    }

    deinit {
        queue.deallocate()
        data.deallocate()
        posted.deallocate()
        ids.deallocate()
        retired.deallocate()
    }

    func complete(_ completion: Completion) {
        var wc = ibv_wc()
        let sends = SendRing(memory: queue, wqebbs: 4, posted: posted, retired: retired)
        // A receive WQE consists only of SGEs.
        let receives = ReceiveRing(memory: queue + 32, count: 1, shift: 5, posted: ids, retired: retired + 4)
        switch completion.opcode {
        case .request:
            completion.writeSent(&wc, postedOpcode: 0)
            _ = sends.scatter(completion, to: completion.index)
        case .send, .sendImmediate, .sendInvalidate, .writeImmediate:
            completion.writeReceived(&wc)
            _ = receives.scatter(completion, to: completion.index)
        default:
            completion.writeError(&wc)
            if wc.status == IBV_WC_SUCCESS { fatalError("an error completion with status IBV_WC_SUCCESS") }
        }
    }
}
