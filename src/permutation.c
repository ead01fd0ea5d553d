#include "permutation.h"

#include <stdlib.h>

/* A number below `limit` (<= 2^32), each equally likely: Lemire, "Fast random integer generation in an interval", 2019. */
static uint64_t draw_below(uint64_t key, uint64_t *drawn, uint64_t limit)
{
    uint32_t refused = (uint32_t)(((uint64_t)1 << 32) % limit);
    for (;;) {
        uint64_t product = (h5fast_mix(key, (*drawn)++) >> 32) * limit;
        if ((uint32_t)product >= refused)
            return product >> 32;
    }
}

static void shuffle(h5fast_permutation *order, uint64_t key)
{
    uint32_t count = (uint32_t)order->count, *rows = order->table, *positions = order->table + count;
    uint64_t drawn = 0;
    for (uint32_t i = 0; i < count; i++)
        rows[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = (uint32_t)draw_below(key, &drawn, i), moved = rows[other];
        rows[other] = rows[i - 1];
        rows[i - 1] = moved;
    }
    for (uint32_t i = 0; i < count; i++)
        positions[rows[i]] = i;
}

void h5fast_permutation_make_without_table(h5fast_permutation *order, uint64_t count, uint64_t key)
{
    *order = (h5fast_permutation){.count = count};
    /* Halves of about equal size, so that each round moves half of what there is: 2^low_bits <= sqrt(count). The domain then
     * exceeds count by less than 2^low_bits: one part in 256 at most, of the counts that get here for want of a table. */
    while (order->low_bits < 32 && (uint64_t)4 << 2 * order->low_bits <= count)
        order->low_bits++;
    order->high = count > 0 ? ((count - 1) >> order->low_bits) + 1 : 0;
    for (int round = 0; round < H5FAST_ROUNDS; round++)
        order->keys[round] = h5fast_mix(key, (uint64_t)round);
}

h5fast_status h5fast_permutation_make(h5fast_permutation *order, uint64_t count, uint64_t key)
{
    if (count >= H5FAST_TABLED) {
        h5fast_permutation_make_without_table(order, count, key);
        return H5FAST_OK;
    }
    *order = (h5fast_permutation){.count = count};
    order->table = malloc((count > 0 ? count : 1) * 2 * sizeof *order->table);
    if (order->table == NULL)
        return H5FAST_MEMORY;
    shuffle(order, key);
    return H5FAST_OK;
}

void h5fast_permutation_free(h5fast_permutation *order)
{
    free(order->table);
    order->table = NULL;
}

/* What a round makes of the half that it leaves as it is: 32 bits that depend on all of it. */
static inline uint64_t stir(uint64_t half, uint64_t key)
{
    uint64_t z = (half ^ key) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 32) * 0xD6E8FEB86659FD93u;
    return z >> 32;
}

static inline uint64_t forwards(const h5fast_permutation *order, uint64_t number)
{
    uint64_t mask = ((uint64_t)1 << order->low_bits) - 1, high = number >> order->low_bits, low = number & mask;
    for (int round = 0; round < H5FAST_ROUNDS; round += 2) {
        high += stir(low, order->keys[round]) * order->high >> 32;
        high -= high >= order->high ? order->high : 0;
        low = (low + stir(high, order->keys[round + 1])) & mask;
    }
    return high << order->low_bits | low;
}

static inline uint64_t backwards(const h5fast_permutation *order, uint64_t number)
{
    uint64_t mask = ((uint64_t)1 << order->low_bits) - 1, high = number >> order->low_bits, low = number & mask;
    for (int round = H5FAST_ROUNDS - 2; round >= 0; round -= 2) {
        low = (low - stir(high, order->keys[round + 1])) & mask;
        uint64_t step = stir(low, order->keys[round]) * order->high >> 32;
        high = high >= step ? high - step : high + order->high - step;
    }
    return high << order->low_bits | low;
}

uint64_t h5fast_permutation_at(const h5fast_permutation *order, uint64_t position)
{
    if (order->table != NULL)
        return order->table[position];
    do
        position = forwards(order, position);
    while (position >= order->count);
    return position;
}

uint64_t h5fast_permutation_of(const h5fast_permutation *order, uint64_t row)
{
    if (order->table != NULL)
        return order->table[order->count + row];
    do
        row = backwards(order, row);
    while (row >= order->count);
    return row;
}
