#define _GNU_SOURCE
#include "blocks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "locks.h"

/* Two batches of two fields each, in flight and being replaced, and some to spare. */
enum { KEPT_BLOCKS = 8 };
static const size_t KEPT_BYTES = (size_t)16 << 20;
static const size_t HUGE_PAGE = (size_t)2 << 20;

/* The header in front of each block: NumPy's realloc does not tell the old size. A cache line keeps the data aligned. */
typedef union {
    size_t capacity;
    char line[64];
} header;

static header *kept[KEPT_BLOCKS]; /* oldest first */
static int kept_count;
static size_t kept_bytes;
H5FAST_FORK_SAFE_LOCK(blocks, (void)0)

static int is_kept_size(size_t size)
{
    return size >= H5FAST_BLOCK_LEAST && size <= H5FAST_BLOCK_MOST;
}

/* Takes entry `at` out of kept. Called with the lock held. */
static header *take_out(int at)
{
    header *block = kept[at];
    kept_bytes -= block->capacity;
    kept_count--;
    memmove(kept + at, kept + at + 1, (size_t)(kept_count - at) * sizeof *kept);
    return block;
}

static header *find(size_t capacity)
{
    lock_blocks();
    header *block = NULL;
    for (int i = kept_count - 1; i >= 0 && block == NULL; i--) /* the latest is the warmest */
        if (kept[i]->capacity == capacity)
            block = take_out(i);
    pthread_mutex_unlock(&blocks);
    return block;
}

/* New memory for a header and `size` bytes. Large blocks lie in huge pages where the system has them: rows arrive all over
 * a batch, and the TLB knows two pages of 2 MiB better than 768 of 4 KiB. */
static header *allocate(size_t size)
{
    size_t alignment = size >= HUGE_PAGE ? HUGE_PAGE : sizeof(header);
    if (size > SIZE_MAX - sizeof(header) - alignment)
        return NULL;
    /* aligned_alloc wants a multiple of the alignment */
    size_t whole = (size + sizeof(header) + alignment - 1) & ~(alignment - 1);
    header *block = aligned_alloc(alignment, whole);
    if (block == NULL)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE)
        madvise(block, whole, MADV_HUGEPAGE); /* a refusal only costs page faults */
#endif
    block->capacity = size;
    return block;
}

void *h5fast_blocks_malloc(void *context, size_t size)
{
    (void)context;
    header *block = is_kept_size(size) ? find(size) : NULL;
    if (block == NULL)
        block = allocate(size);
    return block != NULL ? block + 1 : NULL;
}

void *h5fast_blocks_calloc(void *context, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    void *block = h5fast_blocks_malloc(context, count * size);
    return block != NULL ? memset(block, 0, count * size) : NULL;
}

void *h5fast_blocks_realloc(void *context, void *block, size_t size)
{
    if (block == NULL)
        return h5fast_blocks_malloc(context, size);
    size_t before = ((header *)block - 1)->capacity;
    void *moved = h5fast_blocks_malloc(context, size);
    if (moved != NULL) {
        memcpy(moved, block, before < size ? before : size);
        h5fast_blocks_free(context, block, before);
    }
    return moved;
}

void h5fast_blocks_free(void *context, void *block, size_t size)
{
    (void)context;
    (void)size;
    if (block == NULL)
        return;
    header *freed = (header *)block - 1;
    if (!is_kept_size(freed->capacity)) {
        free(freed);
        return;
    }
    header *surplus[KEPT_BLOCKS + 1];
    int count = 0;
    lock_blocks();
    while (kept_count > 0 && (kept_count == KEPT_BLOCKS || kept_bytes + freed->capacity > KEPT_BYTES))
        surplus[count++] = take_out(0);
    kept[kept_count++] = freed;
    kept_bytes += freed->capacity;
    pthread_mutex_unlock(&blocks);
    for (int i = 0; i < count; i++)
        free(surplus[i]);
}

size_t h5fast_blocks_kept(void)
{
    lock_blocks();
    size_t bytes = kept_bytes;
    pthread_mutex_unlock(&blocks);
    return bytes;
}
