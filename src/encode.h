/* Putting a chunk through its filter pipeline, in any order of filters, with the calling thread's own buffers. */
#ifndef H5FAST_ENCODE_H
#define H5FAST_ENCODE_H

#include "decode.h"
#include "deflate.h"
#include "lzf_encode.h"

/* What one thread needs to encode; it keeps its buffers from chunk to chunk. Zeros at first. */
typedef struct {
    h5fast_buffer steps[2]; /* a pipeline step reads one and writes the other */
    h5fast_deflate_state deflate;
    h5fast_lzf_table table;
} h5fast_encode_scratch;

/* Frees what it holds, not itself. */
void h5fast_encode_scratch_clear(h5fast_encode_scratch *scratch);

/* The most that a chunk can take when it is stored. */
size_t h5fast_encode_bound(const h5fast_storage *storage);

/* Encodes one chunk of storage->chunk_bytes.
 *
 * out    has room for h5fast_encode_bound(storage) bytes
 * bytes  receives where the encoded chunk is: out, or `chunk` itself where no filter was applied
 * size   receives its length
 * mask   receives the filters that were left out, one bit each: compressors that would not make it smaller and, where none
 *        did, the shuffle that was to help them. A checksum is never left out.
 *
 * H5FAST_CORRUPT where the pipeline has no meaning (a shuffle of no bytes), H5FAST_MEMORY. */
h5fast_status h5fast_encode_chunk(const h5fast_storage *storage, h5fast_encode_scratch *scratch, const uint8_t *chunk,
                                  uint8_t *out, const uint8_t **bytes, size_t *size, uint32_t *mask) H5FAST_CHECKED;

#endif
