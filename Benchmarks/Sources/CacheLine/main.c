// What messages of 8 bytes between two processes cost at least that each take one cache line: no headers, keys, queues
// or locks.
//
//     CacheLine [COUNT [TARGET-CORE]]
//
// Each process writes to a ring of lines of its own, which the other one polls. A line holds a number that tells whether it
// is new, written last, and the data. Prints one JSON document: half of the median time of a message and its answer in
// microseconds, and the messages per second, of which at most 64 are not acknowledged by the count that the reader
// writes to a line of its own for every 16.
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

enum { LINES = 8192, WINDOW = 64, INTERVAL = 16 };

struct line {
	_Alignas(64) _Atomic uint64_t number;
	uint64_t data;
};

struct rings {
	struct line there[LINES], back[LINES];
	_Alignas(64) _Atomic uint64_t acknowledged;
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb");
#endif
}

static void put(struct line *ring, uint64_t number)
{
	struct line *line = &ring[number % LINES];

	line->data = number;
	atomic_store_explicit(&line->number, number, memory_order_release);
}

static uint64_t take(struct line *ring, uint64_t number)
{
	struct line *line = &ring[number % LINES];

	while (atomic_load_explicit(&line->number, memory_order_acquire) != number)
		relax();
	return line->data;
}

// Answers `count` messages, and then counts as many.
static void serve(struct rings *rings, uint64_t count)
{
	static volatile uint64_t received[WINDOW];

	for (uint64_t number = 1; number <= count; number++) {
		received[number % WINDOW] = take(rings->there, number);
		put(rings->back, number);
	}
	for (uint64_t number = count + 1; number <= 2 * count; number++) {
		received[number % WINDOW] = take(rings->there, number);
		if (number % INTERVAL == 0 || number == 2 * count)
			atomic_store_explicit(&rings->acknowledged, number, memory_order_release);
	}
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
	uint64_t *times, start, end, seen;
	struct rings *rings;
	pid_t target;

	if (count == 0 || count > 100000000) {
		fprintf(stderr, "CacheLine: COUNT must be 1 to 100,000,000\n");
		return 64;
	}
	times = calloc(count, sizeof(*times));
	rings = shared_memory(sizeof(*rings));
	if (!times) {
		perror("CacheLine");
		return 1;
	}
	target = fork_peer();
	if (target == 0) {
		if (argc > 2)
			pin(atoi(argv[2]));
		serve(rings, count);
		_exit(0);
	}
	for (uint64_t number = 1; number <= count; number++) {
		start = now();
		put(rings->there, number);
		take(rings->back, number);
		times[number - 1] = now() - start;
	}
	qsort(times, count, sizeof(*times), compare_times);
	seen = count;
	start = now();
	for (uint64_t number = count + 1; number <= 2 * count; number++) {
		while (number - seen > WINDOW)
			seen = atomic_load_explicit(&rings->acknowledged, memory_order_acquire);
		put(rings->there, number);
	}
	while (atomic_load_explicit(&rings->acknowledged, memory_order_acquire) != 2 * count)
		relax();
	end = now();
	printf("{\"latency\":%.4f,\"rate\":%.0f}\n", (double)times[count / 2] / 2e3,
	       (double)count / ((double)(end - start) / 1e9));
	waitpid(target, NULL, 0);
	return 0;
}
