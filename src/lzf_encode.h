/* LZF (filter 32000): encoding to one raw LibLZF block, which has neither header nor length.
 *
 * Touches only the buffers it is given; reentrant; never allocates. The same input always gives the same output.
 */
#ifndef H5FAST_LZF_ENCODE_H
#define H5FAST_LZF_ENCODE_H

#include "status.h"

enum { H5FAST_LZF_SLOTS = 1 << 14 };

/* Where three bytes were seen last, by their hash; what it holds before a call does not matter. */
typedef struct {
    uint16_t at[H5FAST_LZF_SLOTS];
} h5fast_lzf_table;

/* Encodes in[0..in_len) into out, which has room for `capacity` bytes and does not overlap it.
 *
 * Returns the bytes written, at most capacity; 0 where they do not fit, and then the content of out means nothing. An
 * empty input is encoded by no bytes, which reads as 0 too. */
size_t h5fast_lzf_encode(h5fast_lzf_table *table, const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity);

#endif
