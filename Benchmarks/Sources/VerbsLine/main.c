// What messages of 8 bytes between two processes cost at least when verbs are called: as the latency of CacheLine, with what
// ibv_post_recv, ibv_post_send and ibv_poll_cq have to do on a reliable connection, and nothing else.
//
//     VerbsLine [COUNT [TARGET-CORE]]
//
// A post takes the lock of its queue and copies the work request. Then, and when a poll finds its completion queue empty, the
// caller takes the lock of the device, reads the clock, for time-outs, and sends or receives. A packet has the headers of RoCEv2
// and the acknowledgement of the last message. Its sender looks up the key of the memory region; its receiver looks up the queue
// pair, checks the PSN, completes the acknowledged send, looks up the key of the oldest receive, copies the data and completes the
// receive. Both programs post a receive for each message, and take the completions of their sends.
//
// Prints one JSON document: half of the median time of a message and its answer in microseconds.
#include <endian.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

enum { LINES = 8192, SLOTS = 64, QUEUE_PAIRS = 256, REGIONS = 256, KEY = 7, QPN = 0x123405, SEND_ONLY = 4 };

struct sge {
	uint64_t address;
	uint32_t length, lkey;
};

// struct ibv_wc has as many bytes.
struct completion {
	uint64_t id;
	uint32_t status, opcode, vendor_error, length, immediate, qpn, source_qpn, flags;
	uint64_t others;
};

struct work_request {
	uint64_t id;
	uint32_t opcode, flags;
	struct sge sge;
};

// The fields of a packet: a word that is written last, the acknowledged PSN, the BTH, the data and the ICRC.
struct line {
	_Alignas(64) _Atomic uint64_t valid;
	uint64_t acknowledged;
	uint32_t bth[3];
	uint8_t data[8];
	uint32_t icrc;
};

struct rings {
	struct line there[LINES], back[LINES];
};

struct lock {
	_Alignas(64) atomic_uint held;
};

struct queue {
	struct lock lock;
	struct work_request slots[SLOTS];
	_Atomic uint32_t produced;
	uint32_t consumed;
};

struct region {
	uint32_t key, access;
	uint64_t start, length;
};

struct queue_pair {
	uint32_t number, state, next, expected, unacknowledged, answered;
	uint64_t deadline;
	struct queue sends, receives;
};

struct device {
	struct lock lock, completions;
	struct queue_pair *pairs[QUEUE_PAIRS];
	struct region regions[REGIONS];
	struct completion entries[SLOTS];
	uint32_t added, taken;
	struct line *out, *in;
	uint64_t sent, received;
};

static uint64_t buffers[2];

static void take(struct lock *lock)
{
	unsigned free = 0;

	while (!atomic_compare_exchange_weak_explicit(&lock->held, &free, 1, memory_order_acquire, memory_order_relaxed))
		free = 0;
}

// Of a lock that others try without waiting: they leave their work to the holder, who has to see it.
static void release_device(struct lock *lock) { atomic_exchange(&lock->held, 0); }
static void release(struct lock *lock) { atomic_store_explicit(&lock->held, 0, memory_order_release); }

static void fail(const char *what)
{
	fprintf(stderr, "VerbsLine: %s\n", what);
	exit(1);
}

static void post(struct queue *queue, const struct work_request *request)
{
	uint32_t index;

	take(&queue->lock);
	index = atomic_load_explicit(&queue->produced, memory_order_relaxed);
	queue->slots[index % SLOTS] = *request;
	atomic_store_explicit(&queue->produced, index + 1, memory_order_release);
	release(&queue->lock);
}

static void *translate(struct device *device, const struct sge *sge, uint32_t length)
{
	struct region *region = &device->regions[sge->lkey >> 8 & (REGIONS - 1)];

	if (region->key != sge->lkey || !region->access || sge->address < region->start ||
	    sge->address - region->start + length > region->length || length > sge->length)
		fail("a key or an address is wrong");
	return (void *)(uintptr_t)sge->address;
}

static void complete(struct device *device, struct queue_pair *pair, uint64_t id, uint32_t opcode, uint32_t length)
{
	struct completion entry = { .id = id, .opcode = opcode, .length = length, .qpn = pair->number };

	device->entries[device->added++ % SLOTS] = entry;
}

static void post_send(struct device *device, struct queue_pair *pair, const struct work_request *request)
{
	struct work_request *entry;
	struct line *line;
	uint64_t data;

	post(&pair->sends, request);
	take(&device->lock);
	pair->deadline = now() + 1000000;
	while (pair->next != atomic_load_explicit(&pair->sends.produced, memory_order_acquire)) {
		entry = &pair->sends.slots[pair->next % SLOTS];
		data = *(uint64_t *)translate(device, &entry->sge, 8);
		line = &device->out[++device->sent % LINES];
		line->acknowledged = pair->answered;
		line->bth[0] = htobe32(SEND_ONLY << 24 | 0xFFFF);
		line->bth[1] = htobe32(pair->number);
		line->bth[2] = htobe32(1u << 31 | pair->next++);
		memcpy(line->data, &data, sizeof(data));
		line->icrc = 0;
		atomic_store_explicit(&line->valid, device->sent, memory_order_release);
	}
	release_device(&device->lock);
}

static void receive(struct device *device, struct line *line)
{
	struct queue_pair *pair = device->pairs[be32toh(line->bth[1]) & (QUEUE_PAIRS - 1)];
	struct work_request *entry;

	if (!pair || pair->number != be32toh(line->bth[1]) || be32toh(line->bth[0]) >> 24 != SEND_ONLY ||
	    (be32toh(line->bth[2]) & 0xFFFFFF) != pair->expected)
		fail("a packet is wrong");
	for (; pair->unacknowledged != line->acknowledged; pair->unacknowledged++) {
		entry = &pair->sends.slots[pair->unacknowledged % SLOTS];
		complete(device, pair, entry->id, 0, 0);
		pair->deadline = 0;
	}
	if (pair->receives.consumed == atomic_load_explicit(&pair->receives.produced, memory_order_acquire))
		fail("no receive is posted");
	entry = &pair->receives.slots[pair->receives.consumed++ % SLOTS];
	memcpy(translate(device, &entry->sge, 8), line->data, 8);
	complete(device, pair, entry->id, 128, 8);
	pair->answered = ++pair->expected;
}

static int poll(struct device *device, struct completion *completions, int count)
{
	int found = 0;

	take(&device->completions);
	if (device->added == device->taken) {
		struct line *line;

		take(&device->lock);
		now();
		line = &device->in[(device->received + 1) % LINES];
		if (atomic_load_explicit(&line->valid, memory_order_acquire) == device->received + 1) {
			device->received++;
			receive(device, line);
		}
		release_device(&device->lock);
	}
	while (found < count && device->added != device->taken)
		completions[found++] = device->entries[device->taken++ % SLOTS];
	release(&device->completions);
	return found;
}

static struct device *open_device(struct line *out, struct line *in)
{
	struct device *device = aligned_alloc(64, sizeof(*device));
	struct queue_pair *pair = aligned_alloc(64, (sizeof(*pair) + 63) / 64 * 64);

	if (!device || !pair)
		fail("no memory");
	memset(device, 0, sizeof(*device));
	memset(pair, 0, sizeof(*pair));
	pair->number = QPN;
	device->pairs[QPN & (QUEUE_PAIRS - 1)] = pair;
	device->regions[1] = (struct region){ .key = 1 << 8 | KEY, .access = 1, .start = (uintptr_t)buffers,
					       .length = sizeof(buffers) };
	device->out = out;
	device->in = in;
	return device;
}

static struct work_request request(int buffer, uint64_t id)
{
	return (struct work_request){ .id = id, .opcode = 2, .flags = 2,
				      .sge = { (uintptr_t)&buffers[buffer], 8, 1 << 8 | KEY } };
}

// Polls until the completions of a receive and, of a message that was sent, of the send were there.
static void await(struct device *device, int count)
{
	struct completion found[4];

	while (count > 0) {
		int taken = poll(device, found, 4);

		for (int index = 0; index < taken; index++)
			if (found[index].status != 0)
				fail("a request failed");
		count -= taken;
	}
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
	struct work_request send = request(0, 1), receive = request(1, 2);
	struct rings *rings;
	struct device *device;
	uint64_t *times;
	pid_t target;

	if (count == 0 || count > 100000000) {
		fprintf(stderr, "VerbsLine: COUNT must be 1 to 100,000,000\n");
		return 64;
	}
	times = calloc(count, sizeof(*times));
	rings = shared_memory(sizeof(*rings));
	if (!times) {
		perror("VerbsLine");
		return 1;
	}
	target = fork_peer();
	if (target == 0) {
		struct queue_pair *pair;

		if (argc > 2)
			pin(atoi(argv[2]));
		device = open_device(rings->back, rings->there);
		pair = device->pairs[QPN & (QUEUE_PAIRS - 1)];
		for (int index = 0; index < 2; index++)
			post(&pair->receives, &receive);
		for (uint64_t number = 0; number < count; number++) {
			// From the second message on, the send of the answer before is complete, too.
			await(device, number == 0 ? 1 : 2);
			post_send(device, pair, &send);
			post(&pair->receives, &receive);
		}
		_exit(0);
	}
	usleep(50000);
	device = open_device(rings->there, rings->back);
	for (uint64_t number = 0; number < count; number++) {
		struct queue_pair *pair = device->pairs[QPN & (QUEUE_PAIRS - 1)];
		uint64_t start;

		post(&pair->receives, &receive);
		start = now();
		post_send(device, pair, &send);
		await(device, 2);
		times[number] = now() - start;
	}
	qsort(times, count, sizeof(*times), compare_times);
	printf("{\"latency\":%.4f}\n", (double)times[count / 2] / 2e3);
	waitpid(target, NULL, 0);
	return 0;
}
