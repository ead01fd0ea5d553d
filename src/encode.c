#include "encode.h"

#include <stdlib.h>
#include <string.h>

#include "fletcher32.h"
#include "shuffle.h"

/* How far a chunk has come on its way through the pipeline. */
typedef struct {
    const h5fast_storage *storage;
    h5fast_encode_scratch *scratch;
    const uint8_t *chunk;
    const uint8_t *bytes; /* what the next filter is given */
    size_t length;
    uint8_t *out;
    int compressed; /* compressors that were applied */
    uint32_t mask;
} passage;

void h5fast_encode_scratch_clear(h5fast_encode_scratch *scratch)
{
    free(scratch->steps[0].bytes);
    free(scratch->steps[1].bytes);
    h5fast_deflate_clear(&scratch->deflate);
    memset(scratch, 0, sizeof *scratch);
}

static int is_compressor(const h5fast_filter *filter)
{
    return filter->id != H5FAST_FILTER_SHUFFLE && filter->id != H5FAST_FILTER_FLETCHER32;
}

size_t h5fast_encode_bound(const h5fast_storage *storage)
{
    size_t bound = storage->chunk_bytes;
    for (int i = 0; i < storage->filter_count; i++)
        bound += storage->filters[i].id == H5FAST_FILTER_FLETCHER32 ? 4 : 0;
    return bound;
}

/* A buffer that the present bytes do not lie in. `last` steps write where the caller wants the chunk. */
static h5fast_status place(passage *p, int last, uint8_t **to)
{
    if (last && p->bytes != p->out) {
        *to = p->out;
        return H5FAST_OK;
    }
    h5fast_buffer *buffer = &p->scratch->steps[p->bytes == p->scratch->steps[0].bytes];
    h5fast_status status = h5fast_buffer_reserve(buffer, h5fast_encode_bound(p->storage));
    *to = buffer->bytes;
    return status;
}

static int level_of(const h5fast_filter *filter)
{
    int level = filter->cd_nelmts > 0 ? (int)filter->cd_values[0] : 6;
    return level >= 0 && level <= 9 ? level : 6;
}

/* Plugins replace a malloc'd buffer; copied once in and once out, as their interface demands. */
static h5fast_status run_plugin(const h5fast_filter *filter, passage *p, uint8_t *to, size_t *written)
{
    size_t buffer_size = p->length;
    void *buffer = malloc(buffer_size > 0 ? buffer_size : 1);
    if (buffer == NULL)
        return H5FAST_MEMORY;
    memcpy(buffer, p->bytes, p->length);
    size_t size = filter->plugin(0, filter->cd_nelmts, filter->cd_values, p->length, &buffer_size, &buffer);
    *written = 0;
    if (size != 0 && size < p->length && size <= buffer_size && buffer != NULL) {
        memcpy(to, buffer, size);
        *written = size;
    }
    free(buffer);
    return H5FAST_OK;
}

static h5fast_status compress(passage *p, int position, int last)
{
    const h5fast_filter *filter = &p->storage->filters[position];
    uint8_t *to;
    size_t written = 0, capacity = p->length > 0 ? p->length - 1 : 0; /* what is not smaller is left as it is */
    h5fast_status status = place(p, last, &to);
    if (status != H5FAST_OK)
        return status;
    if (filter->plugin != NULL) {
        status = run_plugin(filter, p, to, &written);
    } else if (filter->id == H5FAST_FILTER_LZF) {
        written = h5fast_lzf_encode(&p->scratch->table, p->bytes, p->length, to, capacity);
    } else {
        status = h5fast_deflate_encode(&p->scratch->deflate, level_of(filter), p->bytes, p->length, to, capacity, &written);
    }
    if (status != H5FAST_OK)
        return status;
    if (written == 0) {
        p->mask |= 1u << position;
        return H5FAST_OK;
    }
    p->bytes = to;
    p->length = written;
    p->compressed++;
    return H5FAST_OK;
}

static h5fast_status shuffle(passage *p, const h5fast_filter *filter)
{
    size_t size = filter->cd_nelmts > 0 ? filter->cd_values[0] : 0;
    uint8_t *to;
    if (size == 0)
        return H5FAST_CORRUPT;
    if (size == 1 || p->length / size < 2)
        return H5FAST_OK; /* no shuffle at all */
    h5fast_status status = place(p, 0, &to);
    if (status != H5FAST_OK)
        return status;
    size_t elements = p->length / size, whole = elements * size;
    h5fast_shuffle(p->bytes, elements, size, to);
    memcpy(to + whole, p->bytes + whole, p->length - whole);
    p->bytes = to;
    return H5FAST_OK;
}

static h5fast_status checksum(passage *p)
{
    uint8_t *to = (uint8_t *)p->bytes;
    uint32_t sum = h5fast_fletcher32(p->bytes, p->length);
    if (p->bytes == p->chunk) { /* the caller's: not to be written to */
        h5fast_status status = place(p, 1, &to);
        if (status != H5FAST_OK)
            return status;
        memcpy(to, p->bytes, p->length);
        p->bytes = to;
    }
    for (int byte = 0; byte < 4; byte++)
        to[p->length + byte] = (uint8_t)(sum >> 8 * byte);
    p->length += 4;
    return H5FAST_OK;
}

/* Is every filter behind this one a checksum, which is added in place? */
static int ends_with(const h5fast_storage *storage, int position)
{
    for (int i = position + 1; i < storage->filter_count; i++)
        if (storage->filters[i].id != H5FAST_FILTER_FLETCHER32)
            return 0;
    return 1;
}

static h5fast_status pass(passage *p, int with_shuffle)
{
    for (int position = 0; position < p->storage->filter_count; position++) {
        const h5fast_filter *filter = &p->storage->filters[position];
        h5fast_status status = H5FAST_OK;
        if (filter->id == H5FAST_FILTER_FLETCHER32)
            status = checksum(p);
        else if (filter->id != H5FAST_FILTER_SHUFFLE)
            status = with_shuffle ? compress(p, position, ends_with(p->storage, position)) : H5FAST_OK;
        else if (with_shuffle)
            status = shuffle(p, filter);
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static uint32_t all_but_checksums(const h5fast_storage *storage)
{
    uint32_t mask = 0;
    for (int i = 0; i < storage->filter_count; i++)
        if (storage->filters[i].id != H5FAST_FILTER_FLETCHER32)
            mask |= 1u << i;
    return mask;
}

static int has_compressor(const h5fast_storage *storage)
{
    for (int i = 0; i < storage->filter_count; i++)
        if (is_compressor(&storage->filters[i]))
            return 1;
    return 0;
}

h5fast_status h5fast_encode_chunk(const h5fast_storage *storage, h5fast_encode_scratch *scratch, const uint8_t *chunk,
                                  uint8_t *out, const uint8_t **bytes, size_t *size, uint32_t *mask)
{
    passage p = {storage, scratch, chunk, chunk, storage->chunk_bytes, out, 0, 0};
    h5fast_status status = pass(&p, 1);
    if (status == H5FAST_OK && p.compressed == 0 && has_compressor(storage)) {
        /* Nothing was gained: stored as they are, rows are copied when they are read and nothing is undone. */
        p = (passage){storage, scratch, chunk, chunk, storage->chunk_bytes, out, 0, all_but_checksums(storage)};
        status = pass(&p, 0);
    }
    if (status != H5FAST_OK)
        return status;
    if (p.bytes != chunk && p.bytes != out) {
        memcpy(out, p.bytes, p.length);
        p.bytes = out;
    }
    *bytes = p.bytes;
    *size = p.length;
    *mask = p.mask;
    return H5FAST_OK;
}
