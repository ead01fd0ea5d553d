/* Every shuffle and unshuffle of this CPU against the definition, with guard pages around what may be read and written.
 *
 * Prevents: tiles that reach beyond the range that was asked for, and element sizes or counts that no tile divides.
 */
#include "guard.h"

#include "../../src/shuffle.h"
#include "../../src/variants.h"

enum { MAX_BYTES = 1 << 20 };

static guarded input, output;
static h5fast_unshuffle_variant variants[H5FAST_MAX_VARIANTS + 1];
static size_t variant_count;

/* Elements [first, first + count) of a random chunk. Only the bytes from the first to the last that may be read are
 * mapped; `in` itself may lie in the guard. */
static void check_range(size_t n, size_t size, size_t first, size_t count, int place)
{
    size_t span = count ? (size - 1) * n + count : 0;
    uint8_t *mapped = guarded_place(input, span, place), *out = guarded_place(output, count * size, place);
    for (size_t v = size < 2 ? variant_count - 1 : 0; v < variant_count; v++) {
        memset(out, 0, count * size);
        variants[v].unshuffle((const uint8_t *)((uintptr_t)mapped - first), n, size, first, count, out);
        for (size_t j = 0; j < count; j++)
            for (size_t k = 0; k < size; k++)
                CHECK(out[j * size + k] == mapped[k * n + j], "%s: n %zu, size %zu, first %zu, count %zu: element %zu, byte %zu",
                      variants[v].name, n, size, first, count, j, k);
    }
}

static void test_whole_chunks(void)
{
    for (size_t size = 1; size <= 40; size++)
        for (size_t n = 0; n <= 200; n++)
            for (int place = 0; place < PLACES; place++)
                check_range(n, size, 0, n, place);
}

static void test_all_ranges(void)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 40}, counts[] = {1, 15, 16, 17, 33, 50};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (size_t first = 0; first <= counts[c]; first++)
                for (size_t count = 0; first + count <= counts[c]; count++)
                    for (int place = 0; place < PLACES; place++)
                        check_range(counts[c], sizes[s], first, count, place);
}

/* Long enough for several blocks of the general path, with an element size beyond every tile. */
static void test_large(void)
{
    static const size_t sizes[] = {2, 3, 4, 8, 12, 16, 28, 40, 100, 255, 256, 257};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int round = 0; round < 12; round++) {
            size_t n = 1 + random_below(MAX_BYTES / sizes[s] / (round % 3 ? 20 : 1)), first = random_below(n);
            check_range(n, sizes[s], first, 1 + random_below(n - first), round % PLACES);
        }
}

/* The general path works by blocks of 256 to 1,365 elements; whatever is left of the last one must be handled. */
static void test_every_rest(void)
{
    static const size_t sizes[] = {3, 6, 12, 28};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t n = 1300; n < 1900; n++)
            check_range(n, sizes[s], 0, n, n % PLACES);
}

/* The other direction, of whole chunks. */
static void test_shuffling(void)
{
    h5fast_shuffle_variant list[H5FAST_MAX_VARIANTS + 1];
    size_t count = h5fast_shuffle_variants(list);
    list[count++] = (h5fast_shuffle_variant){"h5fast_shuffle", h5fast_shuffle};
    for (size_t size = 1; size <= 40; size++)
        for (size_t n = 0; n <= 700; n = n < 80 ? n + 1 : n + 37)
            for (int place = 0; place < PLACES; place++) {
                uint8_t *in = guarded_place(input, n * size, place), *out = guarded_place(output, n * size, place);
                for (size_t v = size < 2 ? count - 1 : 0; v < count; v++) {
                    memset(out, 0, n * size);
                    list[v].shuffle(in, n, size, out);
                    for (size_t j = 0; j < n * size; j++)
                        CHECK(out[j % size * n + j / size] == in[j], "%s: n %zu, size %zu: byte %zu", list[v].name, n, size, j);
                }
            }
}

int main(void)
{
    input = guarded_memory(MAX_BYTES);
    output = guarded_memory(MAX_BYTES);
    for (size_t i = 0; i < input.size; i++)
        input.start[i] = (uint8_t)random32();
    variant_count = h5fast_unshuffle_variants(variants);
    for (size_t v = 0; v < variant_count; v++)
        printf("unshuffle variant: %s\n", variants[v].name);
    variants[variant_count++] = (h5fast_unshuffle_variant){"h5fast_unshuffle", h5fast_unshuffle};
    test_whole_chunks();
    test_all_ranges();
    test_large();
    test_every_rest();
    test_shuffling();
    puts("shuffle: ok");
}
