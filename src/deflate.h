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

/* How hard to search for what makes a stream as small as zlib's: what the level alone suggests, zlib itself, or else a level of
 * libdeflate's (1 to 9). */
enum { H5FAST_EFFORT_OF_LEVEL = 0, H5FAST_EFFORT_ZLIB = -1 };

/* libdeflate's compressors, made at first use and owned by one thread; zeros at first. */
typedef struct {
    int effort; /* for the next stream; the owner's to set */
    void *quick, *thorough;
    int level, made_for; /* level and effort that these are for */
} h5fast_deflate_state;

/* Frees the compressors. */
void h5fast_deflate_clear(h5fast_deflate_state *state);

/* Encodes in[0..in_len) to one zlib stream, about as small as zlib makes it at `level` (0 to 9), with the effort of
 * the state.
 *
 * written  receives its length, at most capacity; 0 where it does not fit
 *
 * H5FAST_MEMORY where there was none for the compressor. */
h5fast_status h5fast_deflate_encode(h5fast_deflate_state *state, int level, const uint8_t *in, size_t in_len, uint8_t *out,
                                    size_t capacity, size_t *written) H5FAST_CHECKED;

#endif
