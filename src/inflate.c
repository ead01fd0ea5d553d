#include "inflate.h"

#include <limits.h>
#include <string.h>

h5fast_inflate_api h5fast_inflate;

enum { LIBDEFLATE_SUCCESS = 0, LIBDEFLATE_INSUFFICIENT_SPACE = 3 };

/* zlib's z_stream; its layout has not changed since zlib 1.0 and inflateInit_ checks the size it is told. */
typedef struct {
    const uint8_t *next_in;
    unsigned avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned avail_out;
    unsigned long total_out;
    const char *msg;
    void *state;
    void *(*zalloc)(void *, unsigned, unsigned);
    void (*zfree)(void *, void *);
    void *opaque;
    int data_type;
    unsigned long adler;
    unsigned long reserved;
} z_stream;

enum { Z_NO_FLUSH = 0, Z_OK = 0, Z_STREAM_END = 1, Z_MEM_ERROR = -4 };

static h5fast_status with_libdeflate(void *decompressor, const uint8_t *in, size_t in_len, uint8_t *out, size_t need,
                                     size_t capacity, int early, size_t *produced)
{
    size_t consumed = 0, written = 0;
    int result = h5fast_inflate.zlib_decompress_ex(decompressor, in, in_len, out, capacity, &consumed, &written);
    if (result == LIBDEFLATE_SUCCESS) {
        *produced = written;
        return written >= need ? H5FAST_OK : H5FAST_SHORT;
    }
    if (result == LIBDEFLATE_INSUFFICIENT_SPACE && early && capacity >= H5FAST_INFLATE_MARGIN &&
        capacity - H5FAST_INFLATE_MARGIN >= need) {
        *produced = need;
        return H5FAST_OK;
    }
    return H5FAST_CORRUPT;
}

/* avail_in and avail_out are 32 bits wide, so long buffers are handed over in pieces. */
static unsigned piece(size_t left)
{
    return left > UINT_MAX ? UINT_MAX : (unsigned)left;
}

static h5fast_status with_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity, int early,
                               size_t *produced)
{
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    int result = h5fast_inflate.inflate_init(&stream, "1.2.11", (int)sizeof stream);
    if (result != Z_OK)
        return H5FAST_MEMORY;
    size_t used = 0, written = 0;
    int stalled = 0;
    do {
        stream.next_in = in + used;
        stream.avail_in = piece(in_len - used);
        stream.next_out = out + written;
        stream.avail_out = piece(capacity - written);
        unsigned in_before = stream.avail_in, out_before = stream.avail_out;
        result = h5fast_inflate.inflate(&stream, Z_NO_FLUSH);
        used += in_before - stream.avail_in;
        written += out_before - stream.avail_out;
        stalled = in_before == stream.avail_in && out_before == stream.avail_out;
    } while (result == Z_OK && !stalled && !(early && written >= need));
    h5fast_inflate.inflate_end(&stream);
    if (result == Z_MEM_ERROR)
        return H5FAST_MEMORY;
    if (result != Z_STREAM_END && !(result == Z_OK && early && written >= need))
        return H5FAST_CORRUPT;
    *produced = written;
    return written >= need ? H5FAST_OK : H5FAST_SHORT;
}

h5fast_status h5fast_inflate_decode(void *decompressor, const uint8_t *in, size_t in_len, uint8_t *out, size_t need,
                                    size_t capacity, int early, size_t *produced)
{
    if (decompressor != NULL)
        return with_libdeflate(decompressor, in, in_len, out, need, capacity, early, produced);
    return with_zlib(in, in_len, out, need, capacity, early, produced);
}
