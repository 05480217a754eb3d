#include "rdma_provider.h"
