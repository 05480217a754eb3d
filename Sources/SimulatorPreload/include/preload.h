// Empty: the preloaded library interposes functions of the C library and has no interface of its own.
#ifndef SWIFT_RDMA_SIM_PRELOAD_H
#define SWIFT_RDMA_SIM_PRELOAD_H
#endif
