#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_system.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/*
 * A UAR page is mapped with PROT_NONE. A store to it raises SIGSEGV; the handler makes the page accessible and
 * single-steps the instruction, after which the processor raises SIGTRAP.
 *
 * The number of stored bytes is found from the page, not by decoding the instruction: the instruction runs twice, with
 * its registers restored in between, over two fill patterns that differ in every byte; bytes that are equal afterwards
 * were stored. An instruction that has stored nothing is a load: it runs a third time, over the page's own contents.
 */
enum { PAGE = 4096, WINDOW = 64, MAXIMUM = 4096 };

static struct trapped {
	uint8_t *address;
	struct sim_mapping mapping;
} pages[MAXIMUM];
static int page_count;
/* Held to change the table; handlers read it without the lock. */
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
/* Held while a store is single-stepped. */
static pthread_mutex_t one_store = PTHREAD_MUTEX_INITIALIZER;

static struct sigaction former_fault, former_trap;

#if defined(__x86_64__)
enum { TRAP_FLAG = 0x100 };

static __thread struct {
	struct trapped *page;
	uint32_t offset, window;
	int run;
	uint8_t before[WINDOW], first[WINDOW];
	gregset_t registers;
} step;

static struct trapped *find(const uint8_t *address)
{
	for (int index = 0; index < page_count; index++) {
		uint8_t *start = pages[index].address;

		if (start && address >= start && address < start + PAGE)
			return &pages[index];
	}
	return NULL;
}

static void protect(struct trapped *page, int protection) { syscall(SYS_mprotect, page->address, PAGE, protection); }

static void pass_on(const struct sigaction *former, int signal, siginfo_t *info, void *context)
{
	if (former->sa_flags & SA_SIGINFO)
		former->sa_sigaction(signal, info, context);
	else if (former->sa_handler != SIG_DFL && former->sa_handler != SIG_IGN)
		former->sa_handler(signal);
	else
		/* The instruction runs again, and raises the signal with its former disposition. */
		sigaction(signal, former, NULL);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct trapped *page = find(info->si_addr);
	ucontext_t *state = context;

	if (!page || step.run) {
		pass_on(&former_fault, signal, info, context);
		return;
	}
	pthread_mutex_lock(&one_store);
	step.page = page;
	step.offset = (uint8_t *)info->si_addr - page->address;
	step.window = PAGE - step.offset < WINDOW ? PAGE - step.offset : WINDOW;
	step.run = 1;
	memcpy(step.registers, state->uc_mcontext.gregs, sizeof(step.registers));
	protect(page, PROT_READ | PROT_WRITE);
	memcpy(step.before, page->address + step.offset, step.window);
	memset(page->address + step.offset, 0x55, step.window);
	state->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* Executes the same instruction once more. */
static void again(ucontext_t *state, int run)
{
	memcpy(state->uc_mcontext.gregs, step.registers, sizeof(step.registers));
	state->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
	step.run = run;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *state = context;
	uint8_t *place, bytes[WINDOW];
	uint32_t size = 0;
	struct sim_mapping mapping;

	if (!step.run) {
		pass_on(&former_trap, signal, info, context);
		return;
	}
	place = step.page->address + step.offset;
	if (step.run == 1) {
		memcpy(step.first, place, step.window);
		memset(place, 0xAA, step.window);
		again(state, 2);
		return;
	}
	memset(bytes, 0, sizeof(bytes));
	while (step.run == 2 && size < step.window && place[size] == step.first[size])
		size++;
	if (step.run == 2 && size == 0) {
		memcpy(place, step.before, step.window);
		again(state, 3);
		return;
	}
	memcpy(bytes, place, size);
	memcpy(place + size, step.before + size, step.window - size);
	protect(step.page, PROT_NONE);
	state->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	mapping = step.page->mapping;
	step.run = 0;
	pthread_mutex_unlock(&one_store);
	sim_stored(mapping.device, mapping.page, step.offset, size, bytes);
}

static void install(void)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_NODEFER };

	action.sa_sigaction = on_fault;
	sigaction(SIGSEGV, &action, &former_fault);
	action.sa_sigaction = on_trap;
	sigaction(SIGTRAP, &action, &former_trap);
}
#else
/* The trap flag exists on x86 only; on other architectures uverbs_sim_create refuses `trap`. */
static void install(void) {}
#endif

void sim_trap(void *address, const struct sim_mapping *mapping)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
	pthread_mutex_lock(&table);
	for (int index = 0; index < MAXIMUM; index++) {
		if (index < page_count && pages[index].address)
			continue;
		pages[index].mapping = *mapping;
		pages[index].address = address;
		if (index >= page_count)
			page_count = index + 1;
		break;
	}
	pthread_mutex_unlock(&table);
}

void sim_untrap(void *address, size_t length)
{
	uint8_t *start = address;

	if (page_count == 0)
		return;
	pthread_mutex_lock(&table);
	for (int index = 0; index < page_count; index++)
		if (pages[index].address >= start && pages[index].address < start + length)
			pages[index].address = NULL;
	pthread_mutex_unlock(&table);
}
