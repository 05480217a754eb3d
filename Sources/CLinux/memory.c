#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_memory.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Whether all pages are mapped, where /proc is not mounted: mincore(2) does not report access rights. */
static int check_mapped(uintptr_t next, uintptr_t end)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned char resident[4096];

	for (next &= ~(page - 1); next < end; next += sizeof(resident) * page) {
		uintptr_t left = end - next;

		if (mincore((void *)next, left < sizeof(resident) * page ? left : sizeof(resident) * page, resident) < 0 &&
		    errno == ENOMEM)
			return EFAULT;
		if (left <= sizeof(resident) * page)
			break;
	}
	return 0;
}

int linux_check_memory(const void *address, size_t size, bool writable)
{
	uintptr_t next = (uintptr_t)address;
	uintptr_t end = next + size;
	unsigned long first, last;
	char access[5], *line = NULL;
	size_t room = 0;
	FILE *maps;

	if (size == 0)
		return 0;
	if (!address || end < next)
		return EFAULT;
	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return check_mapped(next, end);
	/* The mappings are listed in the order of their addresses. */
	while (next < end && getline(&line, &room, maps) > 0) {
		if (sscanf(line, "%lx-%lx %4s", &first, &last, access) != 3 || last <= next)
			continue;
		if (first > next || access[0] != 'r' || (writable && access[1] != 'w'))
			break;
		next = last;
	}
	free(line);
	fclose(maps);
	return next < end ? EFAULT : 0;
}

/* Constants of asm-generic/mman-common.h, which older C libraries do not declare. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

int linux_populate_memory(void *address, size_t size, bool writable)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first, end = (uintptr_t)address + size;

	if (size == 0)
		return 0;
	if (!address || end < (uintptr_t)address)
		return EFAULT;
	first = (uintptr_t)address & ~(page - 1);
	while (madvise((void *)first, end - first, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) < 0) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		/* An older kernel, or pages of a device, which are always present. */
		if (errno == EINVAL)
			return linux_check_memory(address, size, writable);
		return EFAULT;
	}
	return 0;
}

int64_t linux_file_size(int fd)
{
	off_t before = lseek(fd, 0, SEEK_CUR), size = lseek(fd, 0, SEEK_END);

	if (size < 0)
		return -errno;
	if (before >= 0)
		lseek(fd, before, SEEK_SET);
	return size;
}

int linux_page_size(void)
{
	return (int)sysconf(_SC_PAGESIZE);
}

void *linux_map_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	if (madvise(memory, size, MADV_DONTFORK) < 0) {
		int error = errno;

		munmap(memory, size);
		errno = error;
		return NULL;
	}
	return memory;
}

void *linux_map_registers(int fd, uint64_t offset, size_t size)
{
	void *memory = mmap(NULL, size, PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, size, MADV_DONTFORK);
	return memory;
}

void *linux_map_readable(int fd, uint64_t offset, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);

	return memory == MAP_FAILED ? NULL : memory;
}

void *linux_map_file(int fd, uint64_t offset, size_t size)
{
	return linux_map_node(fd, offset, size, PROT_READ | PROT_WRITE);
}

void *linux_map_node(int fd, uint64_t offset, size_t size, int protection)
{
	void *address;

	if (protection & ~(PROT_READ | PROT_WRITE)) {
		errno = EINVAL;
		return NULL;
	}
	address = mmap(NULL, size, protection, MAP_SHARED, fd, (off_t)offset);
	if (address == MAP_FAILED)
		return NULL;
	/* A child of fork(2) does not inherit the mapping, which it would share with its parent. */
	madvise(address, size, MADV_DONTFORK);
	return address;
}

void linux_unmap(void *address, size_t size)
{
	munmap(address, size);
}

int linux_memory_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int linux_resize_file(int fd, uint64_t size)
{
	return ftruncate(fd, (off_t)size) < 0 ? errno : 0;
}
