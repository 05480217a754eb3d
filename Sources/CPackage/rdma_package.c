/* The package manager builds no target without a source file. */
#include "rdma_package.h"
