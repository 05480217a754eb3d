/*
 * A program that looks for its RDMA devices as NCCL does: libibverbs by dlopen(3) and dlvsym(3), and sysfs by itself. Compares
 * what it reads with what the verbs say. Prints what it has proved, or what is wrong; the exit status says which.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define FUNCTION(name, version) __typeof__(&name) my_##name = (__typeof__(&name))dlvsym(library, #name, version)
#undef ibv_query_port
#undef ibv_reg_mr

static const char *device;

/* The path of an attribute of the device. */
static const char *path_of(const char *attribute)
{
	static __thread char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s%s%s", device, *attribute ? "/" : "", attribute);
	return path;
}

/* The contents without the line feed. */
static const char *read_attribute(const char *attribute)
{
	static __thread char text[256];
	const int file = open(path_of(attribute), O_RDONLY | O_CLOEXEC);
	ssize_t length;

	CHECK(file >= 0);
	length = read(file, text, sizeof(text) - 1);
	CHECK(length > 0 && text[length - 1] == '\n');
	text[length - 1] = '\0';
	CHECK(read(file, text + length, 1) == 0);
	close(file);
	return text;
}

/* opendir(3) and scandir(3) list the same entries, `name` among them. Returns their number. */
static int count_entries(const char *path, const char *name)
{
	DIR *const directory = opendir(path);
	struct dirent **names;
	struct dirent *entry;
	int found = 0;
	int count = 0;
	int scanned;

	CHECK(directory);
	while ((entry = readdir(directory)) != NULL) {
		found += !strcmp(entry->d_name, name);
		count += entry->d_name[0] != '.';
	}
	rewinddir(directory);
	CHECK(readdir(directory));
	CHECK(closedir(directory) == 0);
	CHECK(found == 1);
	scanned = scandir(path, &names, NULL, alphasort);
	CHECK(scanned == count + 2);
	while (scanned-- > 0)
		free(names[scanned]);
	free(names);
	return count;
}

static void fails(int error, const char *attribute, int flags)
{
	errno = 0;
	CHECK(open(path_of(attribute), flags) == -1 && errno == error);
}

/* In a small stack. */
static void *read_in_thread(void *unused)
{
	char *end;

	CHECK(!strcmp(read_attribute("ports/1/state"), "4: ACTIVE"));
	CHECK(strtoull(read_attribute("ports/1/counters/port_xmit_packets"), &end, 10) != ~0ULL && !*end);
	return unused;
}

/* readdir_r(3) into a struct that has room for the name only, as UCX allocates it. */
static void check_reentrant(void)
{
	DIR *const directory = opendir(path_of(""));
	struct dirent *entry;
	struct dirent *result;
	int found = 0;

	CHECK(directory && fpathconf(dirfd(directory), _PC_NAME_MAX) > 0);
	entry = malloc(offsetof(struct dirent, d_name) + (size_t)fpathconf(dirfd(directory), _PC_NAME_MAX) + 1);
	CHECK(entry);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	while (readdir_r(directory, entry, &result) == 0 && result)
		found += !strcmp(result->d_name, "ports");
	CHECK(found == 1);
	free(entry);
	CHECK(closedir(directory) == 0);
}

/* A path that is NULL is the kernel's, also where the headers declare that it is none. */
static void check_null(void)
{
	const char *volatile none = NULL;
	struct statx status;
	struct stat other;

	errno = 0;
	CHECK(statx(0, none, 0, STATX_BASIC_STATS, &status) == -1 && errno == EFAULT);
	errno = 0;
	CHECK(stat(none, &other) == -1 && errno == EFAULT);
	errno = 0;
	CHECK(open(none, O_RDONLY) == -1 && errno == EFAULT);
}

static void check_paths(void)
{
	char path[PATH_MAX];
	char target[PATH_MAX];
	struct stat status;
	ssize_t length;

	CHECK(realpath(path_of(""), path) && !strncmp(path, "/sys/devices/virtual/infiniband/", 32));
	CHECK(stat(path_of(""), &status) == 0 && S_ISDIR(status.st_mode));
	CHECK(lstat(path_of(""), &status) == 0 && S_ISLNK(status.st_mode));
	length = readlink(path_of(""), target, sizeof(target));
	CHECK(length > 0 && !strncmp(target, "../../devices/virtual/infiniband/", 33));
	CHECK(stat(path_of("ports/1/state"), &status) == 0 && S_ISREG(status.st_mode));
	CHECK(stat(path_of("ports/1/../1//./gids/"), &status) == 0 && S_ISDIR(status.st_mode));
	CHECK(access(path_of("ports/1/state"), R_OK) == 0 && access(path_of("ports/1/state"), W_OK) == -1 && errno == EACCES);
	snprintf(path, sizeof(path), "/dev/infiniband/%s", device);
	CHECK(stat(path, &status) == 0 && S_ISCHR(status.st_mode) && access(path, R_OK | W_OK) == 0);
	fails(ENOENT, "ports/2/state", O_RDONLY);
	fails(EACCES, "ports/1/state", O_RDWR);
	fails(EISDIR, "ports", O_RDONLY);
	fails(ENOTDIR, "ports/1/state", O_RDONLY | O_DIRECTORY);
	/* Paths beside ours are the kernel's. */
	CHECK(stat("/sys/class/infiniband_verbs_of_nobody", &status) == -1 && errno == ENOENT);
	CHECK(stat("/sys/class/infiniband/nobody", &status) == -1 && errno == ENOENT);
	CHECK(stat("/sys/class/net/lo", &status) == 0);
}

int main(int count, char **names)
{
	void *const library = dlopen("libibverbs.so.1", RTLD_NOW);
	struct ibv_device **list;
	struct ibv_device **next;
	struct ibv_context *context;
	struct ibv_port_attr port;
	pthread_attr_t attributes;
	pthread_t thread;
	char name[64];
	FILE *file;
	int status;

	CHECK(count == 2 && library);
	device = names[1];
	FUNCTION(ibv_get_device_list, "IBVERBS_1.1");
	FUNCTION(ibv_open_device, "IBVERBS_1.1");
	FUNCTION(ibv_query_port, "IBVERBS_1.1");
	FUNCTION(ibv_query_gid, "IBVERBS_1.1");
	FUNCTION(ibv_query_device, "IBVERBS_1.1");
	CHECK(my_ibv_get_device_list && my_ibv_open_device && my_ibv_query_port && my_ibv_query_gid && my_ibv_query_device);
	list = my_ibv_get_device_list(NULL);
	CHECK(list);
	for (next = list; *next && strcmp((*next)->name, device); next++)
		;
	CHECK(*next);
	CHECK(!strcmp((*next)->ibdev_path, path_of("")));
	context = my_ibv_open_device(*next);
	CHECK(context);

	check_paths();
	check_reentrant();
	check_null();
	CHECK(count_entries("/sys/class/infiniband", device) >= 1);
	CHECK(count_entries(path_of(""), "ports") == 9);
	memset(&port, 0, sizeof(port));
	CHECK(my_ibv_query_port(context, 1, (struct _compat_ibv_port_attr *)(void *)&port) == 0);
	CHECK(count_entries(path_of("ports/1/gids"), "0") == port.gid_tbl_len);
	CHECK(count_entries(path_of("ports/1/pkeys"), "0") == port.pkey_tbl_len);
	CHECK(!strcmp(read_attribute("ports/1/link_layer"), "Ethernet"));
	CHECK(!strcmp(read_attribute("device/numa_node"), "-1"));
	CHECK(!strcmp(read_attribute("node_type"), "1: CA"));
	CHECK(strstr(read_attribute("ports/1/rate"), " Gb/sec ("));
	CHECK(!strcmp(read_attribute("ports/1/pkeys/0"), "0xffff"));
	for (int index = 0; index < port.gid_tbl_len; index++) {
		const unsigned char *bytes;
		union ibv_gid gid;
		char wanted[64] = "";

		CHECK(my_ibv_query_gid(context, 1, index, &gid) == 0);
		bytes = gid.raw;
		for (int at = 0; at < 16; at += 2)
			sprintf(wanted + strlen(wanted), "%s%02x%02x", at ? ":" : "", bytes[at], bytes[at + 1]);
		snprintf(name, sizeof(name), "ports/1/gids/%d", index);
		CHECK(!strcmp(read_attribute(name), wanted));
		snprintf(name, sizeof(name), "ports/1/gid_attrs/types/%d", index);
		if (gid.global.interface_id) {
			CHECK(!strcmp(read_attribute(name), "RoCE v2"));
			snprintf(name, sizeof(name), "ports/1/gid_attrs/ndevs/%d", index);
			CHECK(*read_attribute(name));
		} else {
			/* As the kernel's file of an empty entry. */
			fails(EINVAL, name, O_RDONLY);
		}
	}
	file = fopen(path_of("ports/1/state"), "re");
	CHECK(file && fgets(name, sizeof(name), file) && !strcmp(name, "4: ACTIVE\n") && !fclose(file));
	CHECK(fopen(path_of("ports/1/state"), "w") == NULL && errno == EACCES);
	CHECK(count_entries(path_of("ports/1/hw_counters"), "sent_pkts") > 20);

	CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 65536) == 0);
	CHECK(pthread_create(&thread, &attributes, read_in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);

	/* A child of fork(2) has no software devices, and exec makes it a program that has. */
	if (fork() == 0)
		_exit(access(path_of("node_type"), R_OK) == -1 && errno == ENOENT ? 0 : 1);
	CHECK(wait(&status) > 0 && status == 0);
	snprintf(name, sizeof(name), "cat %s >/dev/null", path_of("node_type"));
	CHECK(system(name) == 0);
	printf("sysfs: all of %s\n", device);
	return 0;
}
