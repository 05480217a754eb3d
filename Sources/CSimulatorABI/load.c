#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uverbs_sim.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

static struct uverbs_sim functions;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
#define LOAD(name) *(void **)&functions.name = dlsym(RTLD_DEFAULT, "uverbs_sim_" #name)
	LOAD(create);
	LOAD(remove_all);
	LOAD(step);
	LOAD(refusal);
	LOAD(refusals);
	LOAD(forgive);
	LOAD(stores);
	LOAD(inject);
	LOAD(fail);
	LOAD(complete);
	LOAD(hold);
	LOAD(memory);
	LOAD(write);
	LOAD(take);
	LOAD(connect);
	LOAD(disconnect);
	LOAD(stop_doorbells);
}

const struct uverbs_sim *uverbs_sim_load(void)
{
	pthread_once(&once, load);
	return functions.create ? &functions : NULL;
}
