#include "kept.h"

#include <stdlib.h>

#include "locks.h"

/* Tiny chunks are not worth more bookkeeping than this; and a read of more chunks would not fit one window of the engine. */
static const uint64_t MOST_SLOTS = 16384;

/* A chunk that was touched. On one of two lists, the most lately touched first: those with memory, and those without. */
typedef struct {
    uint64_t number;
    uint8_t *bytes;        /* chunk_bytes of them, or NULL: touched once */
    uint32_t before, after; /* neighbours on the list */
    uint32_t chained;      /* next entry with the same hash; 0: none */
    uint32_t holders;
    int is_filled;         /* bytes hold the decoded chunk; else its first holder is at it */
} entry;

/* Entries 0 and 1 are no chunks but the ends of the two lists. */
enum { TOUCHED = 0, WITH_MEMORY = 1, ENDS = 2 };

struct h5fast_kept {
    uint64_t chunk_bytes;
    uint32_t slots;        /* chunks with memory at most, and chunks without at most */
    uint32_t with_memory, touched;
    uint32_t used;         /* entries[0 … used) were ever used */
    uint32_t buckets;      /* a power of two */
    uint32_t *chains;      /* of each bucket: its first entry; 0: none */
    entry *entries;        /* ENDS + 2 * slots */
};

/* One lock for all caches: it is held for some dozen nanoseconds a chunk that takes microseconds to decode. */
H5FAST_FORK_SAFE_LOCK(kept_lock, (void)0)

h5fast_kept *h5fast_kept_make(uint64_t chunk_bytes, uint64_t budget)
{
    uint64_t slots = budget / chunk_bytes;
    if (slots == 0)
        return NULL;
    h5fast_kept *kept = calloc(1, sizeof *kept);
    if (kept == NULL)
        return NULL;
    kept->chunk_bytes = chunk_bytes;
    kept->slots = (uint32_t)(slots < MOST_SLOTS ? slots : MOST_SLOTS);
    kept->buckets = 4;
    while (kept->buckets < 4 * kept->slots)
        kept->buckets *= 2;
    /* The memory comes zeroed and untouched: a dataset of which one row is read costs no table. */
    kept->chains = calloc(kept->buckets, sizeof *kept->chains);
    kept->entries = calloc(ENDS + 2 * (size_t)kept->slots, sizeof *kept->entries);
    if (kept->chains == NULL || kept->entries == NULL) {
        h5fast_kept_free(kept);
        return NULL;
    }
    for (uint32_t end = 0; end < ENDS; end++)
        kept->entries[end].before = kept->entries[end].after = end;
    kept->used = ENDS;
    return kept;
}

void h5fast_kept_free(h5fast_kept *kept)
{
    if (kept == NULL)
        return;
    for (uint32_t i = ENDS; i < kept->used; i++)
        free(kept->entries[i].bytes);
    free(kept->chains);
    free(kept->entries);
    free(kept);
}

uint64_t h5fast_kept_slots(const h5fast_kept *kept)
{
    return kept->slots;
}

/* --- all below: with the lock held --- */

static uint32_t *chain_of(const h5fast_kept *kept, uint64_t number)
{
    return &kept->chains[(number * 0x9E3779B97F4A7C15u >> 32) & (kept->buckets - 1)];
}

static uint32_t find(const h5fast_kept *kept, uint64_t number)
{
    uint32_t at = *chain_of(kept, number);
    while (at != 0 && kept->entries[at].number != number)
        at = kept->entries[at].chained;
    return at;
}

static void unchain(h5fast_kept *kept, uint32_t at)
{
    uint32_t *link = chain_of(kept, kept->entries[at].number);
    while (*link != at)
        link = &kept->entries[*link].chained;
    *link = kept->entries[at].chained;
}

static void unlist(h5fast_kept *kept, uint32_t at)
{
    entry *all = kept->entries;
    all[all[at].before].after = all[at].after;
    all[all[at].after].before = all[at].before;
}

static void put_first(h5fast_kept *kept, uint32_t list, uint32_t at)
{
    entry *all = kept->entries;
    all[at].before = list;
    all[at].after = all[list].after;
    all[all[list].after].before = at;
    all[list].after = at;
}

/* Notes that a chunk was touched; the one touched longest ago is forgotten for it. */
static void note(h5fast_kept *kept, uint64_t number)
{
    uint32_t at;
    if (kept->touched < kept->slots && kept->used < ENDS + 2 * kept->slots) {
        at = kept->used++;
        kept->touched++;
    } else {
        at = kept->entries[TOUCHED].before;
        if (at == TOUCHED)
            return;
        unlist(kept, at);
        unchain(kept, at);
    }
    uint32_t *chain = chain_of(kept, number);
    kept->entries[at] = (entry){.number = number, .chained = *chain};
    *chain = at;
    put_first(kept, TOUCHED, at);
}

/* Memory for one more chunk: new, or that of the chunk touched longest ago which nobody holds. NULL: there is none. */
static uint8_t *obtain_memory(h5fast_kept *kept)
{
    if (kept->with_memory < kept->slots) {
        uint8_t *bytes = malloc(kept->chunk_bytes);
        kept->with_memory += bytes != NULL;
        return bytes;
    }
    uint32_t at = kept->entries[WITH_MEMORY].before;
    while (at != WITH_MEMORY && kept->entries[at].holders > 0)
        at = kept->entries[at].before;
    if (at == WITH_MEMORY)
        return NULL;
    uint8_t *bytes = kept->entries[at].bytes;
    kept->entries[at].bytes = NULL;
    kept->entries[at].is_filled = 0;
    unlist(kept, at);
    /* It stays as one that was touched, first to be forgotten: its place on that list is taken by the one that leaves it. */
    kept->entries[at].after = TOUCHED;
    kept->entries[at].before = kept->entries[TOUCHED].before;
    kept->entries[kept->entries[TOUCHED].before].after = at;
    kept->entries[TOUCHED].before = at;
    kept->touched++;
    return bytes;
}

static h5fast_hold touch(h5fast_kept *kept, uint64_t number)
{
    const h5fast_hold none = {NULL, 0, 0};
    uint32_t at = find(kept, number);
    if (at == 0) {
        note(kept, number);
        return none;
    }
    entry *chunk = &kept->entries[at];
    if (chunk->bytes == NULL) {
        uint8_t *bytes = obtain_memory(kept);
        if (bytes == NULL)
            return none;
        chunk->bytes = bytes;
        kept->touched--;
    } else if (!chunk->is_filled) {
        return none; /* another thread decodes it right now */
    }
    unlist(kept, at);
    put_first(kept, WITH_MEMORY, at);
    chunk->holders++;
    return (h5fast_hold){chunk->bytes, at, chunk->is_filled};
}

static void release(h5fast_kept *kept, const h5fast_hold *hold)
{
    entry *chunk = &kept->entries[hold->entry];
    chunk->holders--;
    chunk->is_filled = hold->is_filled;
    if (hold->is_filled)
        return;
    free(chunk->bytes); /* a damaged chunk: nobody else holds it, for it was never filled */
    kept->with_memory--;
    chunk->bytes = NULL;
    unlist(kept, hold->entry);
    put_first(kept, TOUCHED, hold->entry);
    kept->touched++;
}

/* --- */

void h5fast_kept_touch(h5fast_kept *kept, uint64_t number, h5fast_hold *hold)
{
    lock_kept_lock();
    *hold = touch(kept, number);
    pthread_mutex_unlock(&kept_lock);
}

void h5fast_kept_release(h5fast_kept *kept, const h5fast_hold *hold)
{
    lock_kept_lock();
    release(kept, hold);
    pthread_mutex_unlock(&kept_lock);
}

uint64_t h5fast_kept_bytes(h5fast_kept *kept)
{
    lock_kept_lock();
    uint64_t bytes = kept->with_memory * kept->chunk_bytes;
    pthread_mutex_unlock(&kept_lock);
    return bytes;
}
