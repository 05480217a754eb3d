/* The header compiles by itself, as C11. */
#include "rdma_mlx5.h"
