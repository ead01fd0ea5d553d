#include "rowcache.h"

#include <stdlib.h>
#include <string.h>

/* Positions are told apart by buckets of some: finding the latest of all takes two steps in a bitmap, and what is dropped is
 * needed within 1/65,536 of the horizon of the latest. */
enum { BUCKETS = 1 << 16, WORDS = BUCKETS / 64 };

typedef struct {
    uint64_t position;      /* H5FAST_NEVER_KEPT: free */
    uint32_t before, after; /* in its bucket; NO_SLOT: it is the first, the last. Free slots are chained by `after` */
    uint32_t chained;       /* next slot with the same hash; NO_SLOT: none */
} place;

struct h5fast_rowcache {
    uint64_t slots, used;
    uint64_t untouched;     /* places from here on were never used */
    uint32_t unused;        /* first of the free ones before that */
    unsigned width;         /* of a bucket, as a power of two of positions */
    uint32_t present;       /* bucket of the present position */
    uint64_t hash_mask;
    uint32_t *chains;       /* first slot of each hash, plus 1; 0: none */
    uint32_t *firsts;       /* first slot of each bucket, plus 1; 0: it is empty */
    uint64_t occupied[WORDS];
    uint64_t summary[WORDS / 64];
    place *places;
};

h5fast_rowcache *h5fast_rowcache_make(uint64_t slots, uint64_t horizon)
{
    h5fast_rowcache *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->slots = slots;
    c->unused = H5FAST_NO_SLOT;
    /* One bucket is the present one and may be begun: the horizon ends in the bucket before it at the latest. */
    while (horizon >> c->width >= BUCKETS - 2)
        c->width++;
    uint64_t hashes = 4;
    while (hashes < slots)
        hashes *= 2;
    c->hash_mask = hashes - 1;
    c->chains = calloc(hashes, sizeof *c->chains);
    c->firsts = calloc(BUCKETS, sizeof *c->firsts);
    c->places = malloc(slots * sizeof *c->places);
    if (c->chains == NULL || c->firsts == NULL || c->places == NULL) {
        h5fast_rowcache_free(c);
        return NULL;
    }
    return c;
}

void h5fast_rowcache_free(h5fast_rowcache *c)
{
    if (c == NULL)
        return;
    free(c->chains);
    free(c->firsts);
    free(c->places);
    free(c);
}

static uint32_t bucket_of(const h5fast_rowcache *c, uint64_t position)
{
    return (uint32_t)(position >> c->width) & (BUCKETS - 1);
}

/* How many buckets ahead. */
static uint32_t ahead(const h5fast_rowcache *c, uint32_t bucket)
{
    return (bucket - c->present) & (BUCKETS - 1);
}

static uint32_t *chain_of(const h5fast_rowcache *c, uint64_t position)
{
    return &c->chains[(position * 0x9E3779B97F4A7C15u >> 24) & c->hash_mask];
}

static void mark(h5fast_rowcache *c, uint32_t bucket)
{
    c->occupied[bucket / 64] |= (uint64_t)1 << bucket % 64;
    c->summary[bucket / 4096] |= (uint64_t)1 << bucket / 64 % 64;
}

static void unmark(h5fast_rowcache *c, uint32_t bucket)
{
    c->occupied[bucket / 64] &= ~((uint64_t)1 << bucket % 64);
    if (c->occupied[bucket / 64] == 0)
        c->summary[bucket / 4096] &= ~((uint64_t)1 << bucket / 64 % 64);
}

/* The last bit of `bits` that is set at or below `last`; -1: none is. */
static int last_bit(uint64_t bits, unsigned last)
{
    bits &= UINT64_MAX >> (63 - last);
    return bits != 0 ? 63 - __builtin_clzll(bits) : -1;
}

/* The last occupied bucket at or below `last`, counted from 0; -1: none is. */
static int64_t last_occupied(const h5fast_rowcache *c, uint32_t last)
{
    int bit = last_bit(c->occupied[last / 64], last % 64);
    if (bit >= 0)
        return last / 64 * 64 + bit;
    for (int64_t word = (int64_t)(last / 64) - 1; word >= 0; word = word / 64 * 64 - 1) {
        int within = last_bit(c->summary[word / 64], word % 64);
        if (within >= 0) {
            uint32_t found = (uint32_t)(word / 64 * 64 + within);
            return (int64_t)found * 64 + last_bit(c->occupied[found], 63);
        }
    }
    return -1;
}

/* The occupied bucket furthest ahead. There is one: the cache is full. */
static uint32_t furthest(const h5fast_rowcache *c)
{
    int64_t found = c->present > 0 ? last_occupied(c, c->present - 1) : -1;
    return (uint32_t)(found >= 0 ? found : last_occupied(c, BUCKETS - 1));
}

static void put(h5fast_rowcache *c, uint32_t slot, uint64_t position)
{
    uint32_t bucket = bucket_of(c, position), *first = &c->firsts[bucket], *chain = chain_of(c, position);
    c->places[slot] = (place){position, H5FAST_NO_SLOT, *first - 1, *chain - 1};
    if (*first != 0)
        c->places[*first - 1].before = slot;
    *first = *chain = slot + 1;
    mark(c, bucket);
}

static void take_out(h5fast_rowcache *c, uint32_t slot)
{
    place *p = &c->places[slot];
    uint32_t bucket = bucket_of(c, p->position), *chain = chain_of(c, p->position);
    if (*chain == slot + 1) {
        *chain = p->chained + 1;
    } else {
        uint32_t at = *chain - 1;
        while (c->places[at].chained != slot)
            at = c->places[at].chained;
        c->places[at].chained = p->chained;
    }
    if (p->after != H5FAST_NO_SLOT)
        c->places[p->after].before = p->before;
    if (p->before != H5FAST_NO_SLOT)
        c->places[p->before].after = p->after;
    else
        c->firsts[bucket] = p->after + 1;
    if (c->firsts[bucket] == 0)
        unmark(c, bucket);
}

void h5fast_rowcache_advance(h5fast_rowcache *c, uint64_t position)
{
    c->present = bucket_of(c, position);
}

uint32_t h5fast_rowcache_find(const h5fast_rowcache *c, uint64_t position)
{
    uint32_t at = *chain_of(c, position) - 1;
    while (at != H5FAST_NO_SLOT && c->places[at].position != position)
        at = c->places[at].chained;
    return at;
}

int h5fast_rowcache_wants(const h5fast_rowcache *c, uint64_t position)
{
    return c->used < c->slots || ahead(c, bucket_of(c, position)) < ahead(c, furthest(c));
}

uint32_t h5fast_rowcache_offer(h5fast_rowcache *c, uint64_t position)
{
    uint32_t slot;
    if (c->unused != H5FAST_NO_SLOT) {
        slot = c->unused;
        c->unused = c->places[slot].after;
        c->used++;
    } else if (c->untouched < c->slots) {
        slot = (uint32_t)c->untouched++;
        c->used++;
    } else {
        if (!h5fast_rowcache_wants(c, position))
            return H5FAST_NO_SLOT;
        slot = c->firsts[furthest(c)] - 1;
        take_out(c, slot);
    }
    put(c, slot, position);
    return slot;
}

uint64_t h5fast_rowcache_position(const h5fast_rowcache *c, uint32_t slot)
{
    return c->places[slot].position;
}

static void set_free(h5fast_rowcache *c, uint32_t slot)
{
    c->places[slot].position = H5FAST_NEVER_KEPT;
    c->places[slot].after = c->unused;
    c->unused = slot;
}

void h5fast_rowcache_drop(h5fast_rowcache *c, uint32_t slot)
{
    take_out(c, slot);
    set_free(c, slot);
    c->used--;
}

void h5fast_rowcache_move(h5fast_rowcache *c, uint32_t slot, uint64_t position)
{
    take_out(c, slot);
    put(c, slot, position);
}

void h5fast_rowcache_renew(h5fast_rowcache *c, uint32_t slot, uint64_t position)
{
    if (position == H5FAST_NEVER_KEPT || h5fast_rowcache_find(c, position) != H5FAST_NO_SLOT)
        h5fast_rowcache_drop(c, slot);
    else
        h5fast_rowcache_move(c, slot, position);
}

void h5fast_rowcache_rekey(h5fast_rowcache *c, uint64_t (*when)(void *context, uint32_t slot), void *context)
{
    if (c->untouched == 0) /* its tables may be large, and were not touched either */
        return;
    memset(c->chains, 0, (c->hash_mask + 1) * sizeof *c->chains);
    memset(c->firsts, 0, BUCKETS * sizeof *c->firsts);
    memset(c->occupied, 0, sizeof c->occupied);
    memset(c->summary, 0, sizeof c->summary);
    c->unused = H5FAST_NO_SLOT;
    c->used = 0;
    for (uint32_t slot = 0; slot < c->untouched; slot++) {
        uint64_t position = c->places[slot].position;
        position = position != H5FAST_NEVER_KEPT ? when(context, slot) : position;
        if (position != H5FAST_NEVER_KEPT) {
            put(c, slot, position);
            c->used++;
        } else {
            set_free(c, slot);
        }
    }
}

uint64_t h5fast_rowcache_used(const h5fast_rowcache *c)
{
    return c->used;
}
