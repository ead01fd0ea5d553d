/* Byte shuffle (filter 2): doing it to a whole chunk, and undoing it for one or for a range of its elements.
 *
 * A shuffled chunk of n = nbytes / size elements holds byte 0 of every element, then byte 1 of every element, and so
 * on; the nbytes % size bytes left over follow as they are. Size 1, or fewer than two elements, is no shuffle at all.
 * SIMD variants are picked at run time. Touches only its buffers; reentrant; never allocates.
 */
#ifndef H5FAST_SHUFFLE_H
#define H5FAST_SHUFFLE_H

#include "status.h"

/* Writes elements [first, first + count) to out, count * size bytes, in natural byte order.
 *
 * in     the shuffled chunk, of n elements of `size` bytes (the left-over tail is not this function's business).
 * out    does not overlap in; exactly count * size bytes are written.
 * The caller guarantees first + count <= n. Only bytes [k * n + first, k * n + first + count) of in are read, for
 * every k < size.
 */
void h5fast_unshuffle(const uint8_t *in, size_t n, size_t size, size_t first, size_t count, uint8_t *out);

/* Shuffles n elements of `size` bytes: n * size bytes of in go to out, which does not overlap it. */
void h5fast_shuffle(const uint8_t *in, size_t n, size_t size, uint8_t *out);

#endif
