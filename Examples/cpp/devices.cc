// Lists the devices and the GIDs of their ports, with objects that release themselves.
#include <infiniband/verbs.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>
#include <vector>

namespace {

struct CloseContext {
	void operator()(ibv_context *context) const { ibv_close_device(context); }
};
using Context = std::unique_ptr<ibv_context, CloseContext>;

struct FreeList {
	void operator()(ibv_device **list) const { ibv_free_device_list(list); }
};

std::vector<Context> open_all()
{
	std::unique_ptr<ibv_device *[], FreeList> list(ibv_get_device_list(nullptr));
	if (!list)
		throw std::system_error(errno, std::generic_category(), "ibv_get_device_list");
	std::vector<Context> contexts;
	for (ibv_device **device = list.get(); *device; ++device) {
		Context context(ibv_open_device(*device));
		if (!context)
			throw std::system_error(errno, std::generic_category(), ibv_get_device_name(*device));
		contexts.push_back(std::move(context));
	}
	return contexts;
}

std::vector<ibv_gid_entry> gids(const Context &context)
{
	std::vector<ibv_gid_entry> entries(256);
	const ssize_t count = ibv_query_gid_table(context.get(), entries.data(), entries.size(), 0);
	if (count < 0)
		throw std::system_error(static_cast<int>(-count), std::generic_category(), "ibv_query_gid_table");
	entries.resize(static_cast<std::size_t>(count));
	return entries;
}

} // namespace

int main()
try {
	const auto contexts = open_all();
	for (const Context &context : contexts) {
		std::printf("%s\n", ibv_get_device_name(context->device));
		for (const ibv_gid_entry &entry : gids(context)) {
			std::printf("  port %u, GID %u: ", entry.port_num, entry.gid_index);
			for (int index = 0; index < 16; index += 2)
				std::printf("%02x%02x%s", entry.gid.raw[index], entry.gid.raw[index + 1], index == 14 ? "\n" : ":");
		}
	}
	return contexts.empty() ? 1 : 0;
} catch (const std::exception &error) {
	std::fprintf(stderr, "devices: %s\n", error.what());
	return 1;
}
