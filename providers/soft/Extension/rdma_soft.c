/* The header compiles by itself, as C11. */
#include "rdma_soft.h"
