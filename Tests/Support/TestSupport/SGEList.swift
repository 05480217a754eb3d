import CIBVerbs
import Synchronization

/// The addresses of all SGE lists.
private let sgeLists = Mutex<[UInt]>([])

/// An SGE list. It is never freed, because work requests point to it without owning it.
public struct SGEList: Sendable {
    nonisolated(unsafe) public let sges: UnsafeMutableBufferPointer<ibv_sge>
    /// The target of READs and WRITEs: address and rkey.
    private let remote: (address: UInt64, key: UInt32)?

    public init(_ list: [ibv_sge], remote: (address: UInt64, key: UInt32)? = nil) {
        sges = .allocate(capacity: max(1, list.count))
        _ = sges.initialize(from: list)
        count = list.count
        self.remote = remote
        let address = UInt(bitPattern: sges.baseAddress)
        sgeLists.withLock { $0.append(address) }
    }

    public let count: Int

    public func send(
        _ opcode: ibv_wr_opcode, id: UInt64 = 1, flags: UInt32 = IBV_SEND_SIGNALED.rawValue
    ) -> ibv_send_wr {
        var request = ibv_send_wr()
        request.wr_id = id
        request.opcode = opcode
        request.send_flags = flags
        request.sg_list = sges.baseAddress
        request.num_sge = Int32(count)
        if let remote { (request.wr.rdma.remote_addr, request.wr.rdma.rkey) = remote }
        return request
    }

    public func receive(id: UInt64 = 1) -> ibv_recv_wr {
        ibv_recv_wr(wr_id: id, next: nil, sg_list: sges.baseAddress, num_sge: Int32(count))
    }
}

/// Three SGEs of 10, 20 and 30 bytes.
public func threeSGEs() -> SGEList {
    SGEList((1...3).map { ibv_sge(addr: 0x1000 * $0, length: UInt32(10 * $0), lkey: UInt32(0x100 + $0)) })
}

/// Bytes 1, 2, 3, … as one SGE.
public func payload(_ count: Int, remote: (address: UInt64, key: UInt32)? = nil) -> SGEList {
    let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, count))
    for index in 0..<count { bytes[index] = UInt8(truncatingIfNeeded: index + 1) }
    return SGEList([ibv_sge(addr: UInt64(UInt(bitPattern: bytes)), length: UInt32(count), lkey: 7)], remote: remote)
}

/// Links work requests to a chain and posts it. Returns the errno value, and the index of the request in `bad_wr`.
public func postChain(
    _ requests: [ibv_send_wr],
    _ post: (UnsafeMutablePointer<ibv_send_wr>?, inout UnsafeMutablePointer<ibv_send_wr>?) -> Int32
) -> (error: Int32, bad: Int?) {
    postChain(requests, \.next, post)
}

/// Links work requests to a chain and posts it. Returns the errno value, and the index of the request in `bad_wr`.
public func postChain(
    _ requests: [ibv_recv_wr],
    _ post: (UnsafeMutablePointer<ibv_recv_wr>?, inout UnsafeMutablePointer<ibv_recv_wr>?) -> Int32
) -> (error: Int32, bad: Int?) {
    postChain(requests, \.next, post)
}

private func postChain<Request>(
    _ requests: [Request], _ next: WritableKeyPath<Request, UnsafeMutablePointer<Request>?>,
    _ post: (UnsafeMutablePointer<Request>?, inout UnsafeMutablePointer<Request>?) -> Int32
) -> (error: Int32, bad: Int?) {
    var requests = requests
    return requests.withUnsafeMutableBufferPointer { chain in
        for index in chain.indices.dropLast() { chain[index][keyPath: next] = chain.baseAddress! + index + 1 }
        var bad: UnsafeMutablePointer<Request>?
        let error = post(chain.baseAddress, &bad)
        return (error, bad.map { $0 - chain.baseAddress! })
    }
}
