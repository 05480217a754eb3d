/* Compiles the header by itself: it must need nothing that its user includes before it. */
#include "rdma_provider.h"
