/* Undoing a chunk's filter pipeline, in any order of filters, into the calling thread's own buffers. */
#ifndef H5FAST_DECODE_H
#define H5FAST_DECODE_H

#include "storage.h"

typedef struct {
    uint8_t *bytes;
    size_t capacity;
} h5fast_buffer;

/* What one thread needs to read and decode; it keeps its buffers from chunk to chunk. */
typedef struct h5fast_scratch {
    h5fast_buffer encoded;
    h5fast_buffer decoded[2]; /* a pipeline step reads one and writes the other */
    h5fast_buffer staged;     /* a row on its way through a cast */
    void *decompressor;       /* libdeflate's; made at first use */
    struct h5fast_scratch *next; /* the list of free ones */
} h5fast_scratch;

/* Takes a scratch from the free list or makes one; NULL when memory is out. Give it back with h5fast_scratch_return. */
h5fast_scratch *h5fast_scratch_take(void);
void h5fast_scratch_return(h5fast_scratch *scratch);
/* Frees what lies on the free list. */
void h5fast_scratch_trim(void);
/* Bytes held by the scratches on the free list; for tests. */
size_t h5fast_scratch_bytes(void);

h5fast_status h5fast_buffer_reserve(h5fast_buffer *buffer, size_t bytes) H5FAST_CHECKED;

/* The bytes of the chunk that are wanted: [first, end). Others may stay undecoded, and their checksums unverified. */
typedef struct {
    uint64_t first, end;
} h5fast_want;

typedef struct {
    const uint8_t *chunk;  /* byte 0 of the decoded chunk; valid in the wanted range only */
    const uint8_t *planes; /* or, with chunk NULL: the shuffled bytes, when shuffle is the only filter left to undo */
    uint64_t elements;     /* of planes */
    uint64_t element_size; /* of planes */
    int filter;            /* on error: the id of the filter that failed, 0 if none did */
} h5fast_decoded;

/* Decodes one stored chunk.
 *
 * stored          its bytes; `size` of them
 * mask            its filter mask
 * whole           where the decoded chunk may be written, chunk_bytes long, or NULL for the scratch
 * keep_planes     leave a final shuffle, of whole elements or parts of them, to the caller, who takes single rows out of it
 *
 * H5FAST_SHORT where the chunk decodes cleanly but ends before want->end. */
h5fast_status h5fast_decode_chunk(const h5fast_storage *storage, h5fast_scratch *scratch, const uint8_t *stored,
                                  uint64_t size, uint32_t mask, h5fast_want want, uint8_t *whole, int keep_planes,
                                  h5fast_decoded *result) H5FAST_CHECKED;

#endif
