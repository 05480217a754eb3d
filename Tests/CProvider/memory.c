/* memory.c - protection domains, memory regions, address handles */
#include "ctest.h"

static struct ctest_mr *regions[CTEST_MAX_MR];
static uint8_t generations[CTEST_MAX_MR]; /* the low byte of a key: a stale key does not match the next region */
static unsigned int next_region;

struct ibv_pd *ctest_alloc_pd(struct ibv_context *context)
{
	struct ctest_pd *pd;

	if (ctest_has_failed(context))
		return ctest_fail(EIO);
	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return ctest_fail(ENOMEM);
	rdma_init_pd(&pd->verbs, context, 0);
	return &pd->verbs;
}

int ctest_dealloc_pd(struct ibv_pd *pd)
{
	unsigned int users;

	ctest_lock();
	users = ctest_pd(pd)->users;
	ctest_unlock();
	if (users)
		return EBUSY;
	free(pd);
	return 0;
}

static int check_region(void *addr, size_t length, uint64_t iova, unsigned int access)
{
	const unsigned int remote_writes = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
	const unsigned int known = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | remote_writes |
				   IBV_ACCESS_OPTIONAL_RANGE;

	if (access & ~known)
		return EOPNOTSUPP;
	if ((access & remote_writes) && !(access & IBV_ACCESS_LOCAL_WRITE))
		return EINVAL;
	if (!addr && length)
		return EINVAL;
	if ((uintptr_t)addr + length < (uintptr_t)addr || iova + length < iova)
		return EINVAL;
	return 0;
}

/* Assigns the region an index. Its lkey and rkey consist of index + 1 (upper bits) and a generation (low byte). */
static int enter_region(struct ctest_mr *mr)
{
	unsigned int tries, index;
	int error = ENOMEM;

	ctest_lock();
	for (tries = 0; tries < CTEST_MAX_MR; tries++) {
		index = next_region++ % CTEST_MAX_MR;
		if (regions[index])
			continue;
		regions[index] = mr;
		mr->verbs.handle = index;
		mr->verbs.lkey = mr->verbs.rkey = (index + 1) << 8 | ++generations[index];
		ctest_pd(mr->verbs.pd)->users++;
		error = 0;
		break;
	}
	ctest_unlock();
	return error;
}

struct ibv_mr *ctest_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	int error = ctest_has_failed(pd->context) ? EIO : check_region(addr, length, iova, access);
	struct ctest_mr *mr;

	if (error)
		return ctest_fail(error);
	mr = calloc(1, sizeof(*mr));
	if (!mr)
		return ctest_fail(ENOMEM);
	rdma_init_mr(&mr->verbs, pd, addr, length, 0, 0, 0); /* enter_region adds the handle and the keys */
	mr->iova = iova;
	mr->access = access;
	error = enter_region(mr);
	if (error) {
		free(mr);
		return ctest_fail(error);
	}
	return &mr->verbs;
}

int ctest_dereg_mr(struct ibv_mr *mr)
{
	ctest_lock();
	regions[mr->handle] = NULL;
	ctest_pd(mr->pd)->users--;
	ctest_unlock();
	free(mr);
	return 0;
}

void *ctest_translate(struct ibv_pd *pd, uint32_t key, uint64_t address, uint32_t length, unsigned int access)
{
	uint32_t index = (key >> 8) - 1;
	uint64_t offset;
	const struct ctest_mr *mr;

	if (index >= CTEST_MAX_MR)
		return NULL;
	mr = regions[index];
	if (!mr || mr->verbs.lkey != key || mr->verbs.pd != pd || (mr->access & access) != access)
		return NULL;
	offset = address - mr->iova;
	if (address < mr->iova || offset > mr->verbs.length || length > mr->verbs.length - offset)
		return NULL;
	return (uint8_t *)mr->verbs.addr + offset;
}

struct ibv_ah *ctest_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct ctest_ah *ah;

	if (ctest_has_failed(pd->context))
		return ctest_fail(EIO);
	if (!ctest_ah_attr_valid(attr))
		return ctest_fail(EINVAL);
	ah = calloc(1, sizeof(*ah));
	if (!ah)
		return ctest_fail(ENOMEM);
	rdma_init_ah(&ah->verbs, pd, 0);
	ah->attr = *attr;
	ctest_count(&ctest_pd(pd)->users, 1);
	return &ah->verbs;
}

int ctest_destroy_ah(struct ibv_ah *ah)
{
	ctest_count(&ctest_pd(ah->pd)->users, -1);
	free(ah);
	return 0;
}
