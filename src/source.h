/* The bytes of one open file: positioned reads, and a mapping of what lies in the page cache.
 *
 * Reading a mapping costs a third of pread for small rows, but a page that is not in memory costs a serial wait and its
 * neighbours' read-ahead, and a page that a truncation took away raises SIGBUS. So the mapping is used for ranges that
 * the kernel says are resident, behind the guard below; everything else goes through pread.
 */
#ifndef H5FAST_SOURCE_H
#define H5FAST_SOURCE_H

#include <setjmp.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "status.h"

typedef struct {
    int fd;                     /* borrowed; position-free reads only. -1: the source is memory */
    uint64_t size;              /* of the file when it was opened */
    uint64_t device, inode;
    int64_t modified_ns;        /* of the file when it was opened */
    const uint8_t *map;         /* the whole file or memory; NULL where mapping is not possible or not wanted */
    _Atomic uint8_t *windows;   /* for each WINDOW bytes of map: visits so far, or POPULATED */
    _Atomic uint32_t *checked;  /* when residency was last confirmed, ms of a coarse monotonic clock */
    uint64_t window_count;
} h5fast_source;

/* Opens a source over fd. Mapping is tried when `map` is set and silently left out where it cannot be had.
 * H5FAST_READ, with errno set, where the descriptor tells nothing. */
h5fast_status h5fast_source_open(h5fast_source *source, int fd, int map) H5FAST_CHECKED;
void h5fast_source_close(h5fast_source *source);

/* A source over memory that outlives it; it needs no closing. */
void h5fast_source_of_memory(h5fast_source *source, const uint8_t *bytes, uint64_t size);

/* The present size of the file where it differs, in size or time of modification, from when it was opened; -1 where it
 * does not. A mapping shows zeros behind a truncation within its last page: compare after copying out of it. */
int64_t h5fast_source_changed(const h5fast_source *source);

/* Whether the file, as it was opened, has these bytes at all. */
static inline int h5fast_source_holds(const h5fast_source *source, uint64_t offset, uint64_t size)
{
    return size <= source->size && offset <= source->size - size;
}

/* Where the bytes [offset, offset + size) lie in the mapping, or NULL where they are not all in memory. */
const uint8_t *h5fast_source_resident(h5fast_source *source, uint64_t offset, uint64_t size);

/* Reads exactly these bytes. H5FAST_TRUNCATED where the file ends before; H5FAST_READ with *sys_errno else. */
h5fast_status h5fast_source_read(const h5fast_source *source, uint64_t offset, uint64_t size, uint8_t *out,
                                 int *sys_errno) H5FAST_CHECKED;

/* Whether reading here would wait for the disk, as far as the kernel tells. */
int h5fast_source_is_cold(h5fast_source *source, uint64_t offset);

/* Asks the kernel to start reading a range; a hint without a result. */
void h5fast_source_advise(const h5fast_source *source, uint64_t offset, uint64_t size);

/* pread, replaceable by tests that inject failures. */
typedef ssize_t (*h5fast_pread_function)(int fd, void *buffer, size_t count, off_t offset);
extern h5fast_pread_function h5fast_pread;

/* The guard: between arm and disarm, a SIGBUS raised by touching the mapping jumps to `place` in the thread that raised it.
 * Every thread arms for itself, with sigsetjmp(guard->place, 0). h5fast_guard_install/remove bracket the whole batch and
 * nest; whatever handler was there before gets every other SIGBUS. */
typedef struct {
    sigjmp_buf place;
    const uint8_t *begin, *end;
} h5fast_guard;

void h5fast_guard_install(void);
void h5fast_guard_remove(void);
void h5fast_guard_arm(h5fast_guard *guard);
void h5fast_guard_disarm(void);

#endif
