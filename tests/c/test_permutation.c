/* The random orders: each is an order, its inverse is one, and no statistic of it stands out.
 *
 * Prevents: a row that comes twice or never, an inverse that leads elsewhere, a shuffle that favours some places, orders of
 * neighbouring keys that resemble each other.
 */
#include <math.h>

#include "guard.h"

#include "../../src/permutation.h"

enum { CELLS = 64 };

static h5fast_permutation made(uint64_t count, uint64_t key)
{
    h5fast_permutation order;
    CHECK(h5fast_permutation_make(&order, count, key) == H5FAST_OK, "count %llu", (unsigned long long)count);
    return order;
}

static void test_is_an_order(uint64_t count, uint64_t key)
{
    h5fast_permutation order = made(count, key);
    uint8_t *seen = calloc(count + 1, 1);
    for (uint64_t position = 0; position < count; position++) {
        uint64_t row = h5fast_permutation_at(&order, position);
        CHECK(row < count && !seen[row], "count %llu: row %llu", (unsigned long long)count, (unsigned long long)row);
        seen[row] = 1;
        CHECK(h5fast_permutation_of(&order, row) == position, "count %llu: inverse", (unsigned long long)count);
    }
    free(seen);
    h5fast_permutation_free(&order);
}

/* Counts that no table could hold: the inverse, and that nothing falls outside. */
static void test_large(uint64_t count)
{
    h5fast_permutation order = made(count, count);
    for (int i = 0; i < 100000; i++) {
        uint64_t position = ((uint64_t)random32() << 32 | random32()) % count;
        uint64_t row = h5fast_permutation_at(&order, position);
        CHECK(row < count && h5fast_permutation_of(&order, row) == position, "count %llu", (unsigned long long)count);
    }
    h5fast_permutation_free(&order);
}

/* Of counts in `cells` equally likely cells: how many standard deviations chi squared is from what chance gives. */
static double surprise(const uint64_t *cells, int count, uint64_t total)
{
    double expected = (double)total / count, chi = 0;
    for (int i = 0; i < count; i++)
        chi += ((double)cells[i] - expected) * ((double)cells[i] - expected) / expected;
    return (chi - (count - 1)) / sqrt(2.0 * (count - 1));
}

/* Where a position's row lies, and how it lies to that of the next position, for the first positions of one order and over
 * many keys: cell by cell, each pair of cells as often as the others. */
static void test_pairs(uint64_t count, int keys, uint64_t positions)
{
    static uint64_t pairs[CELLS * CELLS], steps[CELLS];
    memset(pairs, 0, sizeof pairs);
    memset(steps, 0, sizeof steps);
    for (int key = 0; key < keys; key++) {
        h5fast_permutation order = made(count, (uint64_t)key);
        uint64_t before = h5fast_permutation_at(&order, count - 1);
        for (uint64_t position = 0; position < positions; position++) {
            uint64_t row = h5fast_permutation_at(&order, position);
            pairs[(position * CELLS / positions) * CELLS + row * CELLS / count]++;
            steps[(row + count - before) % count * CELLS / count]++;
            before = row;
        }
        h5fast_permutation_free(&order);
    }
    uint64_t total = (uint64_t)keys * positions;
    double where = surprise(pairs, CELLS * CELLS, total), step = surprise(steps, CELLS, total);
    CHECK(fabs(where) < 5 && fabs(step) < 5, "count %llu, %d keys: %.1f and %.1f standard deviations",
          (unsigned long long)count, keys, where, step);
}

/* Neighbouring keys: two orders agree in about one place, whatever the count. */
static void test_keys_differ(uint64_t count)
{
    uint64_t agreeing = 0;
    for (uint64_t key = 0; key < 50; key++) {
        h5fast_permutation one = made(count, key), other = made(count, key + 1);
        for (uint64_t position = 0; position < count; position++)
            agreeing += h5fast_permutation_at(&one, position) == h5fast_permutation_at(&other, position);
        h5fast_permutation_free(&one);
        h5fast_permutation_free(&other);
    }
    CHECK(agreeing > 15 && agreeing < 100, "count %llu: %llu agree, about 50 would", (unsigned long long)count,
          (unsigned long long)agreeing);
}

/* Chance alone moves a fixed point of an order to each place; the number of cycles of a random order is about ln(count). */
static void test_small_orders_are_equally_likely(void)
{
    uint64_t seen[24] = {0};
    for (uint64_t key = 0; key < 240000; key++) {
        h5fast_permutation order = made(4, key);
        uint64_t a = h5fast_permutation_at(&order, 0), b = h5fast_permutation_at(&order, 1);
        uint64_t c = h5fast_permutation_at(&order, 2);
        seen[a * 6 + (b - (b > a)) * 2 + (c > h5fast_permutation_at(&order, 3))]++;
        h5fast_permutation_free(&order);
    }
    double far = surprise(seen, 24, 240000);
    CHECK(fabs(far) < 5, "orders of four: %.1f standard deviations", far);
}

int main(void)
{
    for (uint64_t count = 0; count < 70; count++)
        test_is_an_order(count, 3 * count);
    for (uint64_t count = H5FAST_TABLED - 2; count < H5FAST_TABLED + 300; count += 37)
        test_is_an_order(count, count);
    for (int i = 0; i < 10; i++)
        test_is_an_order(H5FAST_TABLED + random_below(500000), i);
    test_large(1000000000);
    test_large((uint64_t)1 << 40);
    test_large(((uint64_t)1 << 40) + 1);
    test_large(((uint64_t)1 << 62) - 1);
    test_pairs(H5FAST_TABLED, 60, H5FAST_TABLED);
    test_pairs(65535, 60, 65535);
    test_pairs(1000003, 40, 200000);
    test_pairs(1000000000, 40, 200000);
    test_keys_differ(60000);
    test_keys_differ(100000);
    test_small_orders_are_equally_likely();
    puts("permutation: ok");
}
