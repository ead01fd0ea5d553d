/* Memory of result arrays, kept for the next batch of the same size.
 *
 * A fresh block of some megabytes comes from the kernel page by page: 3 MB cost 0.8 ms of page faults where filling them
 * takes 0.3. A training loop drops one batch and asks for the next of the same size, so freed blocks are kept, a few of
 * them and of bounded size. Any thread may call; the memory belongs to whoever took it.
 */
#ifndef H5FAST_BLOCKS_H
#define H5FAST_BLOCKS_H

#include <stddef.h>

/* Blocks below are cheap anyway; larger ones the C library maps with huge pages, and would be much to hold. */
#define H5FAST_BLOCK_LEAST ((size_t)64 << 10)
#define H5FAST_BLOCK_MOST ((size_t)16 << 20)

/* NumPy's allocator interface (NEP 49): free() and realloc() get the size that was asked for or are told 0 of none. */
void *h5fast_blocks_malloc(void *context, size_t size);
void *h5fast_blocks_calloc(void *context, size_t count, size_t size);
void *h5fast_blocks_realloc(void *context, void *block, size_t size);
void h5fast_blocks_free(void *context, void *block, size_t size);

/* Bytes kept at present; for tests. */
size_t h5fast_blocks_kept(void);

#endif
