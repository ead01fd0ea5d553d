/* The byte shuffle: elements of `size` bytes become `size` planes of bytes.
 *
 * All of it is one operation on 16 elements of G bytes, G a power of two, in G registers. Interleaving the first half of the
 * registers with the second rotates the bits of (element, byte) by one; the four bits of the element number are brought behind
 * those of the byte by four such rounds, whatever G is. An element of 2, 4, 8 or 16 bytes is one piece; any other is taken
 * apart by several pieces that may overlap. Touches only its buffers; reentrant; never allocates.
 */
#include "shuffle.h"

#include <string.h>

#include "shuffle_internal.h"
#include "variants.h"

/* The definition, and what is left for fewer elements than a tile has. */
static void shuffle_bytes(const uint8_t *in, size_t n, size_t size, uint8_t *out)
{
    for (size_t k = 0; k < size; k++)
        for (size_t j = 0; j < n; j++)
            out[k * n + j] = in[j * size + k];
}

#if defined(__GNUC__)

/* Four rounds on g registers that hold pieces of g bytes of 16 elements; then register k holds byte k of each. */
INLINE void rotate_four(bytes16 *v, size_t g)
{
    bytes16 w[16];
    UNROLL for (int round = 0; round < 4; round++) {
        UNROLL for (size_t k = 0; k < g / 2; k++) {
            w[2 * k] = low_halves(v[k], v[k + g / 2]);
            w[2 * k + 1] = high_halves(v[k], v[k + g / 2]);
        }
        UNROLL for (size_t k = 0; k < g; k++)
            v[k] = w[k];
    }
}

/* Elements of exactly g bytes, at least 16 of them. */
INLINE void scatter16(const uint8_t *in, size_t n, size_t g, uint8_t *out)
{
    for (size_t j = 0; j < n; j += 16) {
        size_t at = j + 16 <= n ? j : n - 16;
        bytes16 v[16];
        UNROLL for (size_t k = 0; k < g; k++)
            memcpy(&v[k], in + at * g + 16 * k, 16);
        rotate_four(v, g);
        UNROLL for (size_t k = 0; k < g; k++)
            memcpy(out + k * n + at, &v[k], 16);
    }
}

/* Bytes [k, k + g) of elements [first, first + count) of another size, at least 16 of them. */
INLINE void pieces16(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, size_t k, size_t g, uint8_t *out)
{
    for (size_t j = 0; j < count; j += 16) {
        size_t at = first + (j + 16 <= count ? j : count - 16);
        uint8_t piece[16 * 16];
        bytes16 v[16];
        UNROLL for (size_t e = 0; e < 16; e++)
            memcpy(piece + e * g, in + (at + e) * size + k, g);
        memcpy(v, piece, 16 * g);
        rotate_four(v, g);
        UNROLL for (size_t b = 0; b < g; b++)
            memcpy(out + (k + b) * n + at, &v[b], 16);
    }
}

/* Any size but a power of two up to 16: the widest pieces that fit, the last of them ending with the element; in blocks, so
 * that the input is in the first cache when the next piece of it is taken. */
static void scatter_pieces(const uint8_t *in, size_t n, size_t size, uint8_t *out)
{
    enum { BLOCK = 256 }; /* elements: four cache lines of each plane */
    size_t g = size >= 16 ? 16 : size >= 8 ? 8 : size >= 4 ? 4 : 2, count;
    for (size_t first = 0; first < n; first += count) {
        count = n - first < BLOCK + 16 ? n - first : BLOCK; /* never leaves fewer than 16 for the next */
        for (size_t k = 0; k < size; k += g) {
            size_t at = k + g <= size ? k : size - g;
            switch (g) {
            case 16: pieces16(in, n, size, first, count, at, 16, out); break;
            case 8: pieces16(in, n, size, first, count, at, 8, out); break;
            case 4: pieces16(in, n, size, first, count, at, 4, out); break;
            default: pieces16(in, n, size, first, count, at, 2, out); break;
            }
        }
    }
}

static void shuffle_tiles(const uint8_t *in, size_t n, size_t size, uint8_t *out)
{
    if (n < 16) {
        shuffle_bytes(in, n, size, out);
        return;
    }
    switch (size) {
    case 2: scatter16(in, n, 2, out); break;
    case 4: scatter16(in, n, 4, out); break;
    case 8: scatter16(in, n, 8, out); break;
    case 16: scatter16(in, n, 16, out); break;
    default: scatter_pieces(in, n, size, out); break;
    }
}

#endif /* __GNUC__ */

size_t h5fast_shuffle_variants(h5fast_shuffle_variant list[H5FAST_MAX_VARIANTS])
{
    size_t count = 0;
    list[count++] = (h5fast_shuffle_variant){"bytes", shuffle_bytes};
#if defined(__GNUC__)
    list[count++] = (h5fast_shuffle_variant){"tiles", shuffle_tiles};
#endif
    return count;
}

void h5fast_shuffle(const uint8_t *in, size_t n, size_t size, uint8_t *out)
{
    if (size < 2) {
        memcpy(out, in, n * size);
        return;
    }
#if defined(__GNUC__)
    shuffle_tiles(in, n, size, out);
#else
    shuffle_bytes(in, n, size, out);
#endif
}
