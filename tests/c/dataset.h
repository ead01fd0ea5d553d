/* For the C tests of the engine: datasets in a file, whole and random, reading them, and what that must give.
 *
 * A program has one dataset at a time: its bytes, its chunks, the output and what is expected of it are variables here.
 */
#ifndef H5FAST_TEST_DATASET_H
#define H5FAST_TEST_DATASET_H

#include "engine.h"

#include <errno.h>
#include <fcntl.h>

#include "../../src/gather.h"

enum { MOST_DATA = 2 << 20, MOST_FILE = 32 << 20, MOST_OUT = 4 << 20, MOST_CHUNKS = 40000, HEAD = 64 };

/* A dataset in a file: what it holds (data), as it is stored (file), and where (chunks). */
typedef struct {
    model m;
    h5fast_index index;
    size_t file_bytes;
    int present; /* chance of a chunk to be there, in percent */
} dataset;

static uint8_t data[MOST_DATA], file[MOST_FILE], chunk[MOST_DATA], stored[4 * MOST_DATA], spare[4 * MOST_DATA];
static uint8_t fill[MOST_DATA] __attribute__((aligned(8)));
static uint8_t out[MOST_OUT] __attribute__((aligned(8))), expected[MOST_OUT] __attribute__((aligned(8)));
static h5fast_chunk chunks[MOST_CHUNKS];
static uint64_t numbers[MOST_CHUNKS], order[MOST_CHUNKS];
static int descriptor, has_deflate;
static size_t gathers; /* that gave the right bytes */
static h5fast_kept *kept; /* decoded chunks of the dataset at hand; NULL: none are kept */

/* --- datasets -------------------------------------------------------------------------------------------------------- */

static inline void fill_data(size_t bytes)
{
    int calm = chance(50);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(calm ? i / 30 + chance(2) : random32());
}

static inline void grid_coordinates(const h5fast_storage *s, uint64_t number, uint64_t *coordinates)
{
    for (int axis = s->rank - 1; axis >= 0; axis--) {
        coordinates[axis] = number % s->grid[axis];
        number /= s->grid[axis];
    }
}

/* Copies a chunk out of the data; or, for one that is missing, fill values into the data. Returns 1 at an edge. */
static inline int cut_chunk(const model *m, uint64_t number, int missing)
{
    uint64_t coordinates[H5FAST_MAX_RANK], size = m->storage.itemsize;
    int edge = 0;
    grid_coordinates(&m->storage, number, coordinates);
    for (uint64_t i = 0; i < m->chunk_elements; i++) {
        uint64_t element = element_of(m, coordinates, i);
        if (element == UINT64_MAX)
            edge = 1;
        else if (missing)
            memcpy(data + element * size, fill, size);
        else
            memcpy(chunk + i * size, data + element * size, size);
    }
    return edge;
}

static inline size_t place_chunk(dataset *d, uint64_t number, size_t at)
{
    const h5fast_storage *s = &d->m.storage;
    if (!chance(d->present)) {
        cut_chunk(&d->m, number, 1);
        return at;
    }
    int edge = cut_chunk(&d->m, number, 0);
    uint32_t mask = chance(80) ? 0 : random32();
    size_t size = encode(s, s->raw_edges && edge ? UINT32_MAX : mask, chunk, (size_t)s->chunk_bytes, stored, spare);
    at += chance(70) ? 0 : random_below(6000);
    CHECK(at + size <= MOST_FILE, "the file is too large");
    memcpy(file + at, stored, size);
    chunks[number] = (h5fast_chunk){at, size, mask};
    return at + size;
}

static inline size_t place_chunks(dataset *d)
{
    size_t count = (size_t)d->m.chunk_count, at = HEAD;
    int shuffled = chance(50);
    memset(chunks, 0, count * sizeof *chunks);
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count - 1; i > 0 && shuffled; i--) {
        size_t j = random_below(i + 1);
        uint64_t swap = order[i];
        order[i] = order[j], order[j] = swap;
    }
    for (size_t i = 0; i < count; i++)
        at = place_chunk(d, order[i], at);
    return at;
}

static inline void index_chunks(dataset *d)
{
    d->index = (h5fast_index){H5FAST_INDEX_DENSE, d->m.chunk_count, chunks, NULL, 0};
    if (chance(50))
        return;
    size_t kept = 0;
    for (uint64_t number = 0; number < d->m.chunk_count; number++)
        if (chunks[number].address != 0) {
            chunks[kept] = chunks[number];
            numbers[kept++] = number;
        }
    d->index = (h5fast_index){H5FAST_INDEX_SORTED, kept, chunks, numbers, 0};
}

static inline void write_file(const dataset *d)
{
    CHECK(ftruncate(descriptor, 0) == 0, "ftruncate");
    for (size_t done = 0; done < d->file_bytes;) {
        ssize_t wrote = pwrite(descriptor, file + done, d->file_bytes - done, (off_t)done);
        CHECK(wrote > 0, "pwrite: %s", strerror(errno));
        done += (size_t)wrote;
    }
}

/* Stores the dataset whose model is ready: contiguous, or in chunks with the model's filters. */
static inline void store(dataset *d, int contiguous)
{
    h5fast_storage *s = &d->m.storage;
    size_t bytes = (size_t)(d->m.elements * s->itemsize);
    for (size_t i = 0; i < s->itemsize; i++)
        fill[i] = (uint8_t)random32();
    s->fill = fill;
    fill_data(bytes);
    if (contiguous) {
        cut_contiguous_chunks(&d->m);
        s->filter_count = 0;
        d->index = (h5fast_index){H5FAST_INDEX_CONTIGUOUS, 0, NULL, NULL, HEAD + random_below(5000)};
        d->file_bytes = (size_t)d->index.base + bytes;
        memcpy(file + d->index.base, data, bytes);
    } else {
        d->file_bytes = place_chunks(d);
        index_chunks(d);
    }
    write_file(d);
}

static inline void random_dataset(dataset *d)
{
    static const uint64_t sizes[] = {1, 2, 3, 4, 8, 16, 40, 5000, 20000};
    uint64_t itemsize = sizes[random_below(chance(10) ? 9 : 7)];
    do {
        random_storage(&d->m, itemsize);
    } while (d->m.elements * d->m.storage.itemsize > MOST_DATA || d->m.storage.chunk_bytes > MOST_DATA ||
             d->m.chunk_count * d->m.storage.chunk_bytes > MOST_FILE / 4);
    d->present = chance(50) ? 100 : 75;
    if (chance(70))
        random_filters(&d->m.storage, (unsigned)d->m.storage.itemsize, has_deflate);
    d->m.storage.raw_edges = chance(30);
    store(d, chance(25));
    if (d->m.storage.rank < MOST_RANK - 1 && d->m.storage.itemsize > 1 && d->m.storage.itemsize < 100 && chance(25))
        split_elements(&d->m);
}

/* --- gathers ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    h5fast_source *source;
    const h5fast_cast *cast;
    uint8_t *out;
    int threads;
    double slice; /* seconds; each is twice as long as the one before */
} how;

static inline void set_gather(h5fast_gather *g, const dataset *d, how h)
{
    memset(g, 0, sizeof *g);
    g->storage = &d->m.storage;
    g->index = &d->index;
    g->selection = &d->m.selection;
    g->source = h.source;
    g->cast = h.cast;
    g->kept = kept;
    g->out = h.out + d->m.out_before;
    g->threads = h.threads;
}

static inline h5fast_error gather(const dataset *d, how h)
{
    h5fast_gather g;
    set_gather(&g, d, h);
    h5fast_status status = h5fast_gather_begin(&g);
    while (status == H5FAST_OK && !h5fast_gather_run(&g, h.slice))
        h.slice *= 2;
    if (status != H5FAST_OK)
        g.error.status = status;
    h5fast_gather_end(&g);
    return g.error;
}

static inline void expect_element(void *context, uint64_t element, int64_t to)
{
    const dataset *d = context;
    uint64_t size = d->m.storage.itemsize;
    memcpy(expected + d->m.out_before + to, data + element * size, size);
}

static inline void expect(dataset *d)
{
    memset(expected, 0xa5, d->m.out_bytes);
    visit_selection(&d->m, expect_element, d);
}

static inline void select_some(dataset *d)
{
    do {
        random_selection(&d->m, chance(10) ? MOST_POINTS : 12);
    } while (d->m.out_bytes > MOST_OUT);
    expect(d);
}

static inline h5fast_error gather_afresh(const dataset *d, how h)
{
    memset(h.out, 0xa5, d->m.out_bytes);
    return gather(d, h);
}

static inline void check_gather(const dataset *d, how h)
{
    h5fast_error e = gather_afresh(d, h);
    CHECK(e.status == H5FAST_OK, "status %d of filter %d, errno %d, %d threads", e.status, e.filter, e.sys_errno, h.threads);
    CHECK(memcmp(h.out, expected, d->m.out_bytes) == 0, "output differs, %d threads", h.threads);
    gathers++;
}

static inline how some_way(h5fast_source *source)
{
    static const double slices[] = {1e-5, 1e-3, 10};
    return (how){source, NULL, out, 1 + (int)random_below(8), slices[random_below(3)]};
}

/* Makes the file that the datasets are written to, and that nobody else sees. `deflate`: what decodes it, or NULL. */
static inline void open_test_file(const char *deflate)
{
    char path[4096];
    const char *folder = getenv("TMPDIR");
    has_deflate = deflate != NULL;
    snprintf(path, sizeof path, "%s/h5fast-test-XXXXXX", folder != NULL ? folder : "/tmp");
    descriptor = mkstemp(path);
    CHECK(descriptor >= 0, "%s: %s", path, strerror(errno));
    unlink(path);
}

#endif
