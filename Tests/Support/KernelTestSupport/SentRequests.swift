import CIBVerbs
import CKernelABI

/// The work requests of a POST_SEND command, without its header.
public struct SentRequests {
    public let queuePair: UInt32
    public let requestSize: UInt32
    public let requests: [ib_uverbs_send_wr]
    /// The SGEs of all work requests, in order.
    public let sges: [ib_uverbs_sge]

    /// Nil if the length of the bytes does not match their counts.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count >= 24 else { return nil }
        queuePair = bytes.load(8, as: UInt32.self)
        let (count, sgeCount) = (Int(bytes.load(12, as: UInt32.self)), Int(bytes.load(16, as: UInt32.self)))
        requestSize = bytes.load(20, as: UInt32.self)
        let size = MemoryLayout<ib_uverbs_send_wr>.size
        guard requestSize == size, bytes.count == 24 + size * count + 16 * sgeCount else { return nil }
        requests = (0..<count).map { index in
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 24 + size * index, as: ib_uverbs_send_wr.self) }
        }
        sges = (0..<sgeCount).map { index in
            bytes.withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: 24 + size * count + 16 * index, as: ib_uverbs_sge.self)
            }
        }
    }
}

extension FakeKernel {
    /// Simulates the kernel's POST_SEND: accepts work requests until one is refused.
    /// - Parameters:
    ///   - commands: Called with the work requests of each command.
    ///   - refuse: Returns the errno value with which the work request of this wr_id is refused, or 0.
    public func executeSends(
        into commands: @escaping (SentRequests) -> Void, refuse: @escaping (UInt64) -> Int32 = { _ in 0 }
    ) {
        func execute(_ sent: SentRequests, _ bad: (UInt32) -> Void) -> Int32 {
            commands(sent)
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
            return execute(sent) { call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.respond($0) }
        }
        onWrite = { command, response in
            guard command.load(0, as: UInt32.self) == IB_USER_VERBS_CMD_POST_SEND.rawValue,
                Int(command.load(4, as: UInt16.self)) * 4 == command.count, command.load(6, as: UInt16.self) == 1,
                let sent = SentRequests(Array(command[8...]))
            else { return 22 }
            return execute(sent) { response!.storeBytes(of: $0, as: UInt32.self) }
        }
    }
}
