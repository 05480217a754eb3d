#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_system.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool enabled;
static const char template[] = "/tmp/uverbs-sim.XXXXXX";
static char root[128];
/* The tree is in a wire's directory, whose creator removes it. */
static bool is_placed;
/* The process that created the tree. A child process uses the same tree and must not remove it. */
static pid_t owner;

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *position)
{
	(void)status;
	(void)type;
	(void)position;
	return remove(path);
}

static void remove_tree(void)
{
	if (root[0] && !is_placed && getpid() == owner)
		nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void sim_sysfs_place(const char *wire, uint16_t lid)
{
	if (!enabled || root[0])
		return;
	is_placed = snprintf(root, sizeof(root), "%s/%u", wire, lid) < (int)sizeof(root);
	if (is_placed)
		setenv("SYSFS_PATH", root, 1);
	else
		root[0] = '\0';
}

void sim_sysfs_clear(void)
{
	remove_tree();
	if (root[0])
		mkdir(root, 0755);
}

void sim_sysfs_enable(void) { enabled = true; }

/* Reuses the tree that this process created before exec(3), which runs no atexit(3) handlers. */
static bool adopt_root(void)
{
	const char *former = getenv("SYSFS_PATH"), *process = getenv("UVERBS_SIM_OWNER");

	if (!former || !process || atoi(process) != (int)getpid() || strlen(former) != strlen(template) ||
	    strncmp(former, template, strlen(template) - 6) != 0)
		return false;
	strcpy(root, former);
	owner = getpid();
	remove_tree();
	owner = 0;
	return mkdir(root, 0755) == 0;
}

static bool make_root(void)
{
	char number[16];

	if (is_placed || (root[0] && getpid() == owner))
		return true;
	if (!adopt_root()) {
		strcpy(root, template);
		if (!mkdtemp(root)) {
			root[0] = '\0';
			return false;
		}
	}
	chmod(root, 0755);
	if (owner != getpid())
		atexit(remove_tree);
	owner = getpid();
	snprintf(number, sizeof(number), "%d", (int)owner);
	setenv("UVERBS_SIM_OWNER", number, 1);
	setenv("SYSFS_PATH", root, 1);
	return true;
}

void sim_sysfs_file(const char *path, const char *text)
{
	char full[512];
	FILE *file;

	if (!enabled || !make_root() || snprintf(full, sizeof(full), "%s/%s", root, path) >= (int)sizeof(full))
		return;
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(full, 0755);
		*slash = '/';
	}
	file = fopen(full, "we");
	if (!file)
		return;
	fputs(text, file);
	fclose(file);
}
