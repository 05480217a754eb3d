/*
 * check.h - how the programs of this folder end at the first thing that is not as it must be.
 */
#ifndef DROPIN_CHECK_H
#define DROPIN_CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                   \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			fprintf(stderr, "line %d: not true: %s (errno %d)\n", __LINE__, #condition, errno); \
			exit(1);                                                                           \
		}                                                                                          \
	} while (0)

#endif
