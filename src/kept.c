#include "kept.h"

#include <stdlib.h>

#include "locks.h"

/* Tiny chunks are not worth more bookkeeping than this; and a read of more chunks would not fit one window of the engine. */
static const uint64_t MOST_SLOTS = 16384;

/* A chunk that was touched: once, and then it is on its dataset's list of those, or more often, and then it has memory and is
 * on the pool's list. Either list has the most lately touched first. */
typedef struct entry {
    uint64_t number;
    h5fast_kept *owner;
    uint8_t *bytes;              /* chunk_bytes of them, or NULL: touched once */
    struct entry *newer, *older; /* neighbours on its list */
    uint32_t chained;            /* next entry with the same hash; 0: none */
    uint32_t holders;
    int is_filled;               /* bytes hold the decoded chunk; else its first holder is at it */
} entry;

/* A ring of entries around an end that is no chunk: the newest is end.older, the oldest end.newer. */
typedef entry list;

struct h5fast_kept_pool {
    uint64_t limit, used;  /* bytes of chunks */
    list with_memory;
};

struct h5fast_kept {
    h5fast_kept_pool *pool;
    uint64_t chunk_bytes;
    uint32_t slots;        /* chunks with memory at most, and chunks without at most */
    uint32_t with_memory, touched_count;
    uint32_t used;         /* entries[1 … used) were ever used; there is no entry 0 */
    uint32_t buckets;      /* a power of two */
    uint32_t *chains;      /* of each bucket: its first entry; 0: none */
    list touched;          /* once */
    entry *entries;        /* 1 + 2 * slots */
};

/* One lock for all caches: it is held for some dozen nanoseconds a chunk that takes microseconds to decode. */
H5FAST_FORK_SAFE_LOCK(kept_lock, (void)0)

static void take_off(entry *e)
{
    e->newer->older = e->older;
    e->older->newer = e->newer;
}

static void put_between(entry *e, entry *newer, entry *older)
{
    e->newer = newer;
    e->older = older;
    newer->older = e;
    older->newer = e;
}

static void put_newest(list *end, entry *e)
{
    put_between(e, end, end->older);
}

static void put_oldest(list *end, entry *e)
{
    put_between(e, end->newer, end);
}

h5fast_kept_pool *h5fast_kept_pool_make(uint64_t limit)
{
    h5fast_kept_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->limit = limit;
    pool->with_memory.newer = pool->with_memory.older = &pool->with_memory;
    return pool;
}

void h5fast_kept_pool_free(h5fast_kept_pool *pool)
{
    free(pool);
}

h5fast_kept *h5fast_kept_make(h5fast_kept_pool *pool, uint64_t chunk_bytes)
{
    uint64_t slots = pool->limit / chunk_bytes;
    if (slots == 0)
        return NULL;
    h5fast_kept *kept = calloc(1, sizeof *kept);
    if (kept == NULL)
        return NULL;
    kept->pool = pool;
    kept->chunk_bytes = chunk_bytes;
    kept->slots = (uint32_t)(slots < MOST_SLOTS ? slots : MOST_SLOTS);
    kept->touched.newer = kept->touched.older = &kept->touched;
    kept->used = 1;
    kept->buckets = 4;
    while (kept->buckets < 4 * kept->slots)
        kept->buckets *= 2;
    /* The memory comes zeroed and untouched: a dataset of which one row is read costs no table. */
    kept->chains = calloc(kept->buckets, sizeof *kept->chains);
    kept->entries = calloc(1 + 2 * (size_t)kept->slots, sizeof *kept->entries);
    if (kept->chains == NULL || kept->entries == NULL) {
        h5fast_kept_free(kept);
        return NULL;
    }
    return kept;
}

void h5fast_kept_free(h5fast_kept *kept)
{
    if (kept == NULL)
        return;
    lock_kept_lock();
    for (uint32_t i = 1; i < kept->used; i++)
        if (kept->entries[i].bytes != NULL) {
            take_off(&kept->entries[i]);
            kept->pool->used -= kept->chunk_bytes;
            free(kept->entries[i].bytes);
        }
    pthread_mutex_unlock(&kept_lock);
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

static entry *find(const h5fast_kept *kept, uint64_t number)
{
    uint32_t at = *chain_of(kept, number);
    while (at != 0 && kept->entries[at].number != number)
        at = kept->entries[at].chained;
    return at != 0 ? &kept->entries[at] : NULL;
}

static void unchain(h5fast_kept *kept, const entry *e)
{
    uint32_t at = (uint32_t)(e - kept->entries), *link = chain_of(kept, e->number);
    while (*link != at)
        link = &kept->entries[*link].chained;
    *link = e->chained;
}

/* Notes that a chunk was touched; the one touched longest ago is forgotten for it. */
static void note(h5fast_kept *kept, uint64_t number)
{
    entry *e;
    if (kept->touched_count < kept->slots && kept->used < 1 + 2 * kept->slots) {
        e = &kept->entries[kept->used++];
        kept->touched_count++;
    } else {
        e = kept->touched.newer; /* the oldest */
        if (e == &kept->touched)
            return;
        take_off(e);
        unchain(kept, e);
    }
    uint32_t *chain = chain_of(kept, number);
    *e = (entry){.number = number, .owner = kept, .chained = *chain};
    *chain = (uint32_t)(e - kept->entries);
    put_newest(&kept->touched, e);
}

/* Takes the memory of a chunk that nobody holds. It stays as one that was touched, first to be forgotten. */
static uint8_t *strip(entry *e)
{
    uint8_t *bytes = e->bytes;
    h5fast_kept *kept = e->owner;
    kept->pool->used -= kept->chunk_bytes;
    kept->with_memory--;
    e->bytes = NULL;
    e->is_filled = 0;
    take_off(e);
    put_oldest(&kept->touched, e);
    kept->touched_count++;
    return bytes;
}

/* The chunk of the pool (of one dataset, where `of` is not NULL) that was touched longest ago and that nobody holds. */
static entry *oldest(h5fast_kept_pool *pool, const h5fast_kept *of)
{
    entry *e = pool->with_memory.newer;
    while (e != &pool->with_memory && (e->holders > 0 || (of != NULL && e->owner != of)))
        e = e->newer;
    return e != &pool->with_memory ? e : NULL;
}

/* Memory for one more chunk: new, or that of chunks touched longest ago. NULL: there is none. */
static uint8_t *obtain_memory(h5fast_kept *kept)
{
    h5fast_kept_pool *pool = kept->pool;
    uint8_t *bytes = NULL;
    while (pool->used + kept->chunk_bytes > pool->limit || kept->with_memory == kept->slots) {
        entry *e = oldest(pool, kept->with_memory == kept->slots ? kept : NULL);
        if (e == NULL)
            break;
        int fits = e->owner->chunk_bytes == kept->chunk_bytes;
        uint8_t *stripped = strip(e);
        if (fits && bytes == NULL)
            bytes = stripped;
        else
            free(stripped);
    }
    if (pool->used + kept->chunk_bytes > pool->limit || kept->with_memory == kept->slots) {
        free(bytes);
        return NULL;
    }
    bytes = bytes != NULL ? bytes : malloc(kept->chunk_bytes);
    if (bytes != NULL) {
        pool->used += kept->chunk_bytes;
        kept->with_memory++;
    }
    return bytes;
}

static h5fast_hold touch(h5fast_kept *kept, uint64_t number)
{
    const h5fast_hold none = {NULL, 0, 0};
    entry *e = find(kept, number);
    if (e == NULL) {
        note(kept, number);
        return none;
    }
    if (e->bytes == NULL) {
        uint8_t *bytes = obtain_memory(kept);
        if (bytes == NULL)
            return none;
        e->bytes = bytes;
        kept->touched_count--;
    } else if (!e->is_filled) {
        return none; /* another thread decodes it right now */
    }
    take_off(e);
    put_newest(&kept->pool->with_memory, e);
    e->holders++;
    return (h5fast_hold){e->bytes, (uint32_t)(e - kept->entries), e->is_filled};
}

static void release(h5fast_kept *kept, const h5fast_hold *hold)
{
    entry *e = &kept->entries[hold->entry];
    e->holders--;
    e->is_filled = hold->is_filled;
    if (!hold->is_filled) /* a damaged chunk: nobody else holds it, for it was never filled */
        free(strip(e));
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

uint64_t h5fast_kept_pool_bytes(h5fast_kept_pool *pool)
{
    lock_kept_lock();
    uint64_t bytes = pool->used;
    pthread_mutex_unlock(&kept_lock);
    return bytes;
}
