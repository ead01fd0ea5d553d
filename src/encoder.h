/* Encoding a run of chunks in the pool's threads, beside whatever the submitting thread does meanwhile. */
#ifndef H5FAST_ENCODER_H
#define H5FAST_ENCODER_H

#include "storage.h"

/* One chunk, as it is to be stored. */
typedef struct {
    const uint8_t *bytes; /* in the encoder's memory, or in the rows it was given */
    size_t size;
    uint32_t mask;        /* filters that were left out */
    h5fast_status status; /* H5FAST_OK, H5FAST_CORRUPT, H5FAST_MEMORY; H5FAST_CANCELLED where nobody came to encode it */
} h5fast_encoded;

typedef struct h5fast_encoder h5fast_encoder;

/* An encoder of runs of up to `most` chunks (>= 1). The storage must outlive it. NULL when memory is out. */
h5fast_encoder *h5fast_encoder_make(const h5fast_storage *storage, uint64_t most);
/* Not while a run is under way. NULL is none. */
void h5fast_encoder_free(h5fast_encoder *encoder);
/* Bytes that it holds, without what threads have for their steps. */
size_t h5fast_encoder_bytes(const h5fast_storage *storage, uint64_t most);

/* Starts to encode `count` chunks (1 … most) that lie one behind the other in `rows`, with up to `threads` threads, the one
 * that calls h5fast_encoder_help included. `rows` must stay as they are, and where they are, until the next start or the end
 * of the encoder. `effort` is that of gzip, as deflate.h has it. */
void h5fast_encoder_start(h5fast_encoder *encoder, const uint8_t *rows, uint64_t count, int threads, int effort);
/* Works on the run for about `seconds`. 1: it is done, or none was started; 0: call again. */
int h5fast_encoder_help(h5fast_encoder *encoder, double seconds) H5FAST_CHECKED;
/* Chunks that no thread has begun are left out, H5FAST_CANCELLED; h5fast_encoder_help must still be called until it is 1. */
void h5fast_encoder_cancel(h5fast_encoder *encoder);
/* Chunk `number` of the run that is done; valid until the next start. */
const h5fast_encoded *h5fast_encoder_chunk(const h5fast_encoder *encoder, uint64_t number);

#endif
