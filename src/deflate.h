/* Deflate (filter 1), encoding: zlib streams through libdeflate, or through zlib's compress2 where libdeflate is missing.
 *
 * Both libraries are reached by function pointers that src/_library.pyx found in libraries that Python has loaded.
 */
#ifndef H5FAST_DEFLATE_H
#define H5FAST_DEFLATE_H

#include "status.h"

typedef struct {
    /* libdeflate; all three are NULL where the library could not be found. */
    void *(*alloc_compressor)(int level);
    void (*free_compressor)(void *);
    size_t (*zlib_compress)(void *compressor, const void *in, size_t in_len, void *out, size_t capacity);
    /* zlib */
    int (*compress2)(uint8_t *out, unsigned long *out_len, const uint8_t *in, unsigned long in_len, int level);
} h5fast_deflate_api;

/* Filled once at import, before any thread encodes; read-only afterwards. */
extern h5fast_deflate_api h5fast_deflate;

/* Encodes in[0..in_len) to one zlib stream.
 *
 * compressor  from h5fast_deflate.alloc_compressor, owned by the calling thread; NULL picks zlib, at `level`.
 *
 * Returns the bytes written, at most capacity; 0 where they do not fit or zlib had no memory. */
size_t h5fast_deflate_encode(void *compressor, int level, const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity);

#endif
