/* Undoing the byte shuffle: `size` planes of bytes become elements of `size` bytes.
 *
 * All of it is one operation, the tile: 16 (or 32) bytes from each of G planes, G a power of two, interleaved to 16 (or
 * 32) pieces of G bytes. Interleaving the first half of the G registers with the second, byte by byte, rotates the bits
 * of (plane, element) by one; after log2(G) such rounds they stand as (element, plane), which is the wanted order. An
 * element of 2, 4, 8 or 16 bytes is one piece; any other is put together from several pieces that may overlap.
 *
 * Ranges that are no multiple of a tile end with a tile that overlaps the one before, so that a hundred elements cost
 * no byte loop. Touches only its buffers; reentrant; never allocates.
 */
#include "shuffle.h"

#include <string.h>

#include "shuffle_internal.h"
#include "variants.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHUFFLE_X86 1
#include <immintrin.h>
#endif

/* What is wanted: `count` elements from planes that lie `n` bytes apart; plane 0 of the first element is at `in`. */
typedef struct {
    const uint8_t *in;
    size_t n;
    size_t size;
    size_t count;
    uint8_t *out;
} range;

/* Byte by byte: the definition, and what is left for fewer elements than a tile has. */
static void gather_bytes(const range *r)
{
    for (size_t k = 0; k < r->size; k++)
        for (size_t j = 0; j < r->count; j++)
            r->out[j * r->size + k] = r->in[k * r->n + j];
}

static void unshuffle_bytes(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out)
{
    range r = {in + first, n, size, count, out};
    gather_bytes(&r);
}

#if defined(__GNUC__)

/* Reads 16 bytes from each of g planes n bytes apart and leaves the pieces of elements 0..15 one after another in v. */
INLINE void tile16(const uint8_t *in, size_t n, size_t g, bytes16 *v)
{
    bytes16 w[16];
    UNROLL for (size_t k = 0; k < g; k++)
        memcpy(&v[k], in + k * n, 16);
    UNROLL for (size_t round = 1; round < g; round *= 2) {
        UNROLL for (size_t k = 0; k < g / 2; k++) {
            w[2 * k] = low_halves(v[k], v[k + g / 2]);
            w[2 * k + 1] = high_halves(v[k], v[k + g / 2]);
        }
        UNROLL for (size_t k = 0; k < g; k++)
            v[k] = w[k];
    }
}

/* Elements of exactly g bytes, at least 16 of them. */
INLINE void gather16(const range *r, size_t g)
{
    for (size_t j = 0; j < r->count; j += 16) {
        size_t at = j + 16 <= r->count ? j : r->count - 16;
        bytes16 v[16];
        tile16(r->in + at, r->n, g, v);
        UNROLL for (size_t k = 0; k < g; k++)
            memcpy(r->out + at * g + 16 * k, &v[k], 16);
    }
}

/* Bytes [k, k + g) of elements of another size, at least 16 of them. */
INLINE void pieces16(const range *r, size_t k, size_t g)
{
    for (size_t j = 0; j < r->count; j += 16) {
        size_t at = j + 16 <= r->count ? j : r->count - 16;
        uint8_t piece[16 * 16];
        bytes16 v[16];
        tile16(r->in + k * r->n + at, r->n, g, v);
        memcpy(piece, v, 16 * g);
        UNROLL for (size_t e = 0; e < 16; e++)
            memcpy(r->out + (at + e) * r->size + k, piece + e * g, g);
    }
}

/* Any size but a power of two up to 16: the widest pieces that fit, the last of them ending with the element. */
static void gather_pieces(const range *r)
{
    size_t g = r->size >= 16 ? 16 : r->size >= 8 ? 8 : r->size >= 4 ? 4 : 2;
    for (size_t k = 0; k < r->size; k += g) {
        size_t at = k + g <= r->size ? k : r->size - g;
        switch (g) {
        case 16: pieces16(r, at, 16); break;
        case 8: pieces16(r, at, 8); break;
        case 4: pieces16(r, at, 4); break;
        default: pieces16(r, at, 2); break;
        }
    }
}

/* gather_pieces goes over the output once for every piece, so it is given blocks of 4 KiB, an eighth of the smallest
 * L1 cache; but never less than 256 elements, four cache lines of each plane (100-byte elements of a chunk of 32 MiB:
 * 4.6 GB/s, with one cache line 2.3). */
enum { BLOCK = 4096, BLOCK_ELEMENTS = 256 };

static void gather_blocks(const range *r)
{
    size_t step = BLOCK / r->size > BLOCK_ELEMENTS ? BLOCK / r->size : BLOCK_ELEMENTS;
    range block = *r;
    for (size_t done = 0; done < r->count; done += block.count) {
        size_t left = r->count - done;
        block.count = left < step + 16 ? left : step; /* never leaves fewer than 16 for the next */
        block.in = r->in + done;
        block.out = r->out + done * r->size;
        gather_pieces(&block);
    }
}

static void gather_tiles(const range *r)
{
    if (r->count < 16) {
        gather_bytes(r);
        return;
    }
    switch (r->size) {
    case 2: gather16(r, 2); break;
    case 4: gather16(r, 4); break;
    case 8: gather16(r, 8); break;
    case 16: gather16(r, 16); break;
    default: gather_blocks(r); break;
    }
}

static void unshuffle_tiles(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out)
{
    range r = {in + first, n, size, count, out};
    gather_tiles(&r);
}

#endif /* __GNUC__ */

#ifdef SHUFFLE_X86

#define AVX2 __attribute__((target("avx2")))

/* As gather16, 32 elements at a time and at least 32 of them. A round keeps to the lanes of 16 bytes, so at the end the
 * lane, the topmost bit of the element number, has to be moved to the front. */
AVX2 INLINE void gather32(const range *r, size_t g)
{
    for (size_t j = 0; j < r->count; j += 32) {
        size_t at = j + 32 <= r->count ? j : r->count - 32;
        __m256i v[16], w[16];
        UNROLL for (size_t k = 0; k < g; k++)
            v[k] = _mm256_loadu_si256((const __m256i *)(r->in + k * r->n + at));
        UNROLL for (size_t round = 1; round < g; round *= 2) {
            UNROLL for (size_t k = 0; k < g / 2; k++) {
                w[2 * k] = _mm256_unpacklo_epi8(v[k], v[k + g / 2]);
                w[2 * k + 1] = _mm256_unpackhi_epi8(v[k], v[k + g / 2]);
            }
            UNROLL for (size_t k = 0; k < g; k++)
                v[k] = w[k];
        }
        __m256i *to = (__m256i *)(r->out + at * g);
        UNROLL for (size_t k = 0; k < g / 2; k++) {
            _mm256_storeu_si256(to + k, _mm256_permute2x128_si256(v[2 * k], v[2 * k + 1], 0x20));
            _mm256_storeu_si256(to + g / 2 + k, _mm256_permute2x128_si256(v[2 * k], v[2 * k + 1], 0x31));
        }
    }
}

AVX2 static void unshuffle_avx2(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out)
{
    range r = {in + first, n, size, count, out};
    if (count < 32) {
        gather_tiles(&r);
        return;
    }
    switch (size) {
    case 2: gather32(&r, 2); break;
    case 4: gather32(&r, 4); break;
    case 8: gather32(&r, 8); break;
    case 16: gather32(&r, 16); break;
    default: gather_blocks(&r); break;
    }
}

#endif /* SHUFFLE_X86 */

size_t h5fast_unshuffle_variants(h5fast_unshuffle_variant list[H5FAST_MAX_VARIANTS])
{
    size_t count = 0;
    list[count++] = (h5fast_unshuffle_variant){"bytes", unshuffle_bytes};
#if defined(__GNUC__)
    list[count++] = (h5fast_unshuffle_variant){"tiles", unshuffle_tiles};
#endif
#ifdef SHUFFLE_X86
    if (__builtin_cpu_supports("avx2"))
        list[count++] = (h5fast_unshuffle_variant){"avx2", unshuffle_avx2};
#endif
    return count;
}

/* The CPU is asked on every call: that is a load and a test of what libgcc found out at start, and no state of ours. */
void h5fast_unshuffle(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out)
{
    if (size < 2) {
        memcpy(out, in + first, count * size);
        return;
    }
    h5fast_unshuffle_variant list[H5FAST_MAX_VARIANTS];
    size_t variants = h5fast_unshuffle_variants(list);
    list[variants - 1].unshuffle(in, n, size, first, count, out);
}
