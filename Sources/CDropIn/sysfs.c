#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <linux_local.h>
#include <rdma_sysfs.h>

/*
 * The attributes of software devices, with the names and the forms of the kernel's (Documentation/ABI/stable/sysfs-class-infiniband
 * in its source). They come from a context of their own for each device that is looked at, which stays open: a program reads one
 * file after the other.
 */
struct viewed {
	struct ibv_device *device;
	struct ibv_context *context;
	struct viewed *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct viewed *all_viewed;

struct text {
	char *bytes;
	size_t count;
};

__attribute__((format(printf, 2, 3))) static int put(struct text *text, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text->bytes + text->count, RDMA_SYSFS_SIZE - text->count, format, arguments);
	va_end(arguments);
	if (length > 0 && (size_t)length < RDMA_SYSFS_SIZE - text->count)
		text->count += (size_t)length;
	return RDMA_SYSFS_FILE;
}

/* Whether the path begins with this component; then *path is what follows. */
static bool enter(const char **path, const char *component)
{
	size_t length = strlen(component);

	if (strncmp(*path, component, length) || ((*path)[length] != '\0' && (*path)[length] != '/'))
		return false;
	*path += length + ((*path)[length] == '/');
	return true;
}

/* Whether the path is a single number below the limit. */
static bool is_number(const char *path, uint32_t limit, uint32_t *number)
{
	char *end;
	unsigned long value;

	if (*path < '0' || *path > '9')
		return false;
	value = strtoul(path, &end, 10);
	*number = (uint32_t)value;
	return *end == '\0' && value < limit;
}

static int list_numbers(struct text *text, uint32_t count)
{
	for (uint32_t number = 0; number < count; number++)
		put(text, "%u\n", number);
	return RDMA_SYSFS_DIRECTORY;
}

/* The software devices, without the distribution's library: it opens files itself while it holds a lock. */
struct search {
	/* NULL: all are written into the text. */
	const char **path;
	struct text *text;
	struct ibv_device *found;
};

static void visit(void *search, const struct dropin_device *device)
{
	struct search *const wanted = search;

	if (!dropin_is_listed(device))
		return;
	if (!wanted->path)
		put(wanted->text, "/%s\n", device->device->name);
	else if (!wanted->found && enter(wanted->path, device->device->name))
		wanted->found = dropin_remember(device) ? NULL : device->device;
}

/* The context of the device; NULL if it cannot be opened. Under the lock. */
static struct ibv_context *context_of(struct ibv_device *device)
{
	struct viewed *viewed;

	for (viewed = all_viewed; viewed; viewed = viewed->next)
		if (!strcmp(viewed->device->name, device->name))
			return viewed->context;
	viewed = calloc(1, sizeof(*viewed));
	if (!viewed)
		return NULL;
	viewed->device = device;
	viewed->context = ibv_open_device(device);
	if (!viewed->context) {
		free(viewed);
		return NULL;
	}
	viewed->next = all_viewed;
	all_viewed = viewed;
	return viewed->context;
}

/* ---- counters ---- */

#define SLOT_COUNT 256
/* How long all processes together may take, in ms: one that is stopped never answers. */
#define COUNTER_PATIENCE 300
#define COUNTER_LIMIT 128

struct counters {
	size_t count;
	struct {
		char name[48];
		uint64_t value;
	} of[COUNTER_LIMIT];
};

static void count_up(struct counters *counters, const char *name, uint64_t value)
{
	size_t index;

	for (index = 0; index < counters->count; index++)
		if (!strcmp(counters->of[index].name, name))
			break;
	if (index == COUNTER_LIMIT || strlen(name) >= sizeof(counters->of[index].name) || strchr(name, '/'))
		return;
	if (index == counters->count) {
		strcpy(counters->of[index].name, name);
		counters->of[counters->count++].value = 0;
	}
	counters->of[index].value += value;
}

/* Adds the counters of a process, if they are of this device: see LINUX_LOCAL_COUNTERS. */
static void count_report(struct counters *counters, char *report, const char *device)
{
	char *rest = report;
	char *line;
	char *value;

	line = strsep(&rest, "\n");
	if (strncmp(line, "device ", 7) || strcmp(line + 7, device))
		return;
	while ((line = strsep(&rest, "\n")) != NULL)
		if ((value = strchr(line, ' ')) != NULL) {
			*value = '\0';
			count_up(counters, line, strtoull(value + 1, NULL, 10));
		}
}

static int64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The sums over the processes of this user in which the device is open, as `verbs top` asks them. */
static void read_counters(struct counters *counters, const char *device)
{
	const uint64_t question = LINUX_LOCAL_COUNTERS;
	/* A thread may have little stack. Under the lock. */
	static struct pollfd asked[SLOT_COUNT];
	const int64_t end = milliseconds() + COUNTER_PATIENCE;
	size_t count = 0;
	size_t open;
	int slot;

	for (slot = 0; slot < SLOT_COUNT; slot++) {
		char name[64];
		int connection;

		linux_slot_name(slot, name);
		connection = linux_local_connect(name);
		if (connection < 0)
			continue;
		if (linux_local_send(connection, &question, sizeof(question), NULL, 0, -1))
			close(connection);
		else
			asked[count++] = (struct pollfd){.fd = connection, .events = POLLIN};
	}
	for (open = count; open > 0;) {
		const int64_t left = end - milliseconds();
		size_t index;

		const int ready = left <= 0 ? 0 : poll(asked, count, (int)left);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			break;
		for (index = 0; index < count; index++) {
			static char report[LINUX_LOCAL_COUNTERS_SIZE + 1];
			int descriptor = -1;
			ssize_t length;

			if (asked[index].fd < 0 || !asked[index].revents)
				continue;
			length = linux_local_receive(asked[index].fd, report, sizeof(report) - 1, &descriptor);
			if (descriptor >= 0)
				close(descriptor);
			if (length > 0) {
				report[length] = '\0';
				count_report(counters, report, device);
			}
			close(asked[index].fd);
			asked[index].fd = -1;
			open--;
		}
	}
	while (count-- > 0)
		if (asked[count].fd >= 0)
			close(asked[count].fd);
}

/* The kernel's names of port counters, and ours; the data counters are in units of four bytes. */
static const struct {
	const char *name;
	const char *own;
	unsigned divisor;
} port_counters[] = {
	{"port_rcv_data", "rcvd_bytes", 4},	{"port_rcv_packets", "rcvd_pkts", 1},
	{"port_xmit_data", "sent_bytes", 4},	{"port_xmit_packets", "sent_pkts", 1},
	{"port_rcv_errors", "dropped_malformed", 1}, {"port_xmit_discards", "ring_full", 1},
};

static uint64_t value_of(const struct counters *counters, const char *name)
{
	for (size_t index = 0; index < counters->count; index++)
		if (!strcmp(counters->of[index].name, name))
			return counters->of[index].value;
	return 0;
}

static int port_counter(struct text *text, const char *path, const char *device)
{
	static struct counters counters;
	size_t index;

	counters.count = 0;
	if (*path)
		read_counters(&counters, device);
	for (index = 0; index < sizeof(port_counters) / sizeof(*port_counters); index++) {
		if (!*path)
			put(text, "%s\n", port_counters[index].name);
		else if (!strcmp(path, port_counters[index].name))
			return put(text, "%llu\n",
				   (unsigned long long)(value_of(&counters, port_counters[index].own) /
							port_counters[index].divisor));
	}
	return *path ? RDMA_SYSFS_NONE : RDMA_SYSFS_DIRECTORY;
}

static int own_counter(struct text *text, const char *path, const char *device)
{
	static struct counters counters;
	size_t index;

	counters.count = 0;
	read_counters(&counters, device);
	for (index = 0; index < counters.count; index++) {
		if (!*path)
			put(text, "%s\n", counters.of[index].name);
		else if (!strcmp(path, counters.of[index].name))
			return put(text, "%llu\n", (unsigned long long)counters.of[index].value);
	}
	return *path ? RDMA_SYSFS_NONE : RDMA_SYSFS_DIRECTORY;
}

/* ---- the port ---- */

static int rate(struct text *text, const struct ibv_port_attr *port)
{
	static const struct {
		unsigned speed;
		/* Of a lane, in Mb/s, as the kernel rounds it. */
		unsigned rate;
		const char *name;
	} speeds[] = {
		{1, 2500, "SDR"},    {2, 5000, "DDR"},	  {4, 10000, "QDR"},   {8, 10000, "FDR10"}, {16, 14000, "FDR"},
		{32, 25000, "EDR"},  {64, 50000, "HDR"},  {128, 100000, "NDR"}, {256, 200000, "XDR"},
	};
	static const unsigned widths[] = {1, 4, 8, 12, 2};
	unsigned width = 1;
	size_t index = 0;

	for (size_t bit = 0; bit < sizeof(widths) / sizeof(*widths); bit++)
		if (port->active_width == 1 << bit)
			width = widths[bit];
	for (size_t next = 0; next < sizeof(speeds) / sizeof(*speeds); next++)
		if (port->active_speed == speeds[next].speed)
			index = next;
	return put(text, "%u%s Gb/sec (%uX %s)\n", speeds[index].rate * width / 1000,
		   speeds[index].rate * width % 1000 ? ".5" : "", width, speeds[index].name);
}

static const char *state_name(enum ibv_port_state state)
{
	static const char *const names[] = {"NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"};

	return (size_t)state < sizeof(names) / sizeof(*names) ? names[state] : "UNKNOWN";
}

static const char *physical_name(unsigned state)
{
	static const char *const names[] = {"",	     "Sleep",	"Polling", "Disabled", "PortConfigurationTraining",
					    "LinkUp", "LinkErrorRecovery", "Phy Test"};

	return state < sizeof(names) / sizeof(*names) ? names[state] : "<unknown>";
}

static int put_gid(struct text *text, const union ibv_gid *gid)
{
	for (int index = 0; index < 16; index += 2)
		put(text, "%02x%02x%s", gid->raw[index], gid->raw[index + 1], index == 14 ? "\n" : ":");
	return RDMA_SYSFS_FILE;
}

/* An entry of the GID table; an empty one has a GID of zeros. */
static int gid_entry(struct text *text, struct ibv_context *context, uint32_t port, uint32_t index, const char *attribute)
{
	struct ibv_gid_entry entry = {};
	char interface[IF_NAMESIZE];
	const int error = _ibv_query_gid_ex(context, port, index, &entry, 0, sizeof(entry));

	if (error && error != ENODATA)
		return -error;
	if (!attribute)
		return put_gid(text, &entry.gid);
	if (error)
		return -EINVAL;
	if (!strcmp(attribute, "ndevs"))
		return if_indextoname(entry.ndev_ifindex, interface) ? put(text, "%s\n", interface) : -EINVAL;
	return put(text, entry.gid_type == IBV_GID_TYPE_ROCE_V2 ? "RoCE v2\n" : "IB/RoCE v1\n");
}

static int port_attribute(struct text *text, const char *path, struct ibv_context *context, uint32_t number)
{
	struct ibv_port_attr port = {};
	const char *kinds[] = {"types", "ndevs"};
	uint32_t index;
	uint16_t pkey;
	int error;

	if (enter(&path, "counters"))
		return port_counter(text, path, context->device->name);
	if (enter(&path, "hw_counters"))
		return own_counter(text, path, context->device->name);
	error = ibv_query_port(context, (uint8_t)number, (struct _compat_ibv_port_attr *)(void *)&port);
	if (error)
		return -error;
	if (!*path) {
		put(text, "cap_mask\nlid\nlid_mask_count\nlink_layer\nphys_state\nrate\nsm_lid\nsm_sl\nstate\n");
		put(text, "/counters\n/gid_attrs\n/gids\n/hw_counters\n/pkeys\n");
		return RDMA_SYSFS_DIRECTORY;
	}
	if (enter(&path, "gids")) {
		if (!*path)
			return list_numbers(text, (uint32_t)port.gid_tbl_len);
		return is_number(path, (uint32_t)port.gid_tbl_len, &index) ? gid_entry(text, context, number, index, NULL) :
									     RDMA_SYSFS_NONE;
	}
	if (enter(&path, "gid_attrs")) {
		if (!*path) {
			put(text, "/ndevs\n/types\n");
			return RDMA_SYSFS_DIRECTORY;
		}
		for (size_t kind = 0; kind < 2; kind++) {
			if (!enter(&path, kinds[kind]))
				continue;
			if (!*path)
				return list_numbers(text, (uint32_t)port.gid_tbl_len);
			if (is_number(path, (uint32_t)port.gid_tbl_len, &index))
				return gid_entry(text, context, number, index, kinds[kind]);
		}
		return RDMA_SYSFS_NONE;
	}
	if (enter(&path, "pkeys")) {
		if (!*path)
			return list_numbers(text, port.pkey_tbl_len);
		if (!is_number(path, port.pkey_tbl_len, &index) || ibv_query_pkey(context, (uint8_t)number, (int)index, &pkey))
			return RDMA_SYSFS_NONE;
		return put(text, "0x%04x\n", be16toh(pkey));
	}
	if (!strcmp(path, "state"))
		return put(text, "%d: %s\n", port.state, state_name(port.state));
	if (!strcmp(path, "phys_state"))
		return put(text, "%d: %s\n", port.phys_state, physical_name(port.phys_state));
	if (!strcmp(path, "link_layer"))
		return put(text, "%s\n", port.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand");
	if (!strcmp(path, "rate"))
		return rate(text, &port);
	if (!strcmp(path, "lid"))
		return put(text, "0x%x\n", port.lid);
	if (!strcmp(path, "sm_lid"))
		return put(text, "0x%x\n", port.sm_lid);
	if (!strcmp(path, "lid_mask_count"))
		return put(text, "%u\n", port.lmc);
	if (!strcmp(path, "sm_sl"))
		return put(text, "%u\n", port.sm_sl);
	if (!strcmp(path, "cap_mask"))
		return put(text, "0x%08x\n", port.port_cap_flags);
	return RDMA_SYSFS_NONE;
}

/* ---- the device ---- */

static int put_guid(struct text *text, __be64 guid)
{
	const uint64_t value = be64toh(guid);

	return put(text, "%04x:%04x:%04x:%04x\n", (unsigned)(value >> 48), (unsigned)(value >> 32 & 0xffff),
		   (unsigned)(value >> 16 & 0xffff), (unsigned)(value & 0xffff));
}

static int device_attribute(struct text *text, const char *path, struct ibv_device *device)
{
	struct ibv_device_attr attributes = {};
	struct ibv_context *context;
	uint32_t port;
	int error;

	/* As /sys/devices of a PCI function has it: no node. */
	if (enter(&path, "device")) {
		if (!*path) {
			put(text, "numa_node\n");
			return RDMA_SYSFS_DIRECTORY;
		}
		return strcmp(path, "numa_node") ? RDMA_SYSFS_NONE : put(text, "-1\n");
	}
	if (!*path) {
		put(text, "board_id\nfw_ver\nhw_rev\nnode_desc\nnode_guid\nnode_type\nsys_image_guid\n/device\n/ports\n");
		return RDMA_SYSFS_DIRECTORY;
	}
	if (!strcmp(path, "node_type"))
		return put(text, "%d: CA\n", device->node_type);
	if (!strcmp(path, "node_desc"))
		return put(text, "%s\n", device->name);
	if (!strcmp(path, "node_guid"))
		return put_guid(text, ibv_get_device_guid(device));
	context = context_of(device);
	if (!context)
		return errno > 0 ? -errno : -EIO;
	error = ibv_query_device(context, &attributes);
	if (error)
		return -error;
	if (!strcmp(path, "fw_ver"))
		return put(text, "%s\n", attributes.fw_ver);
	if (!strcmp(path, "hw_rev"))
		return put(text, "%x\n", attributes.hw_ver);
	if (!strcmp(path, "board_id"))
		return put(text, "%s\n", device->name);
	if (!strcmp(path, "sys_image_guid"))
		return put_guid(text, attributes.sys_image_guid);
	if (enter(&path, "ports")) {
		char name[12];

		if (!*path) {
			for (port = 1; port <= attributes.phys_port_cnt; port++)
				put(text, "/%u\n", port);
			return RDMA_SYSFS_DIRECTORY;
		}
		for (port = 1; port <= attributes.phys_port_cnt; port++) {
			snprintf(name, sizeof(name), "%u", port);
			if (enter(&path, name))
				return port_attribute(text, path, context, port);
		}
	}
	return RDMA_SYSFS_NONE;
}

DROPIN_EXPORT int swift_rdma_sysfs(const char *path, char *bytes, size_t *length)
{
	struct text text = {.bytes = bytes};
	struct search search;
	int kind;

	*length = 0;
	/* The devices are the parent's: rdma_provider.h, chapter 4. */
	if (dropin_is_busy || linux_is_forked_child())
		return RDMA_SYSFS_NONE;
	search = (struct search){.path = *path ? &path : NULL, .text = &text};
	/* A list needs time, and more stack than a thread may have. */
	if (search.path)
		dropin_visit_known(visit, &search);
	if (!search.found) {
		dropin_is_busy = true;
		dropin_list_devices(visit, &search);
		dropin_is_busy = false;
	}
	kind = RDMA_SYSFS_DIRECTORY;
	if (search.path) {
		if (!search.found)
			return RDMA_SYSFS_NONE;
		pthread_mutex_lock(&lock);
		kind = device_attribute(&text, path, search.found);
		pthread_mutex_unlock(&lock);
	}
	*length = text.count;
	return kind;
}
