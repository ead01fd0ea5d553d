/* Fuzz target of the filter pipeline: no stored bytes, under no pipeline and mask, make it read or write beyond its buffers, give more
 * bytes than a chunk has, or decode differently when only a part is wanted.
 */
#include "fuzz_filters.h"

#include "../../src/decode.h"

/* The wanted bytes, however the decoder hands them over. */
static void wanted_bytes(const h5fast_decoded *found, h5fast_want want, uint8_t *to)
{
    for (uint64_t at = want.first; at < want.end; at++) {
        uint64_t element = found->element_size ? at / found->element_size : 0, byte = found->element_size ? at % found->element_size : 0;
        uint64_t shuffled = found->elements * found->element_size;
        to[at - want.first] = found->chunk != NULL ? found->chunk[at]
                              : at < shuffled      ? found->planes[byte * found->elements + element]
                                                   : found->planes[at];
    }
}

static h5fast_status decode(const h5fast_storage *storage, const uint8_t *stored, size_t size, uint32_t mask, h5fast_want want,
                            int in_place, int keep_planes, uint8_t *to)
{
    h5fast_decoded found;
    memset(&found, 0, sizeof found);
    h5fast_scratch *scratch = h5fast_scratch_take();
    uint8_t *whole = in_place ? malloc((size_t)storage->chunk_bytes) : NULL;
    if (scratch == NULL || (in_place && whole == NULL))
        abort();
    h5fast_status status = h5fast_decode_chunk(storage, scratch, stored, size, mask, want, whole, keep_planes, &found);
    if (status == H5FAST_OK) {
        if (found.chunk == NULL && found.planes == NULL)
            abort();
        wanted_bytes(&found, want, to);
    }
    free(whole);
    h5fast_scratch_return(scratch);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    h5fast_storage storage;
    memset(&storage, 0, sizeof storage);
    take_filters(&in, &storage);
    storage.rank = 1;
    storage.itemsize = 1 + take_below(&in, 16);
    storage.chunk[0] = storage.shape[0] = 1 + take_below(&in, 4096);
    storage.grid[0] = 1;
    storage.chunk_bytes = storage.chunk[0] * storage.itemsize;
    uint32_t mask = take_below(&in, 4) == 0 ? (uint32_t)take(&in, 1) : 0;
    uint64_t a = take_below(&in, 65536) % storage.chunk_bytes, b = take_below(&in, 65536) % storage.chunk_bytes;
    h5fast_want part = {a < b ? a : b, (a < b ? b : a) + 1}, all = {0, storage.chunk_bytes};
    uint8_t *stored = take_rest(&in), *first = malloc((size_t)storage.chunk_bytes), *second = malloc((size_t)storage.chunk_bytes);
    if (first == NULL || second == NULL)
        abort();
    h5fast_status whole = decode(&storage, stored, in.size, mask, all, 0, 0, first);
    if (decode(&storage, stored, in.size, mask, all, 1, 0, second) != whole || (whole == H5FAST_OK && memcmp(first, second, all.end) != 0))
        abort();
    if (decode(&storage, stored, in.size, mask, all, 0, 1, second) != whole || (whole == H5FAST_OK && memcmp(first, second, all.end) != 0))
        abort();
    h5fast_status some = decode(&storage, stored, in.size, mask, part, 0, 1, second);
    if (whole == H5FAST_OK && (some != H5FAST_OK || memcmp(first + part.first, second, part.end - part.first) != 0))
        abort();
    free(stored);
    free(first);
    free(second);
    return 0;
}
