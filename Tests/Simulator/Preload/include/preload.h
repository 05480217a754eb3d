// Nothing to include: the preloaded library puts its functions in front of the C library's.
#ifndef SWIFT_RDMA_SIM_PRELOAD_H
#define SWIFT_RDMA_SIM_PRELOAD_H
#endif
