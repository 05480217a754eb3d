#define _GNU_SOURCE
#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0)
        return errno;
    int error = write(descriptor, text, strlen(text)) < 0 ? errno : 0;
    close(descriptor);
    return error;
}

static int own_user_namespace(void)
{
    uid_t user = geteuid();
    gid_t group = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return errno;
    char map[32];
    int error = write_file("/proc/self/setgroups", "deny");
    if (error == 0) {
        snprintf(map, sizeof map, "%u %u 1", user, user);
        error = write_file("/proc/self/uid_map", map);
    }
    if (error == 0) {
        snprintf(map, sizeof map, "%u %u 1", group, group);
        error = write_file("/proc/self/gid_map", map);
    }
    return error;
}

int own_mount_namespace(void)
{
    if (unshare(CLONE_NEWNS) != 0) {
        int error = own_user_namespace();
        if (error != 0)
            return error;
    }
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ? errno : 0;
}

int adopt_orphans(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 ? errno : 0;
}
