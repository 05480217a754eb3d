#ifndef SWIFT_RDMA_CRDMACM_H
#define SWIFT_RDMA_CRDMACM_H

#include <rdma/rdma_cma.h>

#endif
