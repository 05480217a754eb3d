/* Queues in memory that is shared with the kernel, and locks. */
#include "crxe.h"

#include <sys/mman.h>

/* Reads the geometry of a queue. Returns false where it does not describe one within the mapping. */
static bool read_geometry(struct crxe_queue *queue, size_t least)
{
	const size_t room = queue->size - offsetof(struct rxe_queue_buf, data);

	queue->shift = queue->buf->log2_elem_size;
	queue->mask = queue->buf->index_mask;
	return queue->shift < 32 && crxe_entry_size(queue) >= least && queue->mask != UINT32_MAX &&
	       (queue->mask & (queue->mask + 1)) == 0 && (((size_t)queue->mask + 1) << queue->shift) <= room;
}

int crxe_map(struct rdma_kernel *kernel, const struct mminfo *info, size_t least, struct crxe_queue *queue)
{
	static const char unknown[] = "the kernel's rdma_rxe gives no memory for the queue, or memory of a layout that crxe "
				      "does not know: update crxe, or use another provider with RDMA_PROVIDER";
	struct crxe_queue mapped = { .size = info->size };

	if (mapped.size < sizeof(struct rxe_queue_buf))
		return crxe_refuse(EPROTO, unknown);
	mapped.buf = crxe_kernel->map(kernel, info->offset, mapped.size, PROT_READ | PROT_WRITE);
	if (!mapped.buf)
		return errno;
	if (!read_geometry(&mapped, least)) {
		crxe_unmap(&mapped);
		return crxe_refuse(EPROTO, unknown);
	}
	*queue = mapped;
	return 0;
}

void crxe_unmap(struct crxe_queue *queue)
{
	if (queue->buf)
		crxe_kernel->unmap(queue->buf, queue->size);
	memset(queue, 0, sizeof(*queue));
}

void crxe_lock_init(struct crxe_lock *lock, bool skipped)
{
	lock->skipped = skipped;
	pthread_mutex_init(&lock->mutex, NULL);
}

void crxe_lock_fini(struct crxe_lock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}
