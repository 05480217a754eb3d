/*
 * A program of MPI for the ranks of one job: point to point of every size and order, collectives, and one-sided windows with
 * atomics, each with a check of every byte. Prints what it has proved, or what is wrong; the exit status says which.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                   \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			fprintf(stderr, "rank %d, line %d: not true: %s\n", rank, __LINE__, #condition);   \
			MPI_Abort(MPI_COMM_WORLD, 1);                                                      \
		}                                                                                          \
	} while (0)

static int rank;
static int count;

static unsigned char byte(int from, int round, size_t index)
{
	return (unsigned char)((unsigned)from * 131 + (unsigned)round * 17 + index * 7 + (index >> 8));
}

static void fill(unsigned char *bytes, size_t size, int round)
{
	for (size_t index = 0; index < size; index++)
		bytes[index] = byte(rank, round, index);
}

static void check(const unsigned char *bytes, size_t size, int from, int round)
{
	for (size_t index = 0; index < size; index++)
		CHECK(bytes[index] == byte(from, round, index));
}

/* A ring in which each rank sends to the next one, with sizes around the limits of inline data, of a packet and of rendezvous. */
static void point_to_point(void)
{
	static const size_t sizes[] = {0, 1, 7, 64, 1000, 4096, 4097, 8192, 65536, 262144, 1048577, 4194304};
	const int next = (rank + 1) % count;
	const int before = (rank + count - 1) % count;
	unsigned char *out = malloc(4194304);
	unsigned char *in = malloc(4194304);

	CHECK(out && in);
	for (int round = 0; round < (int)(sizeof(sizes) / sizeof(*sizes)); round++) {
		MPI_Status status;
		int received;

		fill(out, sizes[round], round);
		memset(in, 0xEE, sizes[round]);
		MPI_Sendrecv(out, (int)sizes[round], MPI_BYTE, next, round, in, (int)sizes[round], MPI_BYTE, before, round,
			     MPI_COMM_WORLD, &status);
		MPI_Get_count(&status, MPI_BYTE, &received);
		CHECK(received == (int)sizes[round]);
		check(in, sizes[round], before, round);
	}
	/* Many at once, received in the opposite order of tags. */
	enum { MANY = 64, SIZE = 10000 };
	MPI_Request requests[2 * MANY];

	for (int index = 0; index < MANY; index++)
		MPI_Irecv(in + index * SIZE, SIZE, MPI_BYTE, before, MANY - index, MPI_COMM_WORLD, &requests[index]);
	for (int index = 0; index < MANY; index++) {
		for (size_t at = 0; at < SIZE; at++)
			out[(size_t)index * SIZE + at] = byte(rank, 100 + index, at);
		MPI_Isend(out + index * SIZE, SIZE, MPI_BYTE, next, index + 1, MPI_COMM_WORLD, &requests[MANY + index]);
	}
	MPI_Waitall(2 * MANY, requests, MPI_STATUSES_IGNORE);
	for (int index = 0; index < MANY; index++)
		check(in + (size_t)index * SIZE, SIZE, before, 100 + MANY - 1 - index);
	free(out);
	free(in);
}

static void collectives(void)
{
	enum { LENGTH = 50000 };
	int64_t *values = malloc(LENGTH * sizeof(*values));
	int64_t *sums = malloc(LENGTH * sizeof(*sums));
	int32_t *out = malloc((size_t)count * 1000 * sizeof(*out));
	int32_t *in = malloc((size_t)count * 1000 * sizeof(*in));

	CHECK(values && sums && out && in);
	for (int index = 0; index < LENGTH; index++)
		values[index] = (int64_t)(rank + 1) * index;
	MPI_Allreduce(values, sums, LENGTH, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
	for (int index = 0; index < LENGTH; index++)
		CHECK(sums[index] == (int64_t)count * (count + 1) / 2 * index);
	for (int root = 0; root < count; root++) {
		for (int index = 0; index < LENGTH; index++)
			values[index] = rank == root ? root * 1000000 + index : -1;
		MPI_Bcast(values, LENGTH, MPI_INT64_T, root, MPI_COMM_WORLD);
		for (int index = 0; index < LENGTH; index++)
			CHECK(values[index] == root * 1000000 + index);
	}
	for (int to = 0; to < count; to++)
		for (int index = 0; index < 1000; index++)
			out[to * 1000 + index] = rank * 1000000 + to * 10000 + index;
	MPI_Alltoall(out, 1000, MPI_INT32_T, in, 1000, MPI_INT32_T, MPI_COMM_WORLD);
	for (int from = 0; from < count; from++)
		for (int index = 0; index < 1000; index++)
			CHECK(in[from * 1000 + index] == from * 1000000 + rank * 10000 + index);
	MPI_Barrier(MPI_COMM_WORLD);
	free(values);
	free(sums);
	free(out);
	free(in);
}

static void one_sided(void)
{
	enum { PART = 100000 };
	unsigned char *memory;
	unsigned char *out = malloc(PART);
	unsigned char *in = malloc(PART);
	int64_t *counter;
	MPI_Win window;
	MPI_Win counters;
	const int next = (rank + 1) % count;
	const int before = (rank + count - 1) % count;

	CHECK(out && in);
	MPI_Win_allocate(PART, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &memory, &window);
	MPI_Win_allocate(sizeof(*counter), sizeof(*counter), MPI_INFO_NULL, MPI_COMM_WORLD, &counter, &counters);
	*counter = 0;
	fill(out, PART, 500);
	MPI_Win_fence(0, window);
	MPI_Put(out, PART, MPI_BYTE, next, 0, PART, MPI_BYTE, window);
	MPI_Win_fence(0, window);
	check(memory, PART, before, 500);
	MPI_Get(in, PART, MPI_BYTE, next, 0, PART, MPI_BYTE, window);
	MPI_Win_fence(0, window);
	check(in, PART, rank, 500);
	/* Every rank adds to the counter of rank 0; no addition is lost, and each one sees a value of its own. */
	MPI_Barrier(MPI_COMM_WORLD);
	for (int round = 0; round < 200; round++) {
		const int64_t one = 1;
		int64_t old;

		MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, counters);
		MPI_Fetch_and_op(&one, &old, MPI_INT64_T, 0, 0, MPI_SUM, counters);
		MPI_Win_unlock(0, counters);
		CHECK(old >= round && old < 200 * count);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0) {
		MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, counters);
		MPI_Win_sync(counters);
		CHECK(*counter == 200 * count);
		MPI_Win_unlock(0, counters);
	}
	MPI_Win_free(&counters);
	MPI_Win_free(&window);
	free(out);
	free(in);
}

int main(int arguments, char **names)
{
	MPI_Init(&arguments, &names);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &count);
	point_to_point();
	collectives();
	one_sided();
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0)
		printf("ranks: all of %d\n", count);
	MPI_Finalize();
	return 0;
}
