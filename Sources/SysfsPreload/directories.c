/*
 * directories.c - streams of directories: opendir(3), readdir(3), scandir(3) and the functions of a stream.
 */
/* These are the functions that the C library would replace by checked ones. */
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "paths.h"

#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "the structs of a machine of 64 bits");

/* A stream of ours. A DIR of the C library begins with a descriptor, which is not negative. */
struct stream {
	uint64_t magic;
	/* For dirfd(3): a directory, so that fpathconf(3) has an answer. */
	int descriptor;
	size_t count;
	size_t position;
	struct dirent64 *entries;
};

#define MAGIC 0x5f5fd1a2b3c4d5e6

static struct stream *own_stream(DIR *directory)
{
	uint64_t magic;

	memcpy(&magic, directory, sizeof(magic));
	return magic == MAGIC ? (struct stream *)directory : NULL;
}

static bool add_name(struct stream *stream, const char *name, size_t length, unsigned char type)
{
	struct dirent64 *grown;

	if (length >= sizeof(grown->d_name))
		return true;
	if (stream->count % 16 == 0) {
		grown = realloc(stream->entries, (stream->count + 16) * sizeof(*grown));
		if (!grown)
			return false;
		stream->entries = grown;
	}
	grown = &stream->entries[stream->count++];
	memset(grown, 0, sizeof(*grown));
	grown->d_ino = stream->count;
	grown->d_off = (off_t)stream->count;
	grown->d_reclen = sizeof(*grown);
	grown->d_type = type;
	memcpy(grown->d_name, name, length);
	return true;
}

static void free_stream(struct stream *stream)
{
	if (stream->descriptor >= 0)
		close(stream->descriptor);
	stream->magic = 0;
	free(stream->entries);
	free(stream);
}

static DIR *open_stream(const char *path, const struct entry *entry)
{
	struct stream *stream;
	const char *next;
	bool fits;
	DIR *real = NULL;

	if (entry->kind < 0) {
		errno = -entry->kind;
		return NULL;
	}
	if (entry->kind != RDMA_SYSFS_DIRECTORY || entry->is_node) {
		errno = ENOTDIR;
		return NULL;
	}
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return NULL;
	stream->magic = MAGIC;
	stream->descriptor = NEXT(open)("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (stream->descriptor < 0) {
		free_stream(stream);
		return NULL;
	}
	fits = add_name(stream, ".", 1, DT_DIR) && add_name(stream, "..", 2, DT_DIR);
	for (next = entry->text; fits && next < entry->text + entry->length; next += strcspn(next, "\n") + 1) {
		const bool is_directory = *next == '/';
		const unsigned char type = !is_directory				? DT_REG :
					   *entry->path || entry->is_virtual ? DT_DIR :
										DT_LNK;

		next += is_directory;
		fits = add_name(stream, next, strcspn(next, "\n"), type);
	}
	/* The devices of the kernel, where it has any. */
	if (!*entry->path && (real = NEXT(opendir)(path)) != NULL) {
		const struct dirent64 *other;

		while (fits && (other = NEXT(readdir64)(real)) != NULL)
			if (other->d_name[0] != '.')
				fits = add_name(stream, other->d_name, strlen(other->d_name), other->d_type);
		NEXT(closedir)(real);
	}
	if (!fits) {
		free_stream(stream);
		errno = ENOMEM;
		return NULL;
	}
	return (DIR *)stream;
}

EXPORT DIR *opendir(const char *path)
{
	LOOK_UP(path);

	return entry ? open_stream(path, entry) : NEXT(opendir)(path);
}

EXPORT int closedir(DIR *directory)
{
	struct stream *const stream = own_stream(directory);

	if (!stream)
		return NEXT(closedir)(directory);
	free_stream(stream);
	return 0;
}

#define READDIR(name, type)										\
	EXPORT struct type *name(DIR *directory)							\
	{												\
		struct stream *const stream = own_stream(directory);					\
													\
		if (!stream)										\
			return NEXT(name)(directory);							\
		return stream->position == stream->count ?						\
			       NULL :									\
			       (struct type *)(void *)&stream->entries[stream->position++];		\
	}
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)

/* The caller's struct may have no more room than its name needs. */
#define READDIR_R(name, type)                                                                              \
	EXPORT int name(DIR *restrict directory, struct type *restrict entry, struct type **restrict result) \
	{                                                                                                  \
		struct stream *const stream = own_stream(directory);                                       \
		const struct dirent64 *next;                                                               \
                                                                                                           \
		if (!stream)                                                                               \
			return NEXT(name)(directory, entry, result);                                       \
		*result = NULL;                                                                            \
		if (stream->position == stream->count)                                                     \
			return 0;                                                                          \
		next = &stream->entries[stream->position++];                                               \
		memcpy(entry, next, offsetof(struct dirent64, d_name) + strlen(next->d_name) + 1);         \
		*result = entry;                                                                           \
		return 0;                                                                                  \
	}
READDIR_R(readdir_r, dirent)
READDIR_R(readdir64_r, dirent64)

EXPORT void rewinddir(DIR *directory)
{
	struct stream *const stream = own_stream(directory);

	if (stream)
		stream->position = 0;
	else
		NEXT(rewinddir)(directory);
}

EXPORT long telldir(DIR *directory)
{
	struct stream *const stream = own_stream(directory);

	return stream ? (long)stream->position : NEXT(telldir)(directory);
}

EXPORT void seekdir(DIR *directory, long position)
{
	struct stream *const stream = own_stream(directory);

	if (!stream)
		NEXT(seekdir)(directory, position);
	else if (position >= 0 && (size_t)position <= stream->count)
		stream->position = (size_t)position;
}

EXPORT int dirfd(DIR *directory)
{
	struct stream *const stream = own_stream(directory);

	return stream ? stream->descriptor : NEXT(dirfd)(directory);
}

/* scandir(3) of the C library calls its own opendir. */
static int scan(const struct entry *entry, const char *path, struct dirent64 ***list,
		int (*select)(const struct dirent64 *), int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
	struct stream *const stream = (struct stream *)open_stream(path, entry);
	struct dirent64 **names;
	int count = 0;

	if (!stream)
		return -1;
	names = malloc(stream->count * sizeof(*names));
	for (size_t index = 0; names && index < stream->count; index++) {
		if (select && !select(&stream->entries[index]))
			continue;
		names[count] = malloc(sizeof(**names));
		if (!names[count]) {
			while (count > 0)
				free(names[--count]);
			free(names);
			names = NULL;
			break;
		}
		*names[count++] = stream->entries[index];
	}
	closedir((DIR *)stream);
	if (!names)
		return fail(ENOMEM);
	if (compare)
		qsort(names, (size_t)count, sizeof(*names), (int (*)(const void *, const void *))compare);
	*list = names;
	return count;
}

#define SCANDIR(name, type)										\
	EXPORT int name(const char *restrict path, struct type ***restrict list,			\
			int (*select)(const struct type *), int (*compare)(const struct type **, const struct type **)) \
	{												\
		LOOK_UP(path);									\
													\
		return entry ?										\
			       scan(entry, path, (struct dirent64 ***)list,				\
				    (int (*)(const struct dirent64 *))select,				\
				    (int (*)(const struct dirent64 **, const struct dirent64 **))compare) : \
			       NEXT(name)(path, list, select, compare);					\
	}
SCANDIR(scandir, dirent)
SCANDIR(scandir64, dirent64)
