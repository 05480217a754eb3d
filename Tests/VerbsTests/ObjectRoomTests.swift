import CIBVerbs
import CProviderABI
import Testing
import Verbs

/// Chapter 1 of rdma_provider.h: a member that a later verbs.h adds to the public struct of an object reads as 0.
@Suite("Room behind the objects of a provider")
struct ObjectRoomTests {
    /// Whether RDMA_OBJECT_ROOM zeroed bytes follow a public struct.
    private func hasRoom<Public>(_ object: UnsafeMutablePointer<Public>?) -> Bool {
        guard let object else { return false }
        let room = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(object) + MemoryLayout<Public>.size, count: Int(RDMA_OBJECT_ROOM))
        return room.allSatisfy { $0 == 0 }
    }

    @Test(
        "64 zeroed bytes follow every public struct, also after work requests were executed", arguments: Bench.devices)
    func room(of device: String) throws {
        let context = try Bench.open(device)
        var pair = try Pair(context)
        let domain = try context.makeProtectionDomain()
        let shared = try domain.makeSharedReceiveQueue(.init(maxWR: 4, maxSGE: 1))
        let address = try #require(try context.addresses().first)
        let handle = try domain.makeAddressHandle(
            AddressVector(to: try pair.left.queuePair.endpoint(), from: address))
        for _ in 1...3 {
            try pair.right.queuePair.postReceive(pair.right.region.sge(0..<64), id: 1)
            try pair.left.queuePair.postSend(.send, pair.left.region.sge(0..<64), id: 2)
            _ = try pair.left.next()
            _ = try pair.right.next()
        }

        #expect(hasRoom(domain.unsafeRaw))
        #expect(hasRoom(pair.left.region.unsafeRaw))
        #expect(hasRoom(handle.unsafeRaw))
        #expect(hasRoom(shared.unsafeRaw))
        let queue = pair.left.queuePair.unsafeRaw
        #expect(hasRoom(UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_qp_ex.self)))
        #expect(hasRoom(UnsafeMutableRawPointer(queue.pointee.send_cq).assumingMemoryBound(to: ibv_cq_ex.self)))
        #expect(hasRoom(queue.pointee.send_cq.pointee.channel as UnsafeMutablePointer<ibv_comp_channel>?))
    }
}
