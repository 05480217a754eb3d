import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Completion channels: a descriptor of the kernel's, from which the core reads the events (rdma_provider.h, chapter 5).

func createChannel(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_comp_channel>? {
    guard let context else { return failure(EINVAL) }
    do {
        let descriptor = try context.rxe.pointee.kernel.createChannel()
        let channel = UnsafeMutablePointer<ibv_comp_channel>.allocate(capacity: 1)
        channel.initialize(to: ibv_comp_channel())
        rdma_init_comp_channel(channel, context, descriptor)
        return channel
    } catch {
        return failure(error.rawValue)
    }
}

func destroyChannel(channel: UnsafeMutablePointer<ibv_comp_channel>?) -> Int32 {
    guard let channel else { return EINVAL }
    if rdma_comp_channel_busy(channel) != 0 { return EBUSY }
    linux_close(channel.pointee.fd)
    channel.deallocate()
    return 0
}
