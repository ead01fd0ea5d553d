/* LZF (filter 32000): decoding of one raw LibLZF block, which has neither header nor length.
 *
 * Touches only the buffers it is given; safe on hostile input; reentrant; never allocates.
 */
#ifndef H5FAST_LZF_H
#define H5FAST_LZF_H

#include "status.h"

/* Decodes in[0..in_len) into out, until the input is used up or at least `need` bytes are out, whichever is first.
 *
 * out       has room for `capacity` bytes (capacity >= need). Bytes of out beyond *produced may have been overwritten,
 *           never bytes beyond capacity.
 * produced  receives the number of valid bytes; may exceed need, never capacity.
 * consumed  receives how much of the input was used: in_len when the stream ended.
 *
 * H5FAST_OK       at least `need` bytes are out.
 * H5FAST_SHORT    the stream ended cleanly before `need` bytes; *produced bytes are valid.
 * H5FAST_CORRUPT  a reference before the start of the output, an input that ends within an instruction, or an
 *                 instruction that would write beyond capacity.
 */
h5fast_status h5fast_lzf_decode(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                                size_t *produced, size_t *consumed) H5FAST_CHECKED;

#endif
