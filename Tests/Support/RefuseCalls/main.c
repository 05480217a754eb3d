// Runs a program with a seccomp(2) filter that makes system calls fail, as in a sandbox or on a system without them.
//
//     refuse-calls ERRNO CALL[:ARGUMENT=VALUE]... -- PROGRAM [ARGUMENT...]
// ERRNO is a number, CALL a name. With ARGUMENT (an index from 0), a call fails only if the low 32 bits of that
// argument are VALUE. Exits with 99 if the filter cannot be installed; ignores names of calls that this architecture
// does not have.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	int number;
} calls[] = {
#ifdef SYS_accept
	{ "accept", SYS_accept },
#endif
#ifdef SYS_access
	{ "access", SYS_access },
#endif
#ifdef SYS_bind
	{ "bind", SYS_bind },
#endif
#ifdef SYS_clone
	{ "clone", SYS_clone },
#endif
#ifdef SYS_clone3
	{ "clone3", SYS_clone3 },
#endif
#ifdef SYS_connect
	{ "connect", SYS_connect },
#endif
#ifdef SYS_dup2
	{ "dup2", SYS_dup2 },
#endif
#ifdef SYS_epoll_create1
	{ "epoll_create1", SYS_epoll_create1 },
#endif
#ifdef SYS_epoll_ctl
	{ "epoll_ctl", SYS_epoll_ctl },
#endif
#ifdef SYS_eventfd2
	{ "eventfd2", SYS_eventfd2 },
#endif
#ifdef SYS_faccessat
	{ "faccessat", SYS_faccessat },
#endif
#ifdef SYS_faccessat2
	{ "faccessat2", SYS_faccessat2 },
#endif
#ifdef SYS_fallocate
	{ "fallocate", SYS_fallocate },
#endif
#ifdef SYS_fcntl
	{ "fcntl", SYS_fcntl },
#endif
#ifdef SYS_flock
	{ "flock", SYS_flock },
#endif
#ifdef SYS_fork
	{ "fork", SYS_fork },
#endif
#ifdef SYS_fstat
	{ "fstat", SYS_fstat },
#endif
#ifdef SYS_ftruncate
	{ "ftruncate", SYS_ftruncate },
#endif
#ifdef SYS_futex
	{ "futex", SYS_futex },
#endif
#ifdef SYS_getdents64
	{ "getdents64", SYS_getdents64 },
#endif
#ifdef SYS_getpeername
	{ "getpeername", SYS_getpeername },
#endif
#ifdef SYS_getrandom
	{ "getrandom", SYS_getrandom },
#endif
#ifdef SYS_getsockname
	{ "getsockname", SYS_getsockname },
#endif
#ifdef SYS_getsockopt
	{ "getsockopt", SYS_getsockopt },
#endif
#ifdef SYS_ioctl
	{ "ioctl", SYS_ioctl },
#endif
#ifdef SYS_listen
	{ "listen", SYS_listen },
#endif
#ifdef SYS_lseek
	{ "lseek", SYS_lseek },
#endif
#ifdef SYS_madvise
	{ "madvise", SYS_madvise },
#endif
#ifdef SYS_memfd_create
	{ "memfd_create", SYS_memfd_create },
#endif
#ifdef SYS_mincore
	{ "mincore", SYS_mincore },
#endif
#ifdef SYS_mkdir
	{ "mkdir", SYS_mkdir },
#endif
#ifdef SYS_mkdirat
	{ "mkdirat", SYS_mkdirat },
#endif
#ifdef SYS_mlock
	{ "mlock", SYS_mlock },
#endif
#ifdef SYS_mmap
	{ "mmap", SYS_mmap },
#endif
#ifdef SYS_mprotect
	{ "mprotect", SYS_mprotect },
#endif
#ifdef SYS_munmap
	{ "munmap", SYS_munmap },
#endif
#ifdef SYS_newfstatat
	{ "newfstatat", SYS_newfstatat },
#endif
#ifdef SYS_openat
	{ "openat", SYS_openat },
#endif
#ifdef SYS_pipe2
	{ "pipe2", SYS_pipe2 },
#endif
#ifdef SYS_poll
	{ "poll", SYS_poll },
#endif
#ifdef SYS_ppoll
	{ "ppoll", SYS_ppoll },
#endif
#ifdef SYS_pread64
	{ "pread64", SYS_pread64 },
#endif
#ifdef SYS_prlimit64
	{ "prlimit64", SYS_prlimit64 },
#endif
#ifdef SYS_process_vm_readv
	{ "process_vm_readv", SYS_process_vm_readv },
#endif
#ifdef SYS_process_vm_writev
	{ "process_vm_writev", SYS_process_vm_writev },
#endif
#ifdef SYS_pselect6
	{ "pselect6", SYS_pselect6 },
#endif
#ifdef SYS_read
	{ "read", SYS_read },
#endif
#ifdef SYS_readlink
	{ "readlink", SYS_readlink },
#endif
#ifdef SYS_readlinkat
	{ "readlinkat", SYS_readlinkat },
#endif
#ifdef SYS_recvfrom
	{ "recvfrom", SYS_recvfrom },
#endif
#ifdef SYS_recvmmsg
	{ "recvmmsg", SYS_recvmmsg },
#endif
#ifdef SYS_recvmsg
	{ "recvmsg", SYS_recvmsg },
#endif
#ifdef SYS_renameat
	{ "renameat", SYS_renameat },
#endif
#ifdef SYS_renameat2
	{ "renameat2", SYS_renameat2 },
#endif
#ifdef SYS_rt_sigaction
	{ "rt_sigaction", SYS_rt_sigaction },
#endif
#ifdef SYS_rt_sigprocmask
	{ "rt_sigprocmask", SYS_rt_sigprocmask },
#endif
#ifdef SYS_sched_getaffinity
	{ "sched_getaffinity", SYS_sched_getaffinity },
#endif
#ifdef SYS_sched_setscheduler
	{ "sched_setscheduler", SYS_sched_setscheduler },
#endif
#ifdef SYS_sched_yield
	{ "sched_yield", SYS_sched_yield },
#endif
#ifdef SYS_sendmmsg
	{ "sendmmsg", SYS_sendmmsg },
#endif
#ifdef SYS_sendmsg
	{ "sendmsg", SYS_sendmsg },
#endif
#ifdef SYS_sendto
	{ "sendto", SYS_sendto },
#endif
#ifdef SYS_setsockopt
	{ "setsockopt", SYS_setsockopt },
#endif
#ifdef SYS_shutdown
	{ "shutdown", SYS_shutdown },
#endif
#ifdef SYS_socket
	{ "socket", SYS_socket },
#endif
#ifdef SYS_socketpair
	{ "socketpair", SYS_socketpair },
#endif
#ifdef SYS_statx
	{ "statx", SYS_statx },
#endif
#ifdef SYS_timerfd_create
	{ "timerfd_create", SYS_timerfd_create },
#endif
#ifdef SYS_timerfd_settime
	{ "timerfd_settime", SYS_timerfd_settime },
#endif
#ifdef SYS_unlink
	{ "unlink", SYS_unlink },
#endif
#ifdef SYS_unlinkat
	{ "unlinkat", SYS_unlinkat },
#endif
#ifdef SYS_vfork
	{ "vfork", SYS_vfork },
#endif
#ifdef SYS_wait4
	{ "wait4", SYS_wait4 },
#endif
#ifdef SYS_waitid
	{ "waitid", SYS_waitid },
#endif
#ifdef SYS_write
	{ "write", SYS_write },
#endif
};

static struct sock_filter code[1024];
static unsigned short count;

static void add(unsigned short operation, uint32_t value, uint8_t if_true, uint8_t if_false)
{
	code[count++] = (struct sock_filter){ operation, if_true, if_false, value };
}

static void load(size_t offset)
{
	add(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void refuse(const char *call, uint32_t error)
{
	unsigned argument = 0;
	unsigned long value = 0;
	size_t length = strcspn(call, ":");
	int has_argument = sscanf(call + length, ":%u=%lu", &argument, &value) == 2;

	for (size_t index = 0; index < sizeof(calls) / sizeof(calls[0]); index++) {
		if (strlen(calls[index].name) != length || strncmp(calls[index].name, call, length) != 0)
			continue;
		load(offsetof(struct seccomp_data, nr));
		add(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[index].number, 0, has_argument ? 3 : 1);
		if (has_argument) {
			load(offsetof(struct seccomp_data, args) + 8 * argument);
			add(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)value, 0, 1);
		}
		add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error, 0, 0);
	}
}

int main(int argc, char **argv)
{
	struct sock_fprog program = { 0, code };
	int index = 2;

	for (; index < argc && strcmp(argv[index], "--") != 0 && count < 1000; index++)
		refuse(argv[index], (uint32_t)atoi(argv[1]));
	if (index + 1 >= argc)
		return 99;
	add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	program.len = count;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		perror("refuse-calls");
		return 99;
	}
	execv(argv[index + 1], argv + index + 1);
	perror(argv[index + 1]);
	return 99;
}
