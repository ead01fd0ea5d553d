#include "deflate.h"

#include <limits.h>

h5fast_deflate_api h5fast_deflate;

enum { Z_OK = 0 };

size_t h5fast_deflate_encode(void *compressor, int level, const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity)
{
    if (compressor != NULL)
        return h5fast_deflate.zlib_compress(compressor, in, in_len, out, capacity);
    if (in_len > ULONG_MAX)
        return 0;
    unsigned long out_len = capacity > ULONG_MAX ? ULONG_MAX : (unsigned long)capacity;
    int result = h5fast_deflate.compress2(out, &out_len, in, (unsigned long)in_len, level);
    return result == Z_OK ? (size_t)out_len : 0;
}
