/* Fuzz target of the LZF decoders: no bytes make one crash, write beyond its capacity, or differ from another.
 *
 * The first four bytes of the data choose need and capacity (little-endian, up to 65,535), the rest is the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/lzf.h"
#include "../../src/variants.h"

typedef struct {
    h5fast_status status;
    size_t produced, consumed;
} result;

/* Into a buffer of exactly `capacity` bytes from malloc, so that a sanitizer sees every byte beyond it. */
static result run(const h5fast_lzf_variant *variant, const uint8_t *in, size_t in_len, uint8_t *out, size_t need,
                  size_t capacity)
{
    result r = {0, 0, 0};
    r.status = variant->decode(in, in_len, out, need, capacity, &r.produced, &r.consumed);
    if (r.produced > capacity || r.consumed > in_len || (r.status == H5FAST_OK) != (r.produced >= need))
        abort();
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    size_t a = data[0] | (size_t)data[1] << 8, b = data[2] | (size_t)data[3] << 8;
    size_t need = a < b ? a : b, capacity = a < b ? b : a, in_len = size - 4;
    uint8_t *in = malloc(in_len ? in_len : 1), *first = malloc(capacity ? capacity : 1);
    uint8_t *other = malloc(capacity ? capacity : 1);
    if (!in || !first || !other)
        abort();
    memcpy(in, data + 4, in_len);
    h5fast_lzf_variant variants[H5FAST_MAX_VARIANTS];
    size_t count = h5fast_lzf_variants(variants);
    result want = run(&variants[0], in, in_len, first, need, capacity);
    for (size_t v = 1; v < count; v++) {
        result got = run(&variants[v], in, in_len, other, need, capacity);
        if (got.status != want.status || got.produced != want.produced || got.consumed != want.consumed ||
            memcmp(first, other, want.produced) != 0)
            abort();
    }
    free(in);
    free(first);
    free(other);
    return 0;
}
