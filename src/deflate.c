#include "deflate.h"

#include <limits.h>

h5fast_deflate_api h5fast_deflate;

enum { Z_OK = 0, Z_MEM_ERROR = -4 };

/* libdeflate's levels are not zlib's. On thirteen kinds of data (photographs, digits, tables, spectra, text, masks, labels) its
 * level 2 makes streams at most 2.5 % larger than zlib's 3 and 4, where they have more than 15 hundredths of the input, and is
 * faster than its own 3 and 4. What compresses better than that gains from longer searches, so it is encoded once more, at the
 * level of the same number; it is quickly done. */
static const struct {
    int quick, percent;
} levels[10] = {{0, 0}, {1, 0}, {2, 0}, {2, 15}, {2, 15}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}};

void h5fast_deflate_clear(h5fast_deflate_state *state)
{
    if (state->quick != NULL)
        h5fast_deflate.free_compressor(state->quick);
    if (state->thorough != NULL)
        h5fast_deflate.free_compressor(state->thorough);
    state->quick = state->thorough = NULL;
}

static h5fast_status with_libdeflate(void **compressor, int level, const uint8_t *in, size_t in_len, uint8_t *out,
                                     size_t capacity, size_t *written)
{
    if (*compressor == NULL)
        *compressor = h5fast_deflate.alloc_compressor(level);
    if (*compressor == NULL)
        return H5FAST_MEMORY;
    *written = h5fast_deflate.zlib_compress(*compressor, in, in_len, out, capacity);
    return H5FAST_OK;
}

static h5fast_status with_zlib(int level, const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity, size_t *written)
{
    unsigned long out_len = capacity;
    int result = h5fast_deflate.compress2(out, &out_len, in, in_len, level);
    *written = result == Z_OK ? out_len : 0;
    return result == Z_MEM_ERROR ? H5FAST_MEMORY : H5FAST_OK;
}

h5fast_status h5fast_deflate_encode(h5fast_deflate_state *state, int level, const uint8_t *in, size_t in_len, uint8_t *out,
                                    size_t capacity, size_t *written)
{
    int effort = state->effort;
    if (h5fast_deflate.alloc_compressor == NULL || (effort == H5FAST_EFFORT_ZLIB && h5fast_deflate.compress2 != NULL))
        return with_zlib(level, in, in_len, out, capacity, written);
    if (state->level != level || state->made_for != effort)
        h5fast_deflate_clear(state);
    state->level = level;
    state->made_for = effort;
    if (effort > 0)
        return with_libdeflate(&state->quick, effort, in, in_len, out, capacity, written);
    h5fast_status status = with_libdeflate(&state->quick, levels[level].quick, in, in_len, out, capacity, written);
    if (status == H5FAST_OK && *written != 0 && *written < in_len / 100 * levels[level].percent)
        status = with_libdeflate(&state->thorough, level, in, in_len, out, *written, written);
    if (status == H5FAST_OK && *written == 0) /* the thorough search found less: the quick one again */
        status = with_libdeflate(&state->quick, levels[level].quick, in, in_len, out, capacity, written);
    return status;
}
