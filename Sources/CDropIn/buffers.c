#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <stdlib.h>
#include <unistd.h>

/*
 * Buffers (ibv_alloc_buf(3)) and ibv_reg_mr_ex(3) for devices of the providers. As in libibverbs, a provider without these
 * entries has buffers of ordinary memory, and its regions are registered with reg_mr or reg_dmabuf_mr.
 */

/* A buffer on a device of a provider. Its address is the handle that the program has. */
struct buffer {
	struct buffer *next;
	struct ibv_pd *pd;
	void *address;
	size_t size;
	/* The provider's handle; NULL for ordinary memory. */
	struct ibv_buf *provided;
};

/*
 * A handle does not tell whose it is: what is not in this list is libibverbs's. A child of fork(2) reads it without the lock,
 * which another thread may have held: each change is one store.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffer *buffers;

/* The place in the list that holds the buffer, or the list's end. Called with `lock`. */
static struct buffer **place_of(const struct ibv_buf *handle)
{
	struct buffer **place = &buffers;

	while (*place && (const void *)*place != handle)
		place = &(*place)->next;
	return place;
}

static struct buffer *find(const struct ibv_buf *handle)
{
	const bool is_child = linux_is_forked_child();
	struct buffer *buffer;

	if (!is_child)
		pthread_mutex_lock(&lock);
	buffer = *place_of(handle);
	if (!is_child)
		pthread_mutex_unlock(&lock);
	return buffer;
}

DROPIN_EXPORT void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **buf)
{
	struct buffer *buffer;

	BEHIND_OBJECT(pd->context, ibv_alloc_buf, pd, size, buf);
	if (linux_is_forked_child())
		return no_object(EPERM);
	buffer = calloc(1, sizeof(*buffer));
	if (!buffer)
		return no_object(ENOMEM);
	buffer->pd = pd;
	buffer->size = size;
	if (ENTRY(pd->context, alloc_buf)) {
		buffer->address = OBJECT(pd->context, alloc_buf, free_buf, pd, size, &buffer->provided);
	} else {
		/* The address of an empty buffer, too, is not NULL. */
		int error = posix_memalign(&buffer->address, (size_t)sysconf(_SC_PAGESIZE), size ? size : 1);

		if (error) {
			buffer->address = NULL;
			errno = error;
		}
	}
	if (!buffer->address) {
		int error = errno;

		free(buffer);
		return no_object(error);
	}
	pthread_mutex_lock(&lock);
	buffer->next = buffers;
	buffers = buffer;
	pthread_mutex_unlock(&lock);
	*buf = (struct ibv_buf *)(void *)buffer;
	return buffer->address;
}

DROPIN_EXPORT void ibv_free_buf(struct ibv_buf *buf)
{
	struct buffer *buffer = find(buf);

	if (!buffer) {
		if (behind.ibv_free_buf)
			behind.ibv_free_buf(buf);
		return;
	}
	/* The parent's. */
	if (linux_is_forked_child())
		return;
	pthread_mutex_lock(&lock);
	*place_of(buf) = buffer->next;
	pthread_mutex_unlock(&lock);
	if (buffer->provided)
		ENTRY(buffer->pd->context, free_buf)(buffer->provided);
	else
		free(buffer->address);
	free(buffer);
}

DROPIN_EXPORT int ibv_export_buf_dmabuf_fd(struct ibv_buf *buf)
{
	const struct buffer *buffer = find(buf);
	int result;

	if (!buffer)
		return behind.ibv_export_buf_dmabuf_fd ? behind.ibv_export_buf_dmabuf_fd(buf) : minus_one(EOPNOTSUPP);
	if (!buffer->provided || !ENTRY(buffer->pd->context, export_buf_dmabuf_fd))
		return minus_one(ENODATA);
	if (linux_is_forked_child())
		return minus_one(EPERM);
	result = ENTRY(buffer->pd->context, export_buf_dmabuf_fd)(buffer->provided);
	return result < 0 ? minus_one(-result) : result;
}

/* struct ibv_mr_init_attr and enum ibv_mr_init_attr_mask of rdma-core 65, which verbs.h of rdma-core 44 does not have. A
 * program sets comp_mask for the members that it has. */
struct registration {
	size_t length;
	int access;
	uint64_t comp_mask;
	uint64_t iova;
	void *address;
	int fd;
	uint64_t fd_offset;
	struct ibv_dmah *dmah;
	struct ibv_buf *buf;
};

enum {
	WITH_IOVA = 1 << 0,
	WITH_ADDRESS = 1 << 1,
	WITH_FD = 1 << 2,
	WITH_FD_OFFSET = 1 << 3,
	WITH_DMAH = 1 << 4,
	WITH_BUF = 1 << 5,
};

/* Puts what the provider knows of the buffer in place of the program's handle. Returns 0, or EINVAL: not a buffer of this
 * protection domain, or the range is not in it. */
static int resolve_buffer(const struct ibv_pd *pd, struct registration *wanted)
{
	const struct buffer *buffer = find(wanted->buf);
	uintptr_t offset;

	if (!buffer || buffer->pd != pd || !(wanted->comp_mask & WITH_ADDRESS) ||
	    wanted->comp_mask & (WITH_FD | WITH_FD_OFFSET))
		return EINVAL;
	/* Below the buffer it wraps, and is beyond the size. */
	offset = (uintptr_t)wanted->address - (uintptr_t)buffer->address;
	if (offset > buffer->size || wanted->length > buffer->size - offset)
		return EINVAL;
	wanted->buf = buffer->provided;
	if (!buffer->provided)
		wanted->comp_mask &= ~(uint64_t)WITH_BUF;
	return 0;
}

DROPIN_EXPORT struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr)
{
	const struct registration *given = (const void *)attr;
	const uint64_t mask = given->comp_mask;
	struct registration wanted = { .length = given->length, .access = given->access, .comp_mask = mask };

	BEHIND_OBJECT(pd->context, ibv_reg_mr_ex, pd, attr);
	if (mask & WITH_IOVA)
		wanted.iova = given->iova;
	if (mask & WITH_ADDRESS)
		wanted.address = given->address;
	if (mask & WITH_FD)
		wanted.fd = given->fd;
	if (mask & WITH_FD_OFFSET)
		wanted.fd_offset = given->fd_offset;
	if (mask & WITH_DMAH)
		wanted.dmah = given->dmah;
	if (mask & WITH_BUF) {
		wanted.buf = given->buf;
		if (resolve_buffer(pd, &wanted))
			return no_object(EINVAL);
	}
	if (ENTRY(pd->context, reg_mr_ex))
		return OBJECT(pd->context, reg_mr_ex, dereg_mr, pd, (struct ibv_mr_init_attr *)(void *)&wanted);
	if (wanted.comp_mask & ~(uint64_t)(WITH_IOVA | WITH_ADDRESS | WITH_FD | WITH_FD_OFFSET))
		return no_object(EOPNOTSUPP);
	switch (wanted.comp_mask & (WITH_ADDRESS | WITH_FD | WITH_FD_OFFSET)) {
	case WITH_ADDRESS:
		return OBJECT(pd->context, reg_mr, dereg_mr, pd, wanted.address, wanted.length,
			      mask & WITH_IOVA ? wanted.iova : (uintptr_t)wanted.address, (unsigned int)wanted.access);
	case WITH_FD | WITH_FD_OFFSET:
		if (!(mask & WITH_IOVA))
			return no_object(EINVAL);
		return OBJECT(pd->context, reg_dmabuf_mr, dereg_mr, pd, wanted.fd_offset, wanted.length, wanted.iova,
			      wanted.fd, wanted.access);
	default: return no_object(EINVAL);
	}
}

DROPIN_EXPORT struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf, void *address, size_t length,
					    int access)
{
	struct registration wanted = {
		.length = length, .access = access, .comp_mask = WITH_ADDRESS | WITH_BUF, .address = address, .buf = buf
	};

	BEHIND_OBJECT(pd->context, ibv_reg_buf_mr, pd, buf, address, length, access);
	return ibv_reg_mr_ex(pd, (struct ibv_mr_init_attr *)(void *)&wanted);
}
