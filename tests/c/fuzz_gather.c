/* Fuzz target of the engine behind a hostile index: whatever addresses, sizes and masks it claims for its chunks, and whatever bytes lie
 * there, nothing is read or written out of bounds, one thread and several come to the same end, and what is not wanted stays as it was.
 *
 * The selection is sound: that is its maker's part.
 */
#include "fuzz_filters.h"

#include "../../src/decode.h"
#include "../../src/gather.h"

enum { MOST_FUZZ_CHUNKS = 64, MOST_FUZZ_POINTS = 32, MARGIN = 64 };

typedef struct {
    h5fast_storage storage;
    h5fast_index index;
    h5fast_selection selection;
    h5fast_chunk chunks[MOST_FUZZ_CHUNKS];
    uint64_t numbers[MOST_FUZZ_CHUNKS];
    int64_t coords[MOST_FUZZ_POINTS];
    size_t out_bytes;
} fuzz_case;

static void take_storage(fuzz_input *in, fuzz_case *c)
{
    static const uint8_t fill[16] = "0123456789abcdef";
    h5fast_storage *s = &c->storage;
    uint64_t grid = 1, chunk = 1;
    take_filters(in, s);
    s->rank = 1 + (int)take_below(in, 3);
    s->itemsize = s->fill_bytes = 1 + take_below(in, 8);
    s->fill = fill;
    s->raw_edges = take_below(in, 4) == 0;
    for (int axis = 0; axis < s->rank; axis++) {
        s->chunk[axis] = 1 + take_below(in, axis == 0 ? 64 : 8);
        s->grid[axis] = 1 + take_below(in, MOST_FUZZ_CHUNKS / grid < 5 ? MOST_FUZZ_CHUNKS / grid : 5);
        s->shape[axis] = s->grid[axis] * s->chunk[axis] - take_below(in, s->chunk[axis]);
        grid *= s->grid[axis];
        chunk *= s->chunk[axis];
    }
    s->chunk_bytes = chunk * s->itemsize;
    c->index.count = grid;
}

/* Addresses, sizes and masks as they come: mostly about where bytes are, sometimes anywhere. */
static void take_index(fuzz_input *in, fuzz_case *c)
{
    uint64_t grid = c->index.count, kept = 0;
    c->index.kind = (h5fast_index_kind)take_below(in, 3);
    if (c->index.kind == H5FAST_INDEX_CONTIGUOUS) {
        c->index.base = take(in, take_below(in, 8) == 0 ? 8 : 1);
        c->storage.filter_count = c->storage.raw_edges = 0;
        for (int axis = 1; axis < c->storage.rank; axis++) { /* virtual chunks: whole but for the first axis */
            c->storage.chunk_bytes = c->storage.chunk_bytes / c->storage.chunk[axis] * c->storage.shape[axis];
            c->storage.chunk[axis] = c->storage.shape[axis];
            c->storage.grid[axis] = 1;
        }
        return;
    }
    for (uint64_t number = 0; number < grid; number++) {
        int wide = take_below(in, 16) == 0;
        h5fast_chunk chunk = {take(in, wide ? 8 : 2), take(in, wide ? 8 : 2), take_below(in, 8) == 0 ? (uint32_t)take(in, 1) : 0};
        if (c->index.kind == H5FAST_INDEX_DENSE || chunk.address != 0) {
            c->chunks[kept] = chunk;
            c->numbers[kept++] = number;
        }
    }
    c->index.count = kept;
    c->index.chunks = c->chunks;
    c->index.numbers = c->index.kind == H5FAST_INDEX_SORTED ? c->numbers : NULL;
}

static void take_selection(fuzz_input *in, fuzz_case *c)
{
    const h5fast_storage *s = &c->storage;
    h5fast_selection *p = &c->selection;
    uint64_t bytes = s->itemsize;
    int has_points = take_below(in, 2);
    p->point_count = has_points ? (int64_t)take_below(in, MOST_FUZZ_POINTS) : 1;
    for (int axis = s->rank - 1; axis >= 0; axis--) {
        if (axis == 0 && has_points) {
            p->coords[0] = c->coords;
            for (int64_t i = 0; i < p->point_count; i++)
                c->coords[i] = (int64_t)take_below(in, s->shape[0]);
            p->point_stride = (int64_t)bytes;
            bytes *= (uint64_t)p->point_count;
            continue;
        }
        p->start[axis] = (int64_t)take_below(in, s->shape[axis]);
        p->step[axis] = 1 + (int64_t)take_below(in, 3);
        p->count[axis] = 1 + (int64_t)take_below(in, (s->shape[axis] - 1 - (uint64_t)p->start[axis]) / (uint64_t)p->step[axis] + 1);
        p->out_stride[axis] = (int64_t)bytes;
        bytes *= (uint64_t)p->count[axis];
    }
    c->out_bytes = (size_t)bytes;
}

static h5fast_status gather(fuzz_case *c, h5fast_source *source, int threads, uint8_t *out)
{
    static h5fast_gather g;
    memset(&g, 0, sizeof g);
    g.storage = &c->storage, g.index = &c->index, g.selection = &c->selection, g.source = source, g.out = out + MARGIN, g.threads = threads;
    memset(out, 0xa5, c->out_bytes + 2 * MARGIN);
    h5fast_status status = h5fast_gather_begin(&g);
    if (status == H5FAST_OK) {
        while (!h5fast_gather_run(&g, 1))
            ;
        status = g.error.status;
    }
    h5fast_gather_end(&g);
    for (size_t i = 0; i < MARGIN; i++)
        if (out[i] != 0xa5 || out[MARGIN + c->out_bytes + i] != 0xa5)
            abort();
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fuzz_case c;
    fuzz_input in = {data, size};
    memset(&c, 0, sizeof c);
    take_storage(&in, &c);
    take_index(&in, &c);
    take_selection(&in, &c);
    uint8_t *bytes = take_rest(&in), *one = malloc(c.out_bytes + 2 * MARGIN), *many = malloc(c.out_bytes + 2 * MARGIN);
    if (one == NULL || many == NULL)
        abort();
    h5fast_source source;
    h5fast_source_of_memory(&source, bytes, in.size);
    h5fast_status alone = gather(&c, &source, 1, one), together = gather(&c, &source, 3, many);
    if (alone != together || (alone == H5FAST_OK && memcmp(one, many, c.out_bytes) != 0))
        abort();
    free(bytes);
    free(one);
    free(many);
    return 0;
}
