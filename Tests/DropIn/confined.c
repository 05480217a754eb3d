/*
 * Runs a command in a sandbox as containers have: a filter of system calls (seccomp(2)) that answers EPERM.
 *
 *     confined ptrace COMMAND…    access to other processes: ptrace(2), process_vm_readv(2), pidfd_getfd(2), …
 *     confined strict COMMAND…    also memfd_create(2), pidfd_open(2), and sockets of netlink(7)
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define REFUSE_CALL(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), REFUSE

static struct sock_filter rules[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	REFUSE_CALL(SYS_ptrace),
	REFUSE_CALL(SYS_process_vm_readv),
	REFUSE_CALL(SYS_process_vm_writev),
	REFUSE_CALL(SYS_kcmp),
	REFUSE_CALL(SYS_pidfd_getfd),
	/* What follows is left out for `ptrace`. */
	REFUSE_CALL(SYS_memfd_create),
	REFUSE_CALL(SYS_pidfd_open),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
	REFUSE,
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
enum { PTRACE_RULES = 1 + 2 * 5 };

int main(int count, char **words)
{
	struct sock_fprog program = {.len = sizeof(rules) / sizeof(*rules), .filter = rules};

	CHECK(count > 2);
	if (!strcmp(words[1], "ptrace")) {
		rules[PTRACE_RULES] = rules[program.len - 1];
		program.len = PTRACE_RULES + 1;
	} else {
		CHECK(!strcmp(words[1], "strict"));
	}
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	execvp(words[2], words + 2);
	CHECK(!"the command can be started");
}
