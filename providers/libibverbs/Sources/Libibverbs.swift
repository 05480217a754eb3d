// libibverbs
