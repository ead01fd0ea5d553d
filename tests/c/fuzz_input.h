/* For fuzz targets: the bytes of an input, taken from the front as numbers. Behind the end there are zeros. */
#ifndef H5FAST_FUZZ_INPUT_H
#define H5FAST_FUZZ_INPUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *data;
    size_t size;
} fuzz_input;

static inline uint64_t take(fuzz_input *in, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes && in->size > 0; i++, in->data++, in->size--)
        value |= (uint64_t)in->data[0] << 8 * i;
    return value;
}

/* A number below `end` (1 … 65,536). */
static inline uint64_t take_below(fuzz_input *in, uint64_t end) { return take(in, end > 256 ? 2 : 1) % end; }

/* What is left, in a block of exactly its size, so that a sanitizer sees every byte beyond it. */
static inline uint8_t *take_rest(const fuzz_input *in)
{
    uint8_t *rest = malloc(in->size ? in->size : 1);
    if (rest == NULL)
        abort();
    if (in->size > 0)
        memcpy(rest, in->data, in->size);
    return rest;
}

#endif
