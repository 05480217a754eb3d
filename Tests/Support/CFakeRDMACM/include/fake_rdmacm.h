// A simulated librdmacm. Its functions have the names of librdmacm's functions and replace them at link time; they call
// librdmacm unless the channel or identifier was created between fake_rdmacm_begin and fake_rdmacm_end.
#ifndef SWIFT_RDMA_FAKE_RDMACM_H
#define SWIFT_RDMA_FAKE_RDMACM_H

/// No event follows.
#define FAKE_RDMACM_SILENCE (-1)
/// The function fails and does not set errno.
#define FAKE_RDMACM_NO_ERRNO (-1)
/// rdma_connect waits without an end, as a system call does.
#define FAKE_RDMACM_BLOCKS 4095

/// New channels are simulated from now on. Removes all rules. `device`: name of the device to which identifiers are
/// bound.
void fake_rdmacm_begin(const char *device);
void fake_rdmacm_end(void);

/// The device is an iWARP adapter, until the next fake_rdmacm_begin.
void fake_rdmacm_use_iwarp(void);

/// Sets the behavior of a function, which by default succeeds without an event: it fails with the errno value `error`
/// unless that is 0, and an event of this type (`RDMA_CM_EVENT_...`) and status follows on its identifier. The last
/// rule for a function applies. `octet`: the rule applies to addresses with this last byte; negative: to all addresses.
void fake_rdmacm_rule(const char *function, int octet, int error, int event, int status);

/// The number of calls of a function since fake_rdmacm_begin.
int fake_rdmacm_calls(const char *function);

#endif
