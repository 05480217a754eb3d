#pragma once

// A mount namespace of this process, and a user namespace as well if it may not make one otherwise. User and group keep
// their numbers. Before the process has a second thread. Returns 0, or a positive errno value.
int own_mount_namespace(void);

// Descendants whose parents end become children of this process (PR_SET_CHILD_SUBREAPER). Returns 0, or a positive errno
// value.
int adopt_orphans(void);
