#include "decode.h"

#include <stdlib.h>
#include <string.h>

#include "announced.h"
#include "fletcher32.h"
#include "inflate.h"
#include "locks.h"
#include "lzf.h"
#include "shuffle.h"

enum { FILTER_REVERSE = 0x0100 }; /* H5Z_FLAG_REVERSE: decode */

/* One step of the pipeline: what it reads and where it may write. */
typedef struct {
    const uint8_t *in;
    size_t in_len;
    uint8_t *out;
    size_t need;     /* output bytes that must be valid */
    size_t capacity; /* output bytes that may be written */
    size_t produced; /* result; the nominal size of the data where the step stopped early */
} step;

h5fast_status h5fast_buffer_reserve(h5fast_buffer *buffer, size_t bytes)
{
    if (buffer->bytes != NULL && bytes <= buffer->capacity)
        return H5FAST_OK;
    /* Chunks differ in their encoded size: with some to spare the next one that is a little larger fits too. What was there
     * is of no use, and goes first. */
    size_t roomy = bytes > 0 ? bytes + bytes / 8 : 1; /* also no bytes are somewhere: a damaged chunk may have none */
    free(buffer->bytes);
    buffer->bytes = malloc(roomy);
    buffer->capacity = buffer->bytes != NULL ? roomy : 0;
    return buffer->bytes != NULL ? H5FAST_OK : H5FAST_MEMORY;
}

static size_t checksums_below(const h5fast_storage *storage, uint32_t mask, int position)
{
    size_t count = 0;
    for (int i = 0; i < position; i++)
        count += !(mask >> i & 1) && storage->filters[i].id == H5FAST_FILTER_FLETCHER32;
    return count;
}

/* The most that any step may produce. Data between two compressors is at most a little larger than the chunk. */
static size_t intermediate_limit(const h5fast_storage *storage)
{
    return 2 * storage->chunk_bytes + H5FAST_INFLATE_MARGIN;
}

static int is_last(uint32_t mask, int position)
{
    return (~mask & ((1u << position) - 1)) == 0;
}

/* Is the size of this step's output known, because no filter below it changes sizes in an unknown way? */
static int size_is_known(const h5fast_storage *storage, uint32_t mask, int position)
{
    for (int i = 0; i < position; i++) {
        int id = storage->filters[i].id;
        if (!(mask >> i & 1) && id != H5FAST_FILTER_SHUFFLE && id != H5FAST_FILTER_FLETCHER32)
            return 0;
    }
    return 1;
}

static size_t shuffle_size(const h5fast_storage *storage, int position)
{
    const h5fast_filter *filter = &storage->filters[position];
    return filter->cd_nelmts > 0 ? filter->cd_values[0] : 0;
}

static h5fast_status run_inflate(h5fast_scratch *scratch, step *s, int early)
{
    if (scratch->decompressor == NULL && h5fast_inflate.alloc_decompressor != NULL) {
        scratch->decompressor = h5fast_inflate.alloc_decompressor();
        if (scratch->decompressor == NULL)
            return H5FAST_MEMORY;
    }
    size_t capacity = s->capacity;
    if (early && s->capacity - s->need > H5FAST_INFLATE_MARGIN)
        capacity = s->need + H5FAST_INFLATE_MARGIN;
    else
        early = 0;
    return h5fast_inflate_decode(scratch->decompressor, s->in, s->in_len, s->out, s->need, capacity, early,
                                 &s->produced);
}

/* Stops at `need` bytes where that is below the capacity. A stream that ends sooner has the size it has; the caller
 * decides whether enough is there. */
static h5fast_status run_decompressor(int id, h5fast_scratch *scratch, step *s)
{
    int early = s->need < s->capacity;
    h5fast_status status;
    if (id == H5FAST_FILTER_DEFLATE) {
        status = run_inflate(scratch, s, early);
    } else {
        size_t consumed = 0;
        status = h5fast_lzf_decode(s->in, s->in_len, s->out, s->need, s->capacity, &s->produced, &consumed);
        if (status == H5FAST_OK && !early && consumed != s->in_len)
            return H5FAST_CORRUPT; /* more output than the chunk holds */
    }
    return status == H5FAST_SHORT ? H5FAST_OK : status;
}

/* Plugins replace a malloc'd buffer; copied once in and once out, as their interface demands. */
static h5fast_status run_plugin(const h5fast_filter *filter, h5fast_buffer *target, size_t most, step *s)
{
    if (!h5fast_announces_sound(filter, s->in, s->in_len, most))
        return H5FAST_CORRUPT;
    size_t buffer_size = s->in_len;
    void *buffer = malloc(buffer_size > 0 ? buffer_size : 1);
    if (buffer == NULL)
        return H5FAST_MEMORY;
    memcpy(buffer, s->in, s->in_len);
    size_t size = filter->plugin(FILTER_REVERSE, filter->cd_nelmts, filter->cd_values, s->in_len, &buffer_size, &buffer);
    h5fast_status status = H5FAST_CORRUPT;
    /* On errors some plugins return a negative number as the size. */
    if (size != 0 && size <= buffer_size && size <= most && buffer != NULL) {
        status = h5fast_buffer_reserve(target, size);
        if (status == H5FAST_OK) {
            memcpy(target->bytes, buffer, size);
            s->produced = size;
        }
    }
    free(buffer);
    return status;
}

static void run_unshuffle(size_t size, h5fast_want want, int is_final, step *s)
{
    size_t elements = s->in_len / size, first = 0, count = elements;
    if (is_final) {
        first = want.first / size < elements ? want.first / size : elements;
        size_t last = want.end / size + (want.end % size != 0);
        count = (last < elements ? last : elements) - first;
    }
    h5fast_unshuffle(s->in, elements, size, first, count, s->out + first * size);
    memcpy(s->out + elements * size, s->in + elements * size, s->in_len - elements * size);
    s->produced = s->in_len;
}

typedef struct {
    const h5fast_storage *storage;
    h5fast_scratch *scratch;
    uint32_t mask;
    h5fast_want want;
    uint8_t *whole;
    int keep_planes;
    h5fast_decoded *result;
    int target; /* which decoded[] the next step writes */
} pipeline;

static h5fast_status place_output(pipeline *p, step *s, int is_final, size_t capacity)
{
    if (is_final && p->whole != NULL && capacity == p->storage->chunk_bytes) {
        s->out = p->whole;
        return H5FAST_OK;
    }
    h5fast_buffer *buffer = &p->scratch->decoded[p->target];
    h5fast_status status = h5fast_buffer_reserve(buffer, capacity);
    s->out = buffer->bytes;
    p->target ^= 1;
    return status;
}

static h5fast_status decompress(pipeline *p, int position, step *s)
{
    const h5fast_storage *storage = p->storage;
    int exact = size_is_known(storage, p->mask, position);
    size_t full = storage->chunk_bytes + 4 * checksums_below(storage, p->mask, position);
    if (exact) {
        /* Under a shuffle every byte is needed: where the planes lie depends on where the stream ends. */
        s->capacity = full;
        s->need = is_last(p->mask, position) ? p->want.end : full;
    } else {
        s->capacity = intermediate_limit(storage);
        s->need = s->capacity;
    }
    h5fast_status status = place_output(p, s, is_last(p->mask, position), s->capacity);
    return status == H5FAST_OK ? run_decompressor(storage->filters[position].id, p->scratch, s) : status;
}

static h5fast_status unshuffle(pipeline *p, int position, step *s, int *kept)
{
    size_t size = shuffle_size(p->storage, position);
    int is_final = is_last(p->mask, position);
    if (size == 0)
        return H5FAST_CORRUPT;
    if (size == 1 || s->in_len / size < 2) {
        s->out = (uint8_t *)s->in; /* no shuffle at all; nothing is written through it */
        s->produced = s->in_len;
        return H5FAST_OK;
    }
    if (is_final && p->keep_planes && p->storage->itemsize % size == 0 && p->want.end <= s->in_len / size * size) {
        p->result->planes = s->in;
        p->result->elements = s->in_len / size;
        p->result->element_size = size;
        *kept = 1;
        return H5FAST_OK;
    }
    h5fast_status status = place_output(p, s, is_final, s->in_len);
    if (status == H5FAST_OK)
        run_unshuffle(size, p->want, is_final, s);
    return status;
}

static h5fast_status run_step(pipeline *p, int position, step *s, int *kept)
{
    const h5fast_filter *filter = &p->storage->filters[position];
    if (filter->plugin != NULL) {
        h5fast_buffer *buffer = &p->scratch->decoded[p->target];
        h5fast_status status = run_plugin(filter, buffer, intermediate_limit(p->storage), s);
        s->out = buffer->bytes;
        p->target ^= 1;
        return status;
    }
    switch (filter->id) {
    case H5FAST_FILTER_FLETCHER32:
        s->out = (uint8_t *)s->in;
        return h5fast_fletcher32_check(s->in, s->in_len, &s->produced);
    case H5FAST_FILTER_SHUFFLE:
        return unshuffle(p, position, s, kept);
    default:
        return decompress(p, position, s);
    }
}

h5fast_status h5fast_decode_chunk(const h5fast_storage *storage, h5fast_scratch *scratch, const uint8_t *stored,
                                  uint64_t size, uint32_t mask, h5fast_want want, uint8_t *whole, int keep_planes,
                                  h5fast_decoded *result)
{
    pipeline p = {storage, scratch, mask, want, whole, keep_planes, result, 0};
    const uint8_t *bytes = stored;
    size_t length = size;
    int kept = 0;
    *result = (h5fast_decoded){NULL, NULL, 0, 0, 0};
    for (int position = storage->filter_count - 1; position >= 0 && !kept; position--) {
        if (mask >> position & 1)
            continue;
        step s = {bytes, length, NULL, 0, 0, 0};
        h5fast_status status = run_step(&p, position, &s, &kept);
        if (status != H5FAST_OK) {
            result->filter = storage->filters[position].id;
            return status;
        }
        bytes = s.out;
        length = s.produced;
    }
    if (kept)
        return H5FAST_OK;
    if (length < want.end)
        return H5FAST_SHORT;
    result->chunk = bytes;
    return H5FAST_OK;
}

static h5fast_scratch *free_list;
H5FAST_FORK_SAFE_LOCK(scratches, (void)0)

h5fast_scratch *h5fast_scratch_take(void)
{
    lock_scratches();
    h5fast_scratch *scratch = free_list;
    if (scratch != NULL)
        free_list = scratch->next;
    pthread_mutex_unlock(&scratches);
    return scratch != NULL ? scratch : calloc(1, sizeof *scratch);
}

/* A buffer above this is freed after the batch instead of being kept: one odd file must not hold memory for ever. */
static const size_t KEEP_BYTES = 64u << 20;

static void shrink(h5fast_buffer *buffer)
{
    if (buffer->capacity > KEEP_BYTES) {
        free(buffer->bytes);
        *buffer = (h5fast_buffer){NULL, 0};
    }
}

void h5fast_scratch_return(h5fast_scratch *scratch)
{
    shrink(&scratch->encoded);
    shrink(&scratch->decoded[0]);
    shrink(&scratch->decoded[1]);
    shrink(&scratch->staged);
    lock_scratches();
    scratch->next = free_list;
    free_list = scratch;
    pthread_mutex_unlock(&scratches);
}

static void destroy(h5fast_scratch *scratch)
{
    free(scratch->encoded.bytes);
    free(scratch->decoded[0].bytes);
    free(scratch->decoded[1].bytes);
    free(scratch->staged.bytes);
    if (scratch->decompressor != NULL)
        h5fast_inflate.free_decompressor(scratch->decompressor);
    free(scratch);
}

void h5fast_scratch_trim(void)
{
    lock_scratches();
    h5fast_scratch *scratch = free_list;
    free_list = NULL;
    pthread_mutex_unlock(&scratches);
    while (scratch != NULL) {
        h5fast_scratch *next = scratch->next;
        destroy(scratch);
        scratch = next;
    }
}

size_t h5fast_scratch_bytes(void)
{
    lock_scratches();
    size_t bytes = 0;
    for (h5fast_scratch *s = free_list; s != NULL; s = s->next)
        bytes += s->encoded.capacity + s->decoded[0].capacity + s->decoded[1].capacity + s->staged.capacity;
    pthread_mutex_unlock(&scratches);
    return bytes;
}
