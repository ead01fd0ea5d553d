/* Which decoded rows to keep, when it is known at which position of an epoch each is needed next.
 *
 * A row is kept under that position. While there is room, every row is; then those needed last give way to those needed
 * sooner, which no other rule can better (Belady, "A study of replacement algorithms", 1966). Here are only the places:
 * the rows themselves lie in the caller's memory, one at each slot. One thread at a time.
 */
#ifndef H5FAST_ROWCACHE_H
#define H5FAST_ROWCACHE_H

#include "status.h"

#define H5FAST_NO_SLOT UINT32_MAX

typedef struct h5fast_rowcache h5fast_rowcache;

/* For `slots` (>= 1, < 2^31) rows and positions less than `horizon` (>= 1) ahead of the present one. NULL: no memory. */
h5fast_rowcache *h5fast_rowcache_make(uint64_t slots, uint64_t horizon);
void h5fast_rowcache_free(h5fast_rowcache *cache); /* NULL is ignored */

/* Bytes that the places of one slot cost beside the row. */
enum { H5FAST_ROWCACHE_OVERHEAD = 32 };

/* The epoch has come to this position: rows that were needed before must have been moved or dropped. */
void h5fast_rowcache_advance(h5fast_rowcache *cache, uint64_t position);

/* Where the row needed at this position lies; H5FAST_NO_SLOT: it is not kept. */
uint32_t h5fast_rowcache_find(const h5fast_rowcache *cache, uint64_t position);

/* Whether an offer of this position would be taken, if it is not kept yet: asked before h5fast_rowcache_find, this spares the
 * looking up of what is needed too late. */
int h5fast_rowcache_wants(const h5fast_rowcache *cache, uint64_t position);

/* A slot for a row that is needed at this position and is not kept yet. A row needed later may lose its slot for it.
 * H5FAST_NO_SLOT where all that are kept are needed as soon. */
uint32_t h5fast_rowcache_offer(h5fast_rowcache *cache, uint64_t position);

/* The position that the row at a slot is kept for; H5FAST_NEVER_KEPT: the slot is free. */
#define H5FAST_NEVER_KEPT UINT64_MAX
uint64_t h5fast_rowcache_position(const h5fast_rowcache *cache, uint32_t slot);

/* The row at this slot is needed no more. */
void h5fast_rowcache_drop(h5fast_rowcache *cache, uint32_t slot);

/* The row at this slot is next needed at another position. */
void h5fast_rowcache_move(h5fast_rowcache *cache, uint32_t slot, uint64_t position);

/* The row at this slot was used, and is next needed at `position`: it moves there, or is dropped where that is
 * H5FAST_NEVER_KEPT or another row is kept for it. */
void h5fast_rowcache_renew(h5fast_rowcache *cache, uint32_t slot, uint64_t position);

/* The row at each slot in use is from now on kept for the position that `when` gives for it; H5FAST_NEVER_KEPT drops it.
 * No two rows may have the same. */
void h5fast_rowcache_rekey(h5fast_rowcache *cache, uint64_t (*when)(void *context, uint32_t slot), void *context);

/* Slots in use. */
uint64_t h5fast_rowcache_used(const h5fast_rowcache *cache);

#endif
