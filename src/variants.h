/* The implementations behind h5fast_lzf_decode, h5fast_unshuffle and h5fast_shuffle, one by one: for the tests, which run each of them.
 *
 * The library itself never includes this for anything but defining these lists.
 */
#ifndef H5FAST_VARIANTS_H
#define H5FAST_VARIANTS_H

#include "status.h"

typedef struct {
    const char *name;
    h5fast_status (*decode)(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                            size_t *produced, size_t *consumed);
} h5fast_lzf_variant;

/* Takes sizes of two and more only. */
typedef struct {
    const char *name;
    void (*unshuffle)(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out);
} h5fast_unshuffle_variant;

typedef struct {
    const char *name;
    void (*shuffle)(const uint8_t *in, size_t n, size_t size, uint8_t *out);
} h5fast_shuffle_variant;

enum { H5FAST_MAX_VARIANTS = 4 };

/* Fill list with what this CPU can run, slowest first, and return how many. */
size_t h5fast_lzf_variants(h5fast_lzf_variant list[H5FAST_MAX_VARIANTS]);
size_t h5fast_unshuffle_variants(h5fast_unshuffle_variant list[H5FAST_MAX_VARIANTS]);
size_t h5fast_shuffle_variants(h5fast_shuffle_variant list[H5FAST_MAX_VARIANTS]);

#endif
