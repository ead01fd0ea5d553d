/* A random order of 0 … count - 1 that needs no table by row, can be entered anywhere and can be asked backwards.
 *
 * Below H5FAST_TABLED it is a Fisher-Yates shuffle, exact and small. Above, a keyed bijection: a Feistel network whose halves
 * are a power of two and whatever count leaves, so that its domain is barely larger than count; what falls outside is sent
 * through again (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Grain's index shuffle is
 * built likewise.
 *
 * The order is a pure function of count and key, on every machine.
 */
#ifndef H5FAST_PERMUTATION_H
#define H5FAST_PERMUTATION_H

#include "status.h"

/* Counts below take a table: 512 KiB at most. */
#define H5FAST_TABLED 65536

enum { H5FAST_ROUNDS = 8 };

typedef struct {
    uint64_t count;
    uint32_t *table;       /* count rows by position, then count positions by row; NULL: the bijection */
    unsigned low_bits;     /* of the domain; the rest is a number below `high` */
    uint64_t high;         /* <= 2^31 */
    uint64_t keys[H5FAST_ROUNDS];
} h5fast_permutation;

/* Any 64 random bits make a key. H5FAST_MEMORY if the table cannot be had. Free with h5fast_permutation_free. */
h5fast_status h5fast_permutation_make(h5fast_permutation *order, uint64_t count, uint64_t key) H5FAST_CHECKED;
void h5fast_permutation_free(h5fast_permutation *order);

/* The same without the table, whatever the count: nearly free to make, and nothing to free, but of fewer than some hundred
 * rows not all orders come. */
void h5fast_permutation_make_without_table(h5fast_permutation *order, uint64_t count, uint64_t key);

/* What stands at a position (< count), and where a row (< count) stands. */
uint64_t h5fast_permutation_at(const h5fast_permutation *order, uint64_t position);
uint64_t h5fast_permutation_of(const h5fast_permutation *order, uint64_t row);

/* 64 random bits for every key and number: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t h5fast_mix(uint64_t key, uint64_t number)
{
    uint64_t z = key + (number + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

#endif
