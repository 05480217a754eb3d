/*
 * A libibverbs of another version of rdma-core, of which only the private node matters, a provider that was linked with it, and
 * a program. The provider must reach that libibverbs through this package's, in front of it. Compiled with LIBRARY, with
 * PROVIDER, and with neither; NODE is the number of the private node.
 */
#define JOIN(name, number) name##number
#define EXPAND(name, number) JOIN(name, number)
#define REGISTER EXPAND(verbs_register_driver_, NODE)

struct driver;
void REGISTER(const struct driver *driver);
const char *ibv_wr_opcode_str(int opcode);
const char *ask_libibverbs(void);

#if defined(LIBRARY)
static int drivers;

void REGISTER(const struct driver *driver)
{
	drivers += driver != 0;
}

const char *ibv_wr_opcode_str(int opcode)
{
	return opcode == 7 && drivers == 1 ? "later: reached" : "later: no driver";
}
#elif defined(PROVIDER)
struct driver {
	int number;
};

__attribute__((constructor)) static void begin(void)
{
	static const struct driver driver;

	REGISTER(&driver);
}

const char *ask_libibverbs(void)
{
	return ibv_wr_opcode_str(7);
}
#else
#include <infiniband/verbs.h>
#include <stdio.h>

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (!list || !*list)
		return 1;
	printf("%s, %s\n", ask_libibverbs(), ibv_get_device_name(*list));
	return 0;
}
#endif
