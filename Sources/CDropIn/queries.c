#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <rdma_sysfs.h>

DROPIN_EXPORT_AGAIN(ibv_query_device)
int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	struct ibv_device_attr_ex extended = {};
	int error;

	BEHIND_STATUS(context, ibv_query_device, context, attr);
	error = STATUS(context, query_device_ex, context, NULL, &extended, sizeof(extended));
	if (!error)
		*attr = extended.orig_attr;
	return error;
}

/* What this function fills, for programs whose verbs.h does not reach the slot of verbs_context: struct ibv_port_attr up to
 * `flags`. */
DROPIN_EXPORT_AGAIN(ibv_query_port)
int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	BEHIND_STATUS(context, ibv_query_port, context, port, attr);
	return STATUS(context, query_port, context, port, (struct ibv_port_attr *)(void *)attr,
		      offsetof(struct ibv_port_attr, flags) + sizeof(((struct ibv_port_attr *)0)->flags));
}

DROPIN_EXPORT int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed)
{
	BEHIND_STATUS(context, ibv_query_port_speed, context, port, speed);
	return STATUS(context, query_port_speed, context, port, speed);
}

DROPIN_EXPORT int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index,
				    struct ibv_gid_entry *entry, uint32_t flags, size_t size)
{
	BEHIND_STATUS(context, _ibv_query_gid_ex, context, port, index, entry, flags, size);
	return STATUS(context, query_gid_ex, context, port, index, entry, flags, size);
}

DROPIN_EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t capacity,
					   uint32_t flags, size_t size)
{
	if (!is_provided(context))
		return behind._ibv_query_gid_table ?
			       behind._ibv_query_gid_table(context, entries, capacity, flags, size) :
			       -EOPNOTSUPP;
	if (linux_is_forked_child())
		return -EPERM;
	if (!ENTRY(context, query_gid_table))
		return -EOPNOTSUPP;
	return ENTRY(context, query_gid_table)(context, entries, capacity, flags, size);
}

DROPIN_EXPORT_AGAIN(ibv_query_gid)
int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	struct ibv_gid_entry entry = {};
	int error;

	BEHIND_STATUS(context, ibv_query_gid, context, port, index, gid);
	error = STATUS(context, query_gid_ex, context, port, (uint32_t)index, &entry, 0, sizeof(entry));
	/* An empty entry is the GID 0 here, where ibv_query_gid_ex(3) says ENODATA. */
	if (error && error != ENODATA)
		return minus_one(error);
	*gid = entry.gid;
	return 0;
}

DROPIN_EXPORT_PRIVATE(ibv_query_gid_type, "@function");
DROPIN_EXPORT int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned int index, int *type)
{
	struct ibv_gid_entry entry = {};
	int error;

	if (!is_provided(context))
		return behind.ibv_query_gid_type ? behind.ibv_query_gid_type(context, port, index, type) :
						   minus_one(EOPNOTSUPP);
	error = STATUS(context, query_gid_ex, context, port, index, &entry, 0, sizeof(entry));
	if (error && error != ENODATA)
		return minus_one(error);
	*type = entry.gid_type == IBV_GID_TYPE_ROCE_V2;
	return 0;
}

DROPIN_EXPORT_AGAIN(ibv_query_pkey)
int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	int error;

	BEHIND_STATUS(context, ibv_query_pkey, context, port, index, pkey);
	error = STATUS(context, query_pkey, context, port, index, pkey);
	return error ? minus_one(error) : 0;
}

DROPIN_EXPORT int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey)
{
	__be16 found;
	int index;

	if (!is_provided(context))
		return behind.ibv_get_pkey_index ? behind.ibv_get_pkey_index(context, port, pkey) :
						   minus_one(EOPNOTSUPP);
	for (index = 0; index <= UINT16_MAX; index++) {
		int error = STATUS(context, query_pkey, context, port, index, &found);

		if (error)
			return minus_one(error);
		if (found == pkey)
			return index;
	}
	return minus_one(ENOENT);
}

DROPIN_EXPORT int _ibv_query_comp_cntr_caps(struct ibv_context *context, struct ibv_comp_cntr_caps *caps, size_t size)
{
	BEHIND_STATUS(context, _ibv_query_comp_cntr_caps, context, caps, size);
	return STATUS(context, query_comp_cntr_caps, context, caps, size);
}

/* ---- sysfs: helpers for programs, which need no device ---- */

DROPIN_EXPORT const char *ibv_get_sysfs_path(void)
{
	const char *path;

	if (behind.ibv_get_sysfs_path)
		return behind.ibv_get_sysfs_path();
	path = getauxval(AT_SECURE) ? NULL : getenv("SYSFS_PATH");
	return path && *path ? path : "/sys";
}

/* A file of a software device. Returns -ENOENT if the directory is none of one. */
static ssize_t read_own_file(const char *directory, const char *name, char *text, size_t size)
{
	char path[256];
	char *contents;
	size_t length;
	int kind;

	if (size == 0 || (size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path))
		return -EINVAL;
	contents = malloc(RDMA_SYSFS_SIZE);
	if (!contents)
		return -ENOMEM;
	kind = swift_rdma_sysfs(path, contents, &length);
	if (kind != RDMA_SYSFS_FILE) {
		free(contents);
		return kind < 0 ? kind : -ENOENT;
	}
	if (length > 0 && contents[length - 1] == '\n')
		length--;
	if (length >= size)
		length = size - 1;
	memcpy(text, contents, length);
	text[length] = '\0';
	free(contents);
	return (ssize_t)length;
}

/* Reads a file of one line without its line feed. Returns the number of bytes, or -1. */
DROPIN_EXPORT int ibv_read_sysfs_file(const char *directory, const char *name, char *text, size_t size)
{
	char path[4096];
	ssize_t length;
	int file;

	if (!strncmp(directory, RDMA_SYSFS_PATH "/", strlen(RDMA_SYSFS_PATH "/"))) {
		length = read_own_file(directory + strlen(RDMA_SYSFS_PATH "/"), name, text, size);
		if (length != -ENOENT)
			return length < 0 ? minus_one((int)-length) : (int)length;
	}
	if (behind.ibv_read_sysfs_file)
		return behind.ibv_read_sysfs_file(directory, name, text, size);
	length = snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (size == 0 || length < 0 || (size_t)length >= sizeof(path))
		return minus_one(EINVAL);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	length = read(file, text, size);
	close(file);
	if (length < 0)
		return -1;
	if (length > 0 && text[length - 1] == '\n')
		length--;
	if ((size_t)length == size)
		length--;
	text[length] = '\0';
	return (int)length;
}
