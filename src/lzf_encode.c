/* LZF encoding; the format is told in src/lzf.c.
 *
 * Greedy, with one candidate for each position: where the hash of its three bytes was seen last. Positions are kept as 16
 * bits, enough to tell distances up to 8,192 apart, so that the table of 32 KiB stays in the first cache. A candidate is
 * always compared with the input itself, so nothing in the table can be wrong, only useless.
 */
#include "lzf_encode.h"

#include <string.h>

enum {
    HASH_BITS = 14,
    FARTHEST = 8192, /* distance that an instruction can tell */
    LONGEST = 264,   /* bytes that a match can copy */
    RUN = 32,        /* literals that an instruction can hold */
    MARGIN = 8       /* bytes behind a position that are read at once */
};
_Static_assert(1 << HASH_BITS == H5FAST_LZF_SLOTS, "the table is as large as the hash");

static inline uint32_t load4(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static inline uint64_t load8(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
static inline uint32_t three(uint32_t loaded) { return loaded >> 8; }
static inline size_t equal_bytes(uint64_t differing) { return (size_t)__builtin_clzll(differing) / 8; }
#else
static inline uint32_t three(uint32_t loaded) { return loaded & 0xffffff; }
static inline size_t equal_bytes(uint64_t differing) { return (size_t)__builtin_ctzll(differing) / 8; }
#endif

static inline uint32_t hash(uint32_t bytes) { return (bytes * 0x9e3779b1u) >> (32 - HASH_BITS); }

/* How many bytes from `a` and from `b`, which lies in front of it, are equal, 3 of which are known to be; `most` at most. */
static inline size_t match_length(const uint8_t *a, const uint8_t *b, size_t most)
{
    size_t length = 3;
    while (length + MARGIN <= most) {
        uint64_t differing = load8(a + length) ^ load8(b + length);
        if (differing)
            return length + equal_bytes(differing);
        length += 8;
    }
    while (length < most && a[length] == b[length])
        length++;
    return length;
}

typedef struct {
    uint8_t *out, *end;
} sink;

/* Literals [from, to), in runs. 0 where they do not fit. */
static int put_literals(sink *s, const uint8_t *from, const uint8_t *to)
{
    while (from < to) {
        size_t left = (size_t)(to - from), run = left < RUN ? left : RUN;
        if ((size_t)(s->end - s->out) < run + 1)
            return 0;
        *s->out++ = (uint8_t)(run - 1);
        memcpy(s->out, from, run);
        s->out += run;
        from += run;
    }
    return 1;
}

/* The same for up to RUN of them, without a branch on how many; writes up to RUN bytes too many, and reads as many. */
static inline void put_few_literals(sink *s, const uint8_t *from, size_t count)
{
    *s->out = (uint8_t)(count - 1); /* of no run, what follows overwrites it */
    memcpy(s->out + 1, from, RUN);
    s->out += count + (count != 0);
}

/* Needs room for two bytes, and from a length of 9 on for three. */
static inline void put_match(sink *s, size_t distance, size_t length)
{
    size_t offset = distance - 1, code = length - 2, is_long = code >= 7;
    s->out[0] = (uint8_t)((is_long ? 7 : code) << 5 | offset >> 8);
    s->out[1] = (uint8_t)(code - 7);
    s->out[1 + is_long] = (uint8_t)offset;
    s->out += 2 + is_long;
}

enum { OUT_MARGIN = 1 + RUN + 3 }; /* a run of literals and a match */

size_t h5fast_lzf_encode(h5fast_lzf_table *table, const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity)
{
    const uint8_t *end = in + in_len, *literals = in, *at = in;
    sink s = {out, out + capacity};
    memset(table, 0, sizeof *table);
    const uint8_t *last = in_len > RUN ? end - RUN : in; /* positions before it are looked up */
    at = in + 1; /* slots say 0 where nothing was seen: that is position 0 */
    while (at < last) {
        uint32_t bytes = three(load4(at));
        uint16_t *slot = &table->at[hash(bytes)];
        size_t position = (size_t)(at - in), distance = (uint16_t)(position - *slot);
        *slot = (uint16_t)position;
        size_t within = distance < position ? distance : position;
        if ((three(load4(at - within)) != bytes) | (distance - 1 >= FARTHEST) | (distance > position)) {
            at++;
            continue;
        }
        size_t most = (size_t)(end - at) < LONGEST ? (size_t)(end - at) : LONGEST;
        size_t length = match_length(at, at - distance, most), count = (size_t)(at - literals);
        if (count <= RUN && s.end - s.out >= OUT_MARGIN) {
            put_few_literals(&s, literals, count);
        } else if (!put_literals(&s, literals, at) || s.end - s.out < 2 + (length >= 9)) {
            return 0;
        }
        put_match(&s, distance, length);
        at += length;
        literals = at;
        if (at < last) { /* the last two positions of the match are looked for too */
            table->at[hash(three(load4(at - 2)))] = (uint16_t)(at - 2 - in);
            table->at[hash(three(load4(at - 1)))] = (uint16_t)(at - 1 - in);
        }
    }
    return put_literals(&s, literals, end) ? (size_t)(s.out - out) : 0;
}
