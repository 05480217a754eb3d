import CIBVerbs
import CKernelABI

/// A POST_SEND as the kernel reads it, without its header.
public struct SentRequests {
    public let queuePair: UInt32
    public let requestSize: UInt32
    public let requests: [ib_uverbs_send_wr]
    /// The elements of all requests, in order.
    public let elements: [ib_uverbs_sge]

    /// Nil when the bytes are not as long as they say.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count >= 24 else { return nil }
        queuePair = bytes.load(8, as: UInt32.self)
        let (count, elementCount) = (Int(bytes.load(12, as: UInt32.self)), Int(bytes.load(16, as: UInt32.self)))
        requestSize = bytes.load(20, as: UInt32.self)
        let size = MemoryLayout<ib_uverbs_send_wr>.size
        guard requestSize == size, bytes.count == 24 + size * count + 16 * elementCount else { return nil }
        requests = (0..<count).map { index in
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 24 + size * index, as: ib_uverbs_send_wr.self) }
        }
        elements = (0..<elementCount).map { index in
            bytes.withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: 24 + size * count + 16 * index, as: ib_uverbs_sge.self)
            }
        }
    }
}

extension FakeKernel {
    /// Plays the kernel's POST_SEND: takes requests until one is refused.
    /// - Parameters:
    ///   - taken: gets what was taken.
    ///   - refuse: the errno value with which a request is refused, by its wr_id.
    public func playSends(
        into taken: @escaping (SentRequests) -> Void, refuse: @escaping (UInt64) -> Int32 = { _ in 0 }
    ) {
        func answer(_ sent: SentRequests, _ bad: (UInt32) -> Void) -> Int32 {
            taken(sent)
            for (index, request) in sent.requests.enumerated() {
                let error = refuse(request.wr_id)
                if error != 0 {
                    bad(UInt32(index + 1))
                    return error
                }
            }
            return 0
        }
        onCall = { call in
            guard call.command == UInt64(IB_USER_VERBS_CMD_POST_SEND.rawValue),
                let bytes = call.attribute(UVERBS_ATTR_CORE_IN.rawValue)?.bytes, let sent = SentRequests(bytes)
            else { return 22 }
            return answer(sent) { call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.answer($0) }
        }
        onWrite = { command, response in
            guard command.load(0, as: UInt32.self) == IB_USER_VERBS_CMD_POST_SEND.rawValue,
                Int(command.load(4, as: UInt16.self)) * 4 == command.count, command.load(6, as: UInt16.self) == 1,
                let sent = SentRequests(Array(command[8...]))
            else { return 22 }
            return answer(sent) { response!.storeBytes(of: $0, as: UInt32.self) }
        }
    }
}
