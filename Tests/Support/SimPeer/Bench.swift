import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// An open device with one protection domain, a completion queue of each kind, and registered memory.
final class Bench {
    let context: UnsafeMutablePointer<ibv_context>
    let domain: UnsafeMutablePointer<ibv_pd>
    let channel: UnsafeMutablePointer<ibv_comp_channel>
    let sends: UnsafeMutablePointer<ibv_cq>
    let receives: UnsafeMutablePointer<ibv_cq>
    let memory: UnsafeMutableRawPointer
    let region: UnsafeMutablePointer<ibv_mr>
    /// RoCE: addresses need a GRH.
    let isEthernet: Bool
    /// Queue pairs are connected by the kernel's connection manager.
    let isIWARP: Bool
    let lid: UInt16
    private(set) var gid = ibv_gid()
    /// Size of each half of the memory, in bytes: the first half is sent from, the second received into.
    static let half = 1 << 16

    init(entries: Int32 = 256) {
        context = library.open()
        domain = have(library.allocateDomain(context), "a protection domain")
        channel = have(library.createChannel(context), "a completion channel")
        sends = have(library.createCompletions(context, entries, nil, channel, 0), "a completion queue")
        receives = have(library.createCompletions(context, entries, nil, channel, 0), "a completion queue")
        memory = .allocate(byteCount: 2 * Bench.half, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: 2 * Bench.half)
        let access =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
            | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        region = have(library.register(domain, memory, 2 * Bench.half, Int32(access)), "a memory region")
        var port = ibv_port_attr()
        equal(library.queryPort(context, &port), 0, "querying the port")
        isIWARP = context.pointee.device.pointee.transport_type == IBV_TRANSPORT_IWARP
        isEthernet = Int(port.link_layer) == Int(IBV_LINK_LAYER_ETHERNET) && !isIWARP
        lid = port.lid
        if isEthernet { equal(library.queryGID(context, 3, &gid), 0, "querying a GID") }
    }

    /// Destroys all objects; the caller has destroyed the others. Checks that no WQE and no doorbell was refused.
    func close() {
        if let sim, let refusal = sim.pointee.refusal(0).map({ String(cString: $0) }) {
            check(!refusal.hasPrefix("a doorbell") && !refusal.hasPrefix("a work request"), refusal)
        }
        equal(library.deregister(region), 0, "deregistering")
        equal(library.destroyCompletions(sends), 0, "destroying a completion queue")
        equal(library.destroyCompletions(receives), 0, "destroying a completion queue")
        equal(library.destroyChannel(channel), 0, "destroying the channel")
        equal(library.freeDomain(domain), 0, "freeing the domain")
        equal(library.close(context), 0, "closing the device")
        memory.deallocate()
    }

    /// Whether the device's name has this prefix.
    func isNamed(_ prefix: String) -> Bool {
        withUnsafeBytes(of: context.pointee.device.pointee.name) { $0.starts(with: prefix.utf8) }
    }

    // MARK: - Memory

    func sge(_ offset: Int, _ length: Int) -> ibv_sge {
        ibv_sge(addr: address(offset), length: UInt32(length), lkey: region.pointee.lkey)
    }

    func address(_ offset: Int) -> UInt64 { UInt64(UInt(bitPattern: memory + offset)) }

    /// Fills memory with a pattern that depends on the offset and the seed.
    func fill(_ offset: Int, _ length: Int, seed: Int) {
        for index in 0..<length {
            memory.storeBytes(
                of: UInt8(truncatingIfNeeded: (index &* 31) ^ (index >> 8) &+ seed), toByteOffset: offset + index,
                as: UInt8.self)
        }
    }

    func isFilled(_ offset: Int, _ length: Int, seed: Int) -> Bool {
        for index in 0..<length
        where memory.load(fromByteOffset: offset + index, as: UInt8.self)
            != UInt8(truncatingIfNeeded: (index &* 31) ^ (index >> 8) &+ seed)
        { return false }
        return true
    }

    // MARK: - Running and polling

    /// Runs a simulated device, and polls until there are `wanted` completions.
    func poll(
        _ queue: UnsafeMutablePointer<ibv_cq>, _ wanted: Int = 1, file: StaticString = #fileID, line: UInt = #line
    ) -> [ibv_wc] {
        var found: [ibv_wc] = []
        for _ in 0..<1000 where found.count < wanted {
            _ = sim?.pointee.step(0)
            // A library may leave fields of a send's completion unchanged, so each poll starts with zeros.
            var completions = [ibv_wc](repeating: ibv_wc(), count: wanted - found.count)
            let count = ibv_poll_cq(queue, Int32(completions.count), &completions)
            check(count >= 0, "polling: \(count)", file: file, line: line)
            found += completions[..<Int(count)]
        }
        equal(found.count, wanted, "completions", file: file, line: line)
        return found
    }

    /// Runs a simulated device, and expects no completion.
    func expectNothing(
        _ queue: UnsafeMutablePointer<ibv_cq>, file: StaticString = #fileID, line: UInt = #line
    ) {
        _ = sim?.pointee.step(0)
        var completion = ibv_wc()
        equal(ibv_poll_cq(queue, 1, &completion), 0, "completions", file: file, line: line)
    }

    /// Polls a completion queue that has no completions.
    func skipInitiation(_ queue: UnsafeMutablePointer<ibv_cq>) {
        var completion = ibv_wc()
        equal(ibv_poll_cq(queue, 1, &completion), 0, "completions of a new connection")
    }

    /// Expects a successful completion of a receive.
    func succeeds(receive id: UInt64, file: StaticString = #fileID, line: UInt = #line) {
        let completion = poll(receives, file: file, line: line)[0]
        equal(completion.status, IBV_WC_SUCCESS, "status of a receive", file: file, line: line)
        equal(completion.wr_id, id, "request of a receive", file: file, line: line)
    }

    /// Expects a successful completion of a send.
    func succeeds(
        _ opcode: ibv_wc_opcode, file: StaticString = #fileID, line: UInt = #line
    ) {
        let completion = poll(sends, file: file, line: line)[0]
        equal(completion.status, IBV_WC_SUCCESS, "status of a send", file: file, line: line)
        equal(completion.opcode, opcode, "opcode of a send", file: file, line: line)
    }
}
