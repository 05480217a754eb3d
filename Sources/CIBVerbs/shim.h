#ifndef SWIFT_RDMA_CIBVERBS_H
#define SWIFT_RDMA_CIBVERBS_H

#include <infiniband/verbs.h>

#endif
