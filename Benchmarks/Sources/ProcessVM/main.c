// The time of process_vm_writev(2) and process_vm_readv(2): 8 bytes to and from the memory of another process.
//
//     ProcessVM [COUNT [TARGET-CORE]]
//
// The other process sleeps, on that processor. Prints one JSON document: medians and 99th percentiles in microseconds.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

static void measure(const char *name, pid_t target, void *memory, uint64_t *times, size_t count, int writes,
		    const char *end)
{
	uint64_t word = 1;
	struct iovec here = { &word, sizeof(word) }, there = { memory, sizeof(word) };

	// A tenth more, which is not counted, to warm up.
	for (size_t index = 0; index < count + count / 10; index++) {
		uint64_t start = now();
		ssize_t copied = writes ? process_vm_writev(target, &here, 1, &there, 1, 0) :
					  process_vm_readv(target, &here, 1, &there, 1, 0);

		if (copied != sizeof(word)) {
			perror(name);
			kill(target, SIGKILL);
			exit(1);
		}
		if (index >= count / 10)
			times[index - count / 10] = now() - start;
	}
	qsort(times, count, sizeof(*times), compare_times);
	printf("\"%s\":{\"p50\":%.3f,\"p99\":%.3f}%s", name, (double)times[count / 2] / 1e3,
	       (double)times[count * 99 / 100] / 1e3, end);
}

int main(int argc, char **argv)
{
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
	uint64_t *times, *memory;
	pid_t target;

	if (count == 0 || count > 100000000) {
		fprintf(stderr, "ProcessVM: COUNT must be 1 to 100,000,000\n");
		return 64;
	}
	times = calloc(count, sizeof(*times));
	memory = malloc(64);
	if (!times || !memory) {
		perror("ProcessVM");
		return 1;
	}
	target = fork_peer();
	if (target == 0) {
		if (argc > 2)
			pin(atoi(argv[2]));
		// The copy of the page that the child writes is its own.
		*memory = 0;
		for (;;)
			pause();
	}
	usleep(50000);
	printf("{");
	measure("write", target, memory, times, count, 1, ",");
	measure("read", target, memory, times, count, 0, "}\n");
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
	return 0;
}
