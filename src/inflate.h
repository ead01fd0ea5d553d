/* Deflate (filter 1): zlib streams through libdeflate, or through zlib's inflate where libdeflate is missing.
 *
 * Both libraries are reached by function pointers that src/_library.pyx found in libraries that Python has loaded.
 */
#ifndef H5FAST_INFLATE_H
#define H5FAST_INFLATE_H

#include "status.h"

typedef struct {
    /* libdeflate; all three are NULL where the library could not be found. */
    void *(*alloc_decompressor)(void);
    void (*free_decompressor)(void *);
    int (*zlib_decompress_ex)(void *decompressor, const void *in, size_t in_len, void *out, size_t capacity,
                              size_t *consumed, size_t *produced);
    /* zlib */
    int (*inflate_init)(void *stream, const char *version, int stream_size);
    int (*inflate)(void *stream, int flush);
    int (*inflate_end)(void *stream);
} h5fast_inflate_api;

/* Filled once at import, before any thread decodes; read-only afterwards. */
extern h5fast_inflate_api h5fast_inflate;

/* An inflate that stops early still needs this much room behind the last needed byte: libdeflate gives up when the next
 * item does not fit, and the largest item that it writes at once is a stored block of 65,535 bytes. */
#define H5FAST_INFLATE_MARGIN 65536u

/* Decodes the zlib stream in[0..in_len) into out until it ends or, where early is set, until `need` bytes are out.
 *
 * decompressor  from h5fast_inflate.alloc_decompressor, owned by the calling thread; NULL picks zlib.
 * out           has room for `capacity` bytes; only with capacity >= need + H5FAST_INFLATE_MARGIN can it stop early.
 * produced      bytes known to be valid.
 *
 * H5FAST_OK       at least `need` bytes are valid.
 * H5FAST_SHORT    the stream ended, its checksum right, before `need` bytes.
 * H5FAST_CORRUPT  a broken stream, a wrong checksum, or more output than capacity (unless stopped early).
 * H5FAST_MEMORY   zlib could not allocate its state. */
h5fast_status h5fast_inflate_decode(void *decompressor, const uint8_t *in, size_t in_len, uint8_t *out, size_t need,
                                    size_t capacity, int early, size_t *produced) H5FAST_CHECKED;

#endif
