#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int linux_private_directory(const char *parent, char *path, size_t capacity)
{
	struct stat status;
	uintmax_t namespace = 0;
	int fd;

	/* Without /proc all processes of the user count as one namespace. */
	if (stat("/proc/self/ns/net", &status) == 0)
		namespace = status.st_ino;
	if ((size_t)snprintf(path, capacity, "%s/swift-rdma-%ju-%ju", parent, (uintmax_t)geteuid(), namespace) >=
	    capacity)
		return -ENAMETOOLONG;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0 || status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

int linux_private_file(int directory, const char *name, int create)
{
	static const int flags[] = { 0, O_CREAT, O_CREAT | O_EXCL };
	struct stat status;
	int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags[create], 0600);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
		close(fd);
		return -EPERM;
	}
	return fd;
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

int64_t linux_file_size(int fd)
{
	struct stat status;

	return fstat(fd, &status) < 0 ? -errno : status.st_size;
}

int linux_reserve_file(int fd, uint64_t offset, uint64_t size)
{
	while (fallocate(fd, 0, (off_t)offset, (off_t)size) < 0) {
		/* A file system that cannot say beforehand whether there is room. */
		if (errno == EOPNOTSUPP)
			return 0;
		if (errno != EINTR)
			return errno;
	}
	return 0;
}

void linux_punch_file(int fd, uint64_t offset, uint64_t size)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0 &&
	       errno == EINTR)
		;
}

int linux_rename_in(int directory, const char *from, const char *to)
{
	return renameat(directory, from, directory, to) < 0 ? errno : 0;
}

void linux_unlink_in(int directory, const char *name)
{
	unlinkat(directory, name, 0);
}

static struct flock byte_lock(short type, uint64_t offset)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1 };
}

int linux_lock_byte(int fd, uint64_t offset)
{
	struct flock lock = byte_lock(F_WRLCK, offset);

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

void linux_unlock_byte(int fd, uint64_t offset)
{
	struct flock lock = byte_lock(F_UNLCK, offset);

	fcntl(fd, F_OFD_SETLK, &lock);
}

bool linux_byte_is_locked(int fd, uint64_t offset)
{
	struct flock lock = byte_lock(F_WRLCK, offset);

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void *linux_map_file(int fd, uint64_t offset, size_t size)
{
	void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

	if (address == MAP_FAILED)
		return NULL;
	/* A child would share the rings and the locks of its parent without knowing. */
	madvise(address, size, MADV_DONTFORK);
	return address;
}

void linux_unmap(void *address, size_t size)
{
	munmap(address, size);
}

static int bell_address(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(address->sun_path))
		return ENAMETOOLONG;
	strcpy(address->sun_path, path);
	return 0;
}

int linux_bell(const char *path)
{
	struct sockaddr_un address;
	int fd, error = bell_address(path, &address);

	if (error)
		return -error;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* What a dead owner of the same slot left behind. */
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

bool linux_ring_bell(int fd, const char *path)
{
	struct sockaddr_un address;

	if (bell_address(path, &address))
		return false;
	while (sendto(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != EINTR)
			return errno == EAGAIN || errno == ENOBUFS;
	}
	return true;
}

void linux_silence_bell(int fd)
{
	char bytes[8];

	while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) >= 0)
		;
}
