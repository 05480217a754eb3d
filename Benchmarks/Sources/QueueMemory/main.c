// How the memory of many queue pairs alone limits the rate of messages of 8 bytes: as CacheLine, but each message is also
// written to a queue of the sender and read there, and takes an entry from a queue of the receiver and a place among its
// completions, which are as long as those of soft.
//
//     QueueMemory QUEUES [COUNT]
//
// As `verbs perf --queue-pairs`, the sender writes 16 messages to one queue, and then to the next one; at most 64 are not
// acknowledged. Prints one JSON document: the messages per second.
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

// The slots of each queue, and the bytes of the state of a queue pair, are those of soft with 4,096 queue pairs.
enum { LINES = 8192, WINDOW = 64, BATCH = 16, SENDS = 32, RECEIVES = 16, COMPLETIONS = 1 << 17, STATE = 384 };

struct line {
	_Alignas(64) _Atomic uint64_t number;
	uint64_t queue, data;
};

struct ring {
	struct line lines[LINES];
	_Alignas(64) _Atomic uint64_t acknowledged;
};

struct send {
	_Alignas(16) uint64_t id, data, fields[10];
};

struct receive {
	uint64_t id, fields[5];
};

struct queue {
	_Alignas(64) uint8_t state[STATE];
	uint64_t position;
};

static void touch(struct queue *queue)
{
	for (size_t offset = 0; offset < sizeof(queue->state); offset += 64)
		queue->state[offset]++;
}

static void *room(size_t count, size_t size)
{
	void *memory = aligned_alloc(64, (count * size + 63) / 64 * 64);

	if (!memory) {
		perror("QueueMemory");
		exit(1);
	}
	memset(memory, 1, count * size);
	return memory;
}

static void serve(struct ring *ring, uint64_t queues, uint64_t count)
{
	struct queue *states = room(queues, sizeof(*states));
	struct receive *receives = room(queues * RECEIVES, sizeof(*receives)), *completions, done;
	volatile uint64_t buffer;

	completions = room(COMPLETIONS, sizeof(*completions));
	for (uint64_t number = 1; number <= count; number++) {
		struct line *line = &ring->lines[number % LINES];
		struct receive *entry;
		struct queue *queue;

		while (atomic_load_explicit(&line->number, memory_order_acquire) != number)
			;
		queue = &states[line->queue];
		touch(queue);
		entry = &receives[line->queue * RECEIVES + queue->position++ % RECEIVES];
		buffer = line->data;
		done = *entry;
		done.fields[0] = number;
		completions[number % COMPLETIONS] = done;
		// The program takes the completion, and posts the receive again.
		done = completions[number % COMPLETIONS];
		*entry = done;
		if (number % BATCH == 0 || number == count)
			atomic_store_explicit(&ring->acknowledged, number, memory_order_release);
	}
	(void)buffer;
}

static void request(struct ring *ring, uint64_t queues, uint64_t count)
{
	struct queue *states = room(queues, sizeof(*states));
	struct send *sends = room(queues * SENDS, sizeof(*sends));
	uint64_t seen = 0, turn = 0;

	for (uint64_t number = 1; number <= count; turn = (turn + 1) % queues) {
		struct queue *queue = &states[turn];
		uint64_t first = queue->position;

		for (int index = 0; index < BATCH; index++) {
			struct send request = { .id = number + index, .data = number + index };

			sends[turn * SENDS + queue->position++ % SENDS] = request;
		}
		for (; first != queue->position; first++, number++) {
			struct line *line = &ring->lines[number % LINES];

			while (number - seen > WINDOW)
				seen = atomic_load_explicit(&ring->acknowledged, memory_order_acquire);
			touch(queue);
			line->data = sends[turn * SENDS + first % SENDS].data;
			line->queue = turn;
			atomic_store_explicit(&line->number, number, memory_order_release);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t queues = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	uint64_t count = (argc > 2 ? strtoul(argv[2], NULL, 10) : 20000000) / BATCH * BATCH, start;
	struct ring *ring;
	pid_t target;

	if (queues == 0 || queues > 65536 || count == 0 || count > 1000000000) {
		fprintf(stderr, "QueueMemory: QUEUES must be 1 to 65,536, and COUNT 16 to 1,000,000,000\n");
		return 64;
	}
	ring = shared_memory(sizeof(*ring));
	target = fork_peer();
	if (target == 0) {
		serve(ring, queues, count);
		_exit(0);
	}
	start = now();
	request(ring, queues, count);
	while (atomic_load_explicit(&ring->acknowledged, memory_order_acquire) != count)
		;
	printf("{\"rate\":%.0f}\n", (double)count / ((double)(now() - start) / 1e9));
	waitpid(target, NULL, 0);
	return 0;
}
