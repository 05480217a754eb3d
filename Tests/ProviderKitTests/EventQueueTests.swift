import CIBVerbs
import CLinux
import Foundation
import ProviderKit
import Testing

/// IBV_EVENT_PORT_ACTIVE of a port.
private func portEvent(_ port: Int32) -> ibv_async_event {
    var event = ibv_async_event()
    event.event_type = IBV_EVENT_PORT_ACTIVE
    event.element.port_num = port
    return event
}

private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
}

private func makeNonblocking(_ descriptor: Int32) {
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
}

/// An event queue that several threads use.
private final class SharedQueue: @unchecked Sendable {
    // Unchecked: the queue has its own lock.
    let queue: UnsafeMutablePointer<EventQueue>

    init?() {
        guard let made = EventQueue() else { return nil }
        queue = .allocate(capacity: 1)
        queue.initialize(to: made)
    }

    deinit {
        queue.deinitialize(count: 1)
        queue.deallocate()
    }
}

@Suite("Event queues")
struct EventQueueTests {
    @Test("Events are taken in order, each with one note; the descriptor is readable while the queue is not empty")
    func order() throws {
        guard let queue = EventQueue() else {
            Issue.record("no descriptor")
            return
        }
        #expect(!isReadable(queue.descriptor))
        for port in 0..<100 as Range<Int32> { queue.append(portEvent(port)) }
        var taken: [Int32] = []
        var noted: [Int32] = []
        while isReadable(queue.descriptor) {
            var event = ibv_async_event()
            #expect(queue.take(into: &event) { noted.append($0.pointee.element.port_num) } == 0)
            taken.append(event.element.port_num)
        }
        #expect(taken == Array(0..<100))
        #expect(noted == taken)
    }

    @Test("With O_NONBLOCK an empty queue returns EAGAIN")
    func nonblocking() throws {
        guard let queue = EventQueue() else {
            Issue.record("no descriptor")
            return
        }
        makeNonblocking(queue.descriptor)
        var event = ibv_async_event()
        #expect(queue.take(into: &event) { _ in } == EAGAIN)
        queue.append(portEvent(1))
        #expect(queue.take(into: &event) { _ in } == 0)
        #expect(queue.take(into: &event) { _ in } == EAGAIN)
    }

    @Test("Dropping an object's events keeps the others in order, and an emptied queue is not readable")
    func drop() throws {
        guard let queue = EventQueue() else {
            Issue.record("no descriptor")
            return
        }
        for port in [1, 2, 1, 3, 1] as [Int32] { queue.append(portEvent(port)) }
        var done = false
        queue.drop(where: { $0.pointee.element.port_num == 1 }, note: { done = true })
        #expect(done)
        var event = ibv_async_event()
        #expect(queue.take(into: &event) { _ in } == 0)
        #expect(event.element.port_num == 2)
        queue.drop(where: { $0.pointee.element.port_num == 3 }, note: {})
        #expect(!isReadable(queue.descriptor))
        queue.drop(where: { _ in true }, note: {})
        queue.append(portEvent(4))
        #expect(queue.take(into: &event) { _ in } == 0)
        #expect(event.element.port_num == 4)
    }

    @Test("A waiting reader is woken by each event, also while other events are dropped")
    func waiting() async throws {
        let shared = try #require(SharedQueue())
        let reader = Task.detached {
            var ports: [Int32] = []
            while ports.last != 1000 {
                var event = ibv_async_event()
                let error = shared.queue.pointee.take(into: &event) { _ in }
                if error == 0 { ports.append(event.element.port_num) }
            }
            return ports
        }
        for port in 1...1000 as ClosedRange<Int32> {
            shared.queue.pointee.append(portEvent(-port))
            shared.queue.pointee.drop(where: { $0.pointee.element.port_num < 0 }, note: {})
            shared.queue.pointee.append(portEvent(port))
        }
        let ports = await reader.value
        #expect(ports.filter { $0 > 0 } == Array(1...1000))
    }
}
