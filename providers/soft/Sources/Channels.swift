import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// A completion channel (`ibv_comp_channel`): a queue of completion events.
struct SoftChannel: ~Copyable {
    var base = ibv_comp_channel()
    private let room = ObjectRoom()
    let events: EventQueue

    init(events: consuming EventQueue) { self.events = events }
}

typealias ChannelPointer = UnsafeMutablePointer<SoftChannel>

extension UnsafeMutablePointer<ibv_comp_channel> {
    var soft: ChannelPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftChannel.self) }
}

extension ChannelPointer {
    var verbs: UnsafeMutablePointer<ibv_comp_channel> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_comp_channel.self)
    }
}

func createChannel(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_comp_channel>? {
    guard let context else { return failure(EINVAL) }
    guard let events = EventQueue() else { return failure(linux_errno()) }
    let channel = ChannelPointer.allocate(capacity: 1)
    channel.initialize(to: SoftChannel(events: events))
    rdma_init_comp_channel(channel.verbs, context, channel.pointee.events.descriptor)
    return channel.verbs
}

func destroyChannel(channel: UnsafeMutablePointer<ibv_comp_channel>?) -> Int32 {
    guard let channel else { return EINVAL }
    if rdma_comp_channel_busy(channel) != 0 {
        return refusal(EBUSY, "completion queues still use the channel: destroy them first")
    }
    channel.soft.deinitialize(count: 1)
    channel.soft.deallocate()
    return 0
}

func getCompletionEvent(
    channel: UnsafeMutablePointer<ibv_comp_channel>?, queue: UnsafeMutablePointer<UnsafeMutablePointer<ibv_cq>?>?
) -> Int32 {
    guard let channel, let queue else { return EINVAL }
    var event = ibv_async_event()
    let error = channel.soft.pointee.events.take(into: &event) { event in
        event.pointee.element.cq.soft.pointee.eventsRead.completions.pointee &+= 1
    }
    if error == 0 { queue.pointee = event.element.cq }
    return error
}

func getAsyncEvent(
    context: UnsafeMutablePointer<ibv_context>?, event: UnsafeMutablePointer<ibv_async_event>?
) -> Int32 {
    guard let context, let event else { return EINVAL }
    return context.soft.pointee.asyncEvents.take(into: event) { event in
        switch event.pointee.subject {
        case .completionQueue: event.pointee.element.cq.soft.pointee.eventsRead.others.pointee &+= 1
        case .sharedReceiveQueue: event.pointee.element.srq.soft.pointee.eventsRead.others.pointee &+= 1
        case .queuePair: event.pointee.element.qp.soft.pointee.eventsRead.others.pointee &+= 1
        // Port and device are never destroyed, so the acknowledgement of their events is not awaited.
        case .port, .device: break
        }
    }
}

extension ibv_async_event {
    /// The kind of object that an event of soft concerns.
    enum Subject {
        case completionQueue, sharedReceiveQueue, queuePair, port, device
    }

    var subject: Subject {
        switch event_type {
        case IBV_EVENT_CQ_ERR: .completionQueue
        case IBV_EVENT_SRQ_ERR, IBV_EVENT_SRQ_LIMIT_REACHED: .sharedReceiveQueue
        case IBV_EVENT_GID_CHANGE, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR: .port
        case IBV_EVENT_DEVICE_FATAL: .device
        default: .queuePair
        }
    }
}
