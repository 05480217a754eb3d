#ifndef RDMA_PROVIDER_H
#define RDMA_PROVIDER_H
#include <infiniband/verbs.h>
#endif
