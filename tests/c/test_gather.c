/* The engine, end to end on files it reads, and on files, disks and memory that let it down.
 *
 * Prevents: wrong bytes for some layout, selection, filter or number of threads; a crash, a leak, a hang or a silent
 * wrong answer when a read fails, memory runs out, the file shrinks under its mapping, or its index lies.
 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "../../src/box.h"
#include "../../src/decode.h"
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
static size_t gathers, failures;

/* --- allocations that fail, and are counted -------------------------------------------------------------------------- */

static _Atomic long live, allocations;
static _Atomic long refused; /* number of the allocation that fails; 0: none does */

static int refuse(void)
{
    return atomic_fetch_add(&allocations, 1) + 1 == atomic_load(&refused);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *old);

static void *counted(void *made)
{
    atomic_fetch_add(&live, made != NULL);
    return made;
}

void *__wrap_malloc(size_t size) { return refuse() ? NULL : counted(__real_malloc(size)); }
void *__wrap_calloc(size_t count, size_t size) { return refuse() ? NULL : counted(__real_calloc(count, size)); }

void *__wrap_realloc(void *old, size_t size)
{
    if (refuse())
        return NULL;
    void *made = __real_realloc(old, size);
    return old == NULL ? counted(made) : made;
}

void __wrap_free(void *old)
{
    atomic_fetch_sub(&live, old != NULL);
    __real_free(old);
}

static h5fast_inflate_api library; /* as it was found; the engine gets functions that may fail */

static void *alloc_decompressor(void) { return refuse() ? NULL : counted(library.alloc_decompressor()); }

static void free_decompressor(void *old)
{
    atomic_fetch_sub(&live, 1);
    library.free_decompressor(old);
}

static int inflate_init(void *stream, const char *version, int size)
{
    return refuse() ? -4 : library.inflate_init(stream, version, size);
}

static const char *find_failing_deflate(void)
{
    const char *name = find_deflate();
    library = h5fast_inflate;
    h5fast_inflate.inflate_init = inflate_init;
    if (library.alloc_decompressor != NULL) {
        h5fast_inflate.alloc_decompressor = alloc_decompressor;
        h5fast_inflate.free_decompressor = free_decompressor;
    }
    return name;
}

/* --- datasets -------------------------------------------------------------------------------------------------------- */

static void fill_data(size_t bytes)
{
    int calm = chance(50);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(calm ? i / 30 + chance(2) : random32());
}

static void grid_coordinates(const h5fast_storage *s, uint64_t number, uint64_t *coordinates)
{
    for (int axis = s->rank - 1; axis >= 0; axis--) {
        coordinates[axis] = number % s->grid[axis];
        number /= s->grid[axis];
    }
}

/* Copies a chunk out of the data; or, for one that is missing, fill values into the data. Returns 1 at an edge. */
static int cut_chunk(const model *m, uint64_t number, int missing)
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

static size_t place_chunk(dataset *d, uint64_t number, size_t at)
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

static size_t place_chunks(dataset *d)
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

static void index_chunks(dataset *d)
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

static void write_file(const dataset *d)
{
    CHECK(ftruncate(descriptor, 0) == 0, "ftruncate");
    for (size_t done = 0; done < d->file_bytes;) {
        ssize_t wrote = pwrite(descriptor, file + done, d->file_bytes - done, (off_t)done);
        CHECK(wrote > 0, "pwrite: %s", strerror(errno));
        done += (size_t)wrote;
    }
}

/* Stores the dataset whose model is ready: contiguous, or in chunks with the model's filters. */
static void store(dataset *d, int contiguous)
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

static void random_dataset(dataset *d)
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

static h5fast_error gather(const dataset *d, how h)
{
    h5fast_gather g;
    memset(&g, 0, sizeof g);
    g.storage = &d->m.storage;
    g.index = &d->index;
    g.selection = &d->m.selection;
    g.source = h.source;
    g.cast = h.cast;
    g.out = h.out + d->m.out_before;
    g.threads = h.threads;
    h5fast_status status = h5fast_gather_begin(&g);
    while (status == H5FAST_OK && !h5fast_gather_run(&g, h.slice))
        h.slice *= 2;
    if (status != H5FAST_OK)
        g.error.status = status;
    h5fast_gather_end(&g);
    return g.error;
}

static void expect_element(void *context, uint64_t element, int64_t to)
{
    const dataset *d = context;
    uint64_t size = d->m.storage.itemsize;
    memcpy(expected + d->m.out_before + to, data + element * size, size);
}

static void expect(dataset *d)
{
    memset(expected, 0xa5, d->m.out_bytes);
    visit_selection(&d->m, expect_element, d);
}

static void select_some(dataset *d)
{
    do {
        random_selection(&d->m, chance(10) ? MOST_POINTS : 12);
    } while (d->m.out_bytes > MOST_OUT);
    expect(d);
}

static h5fast_error gather_afresh(const dataset *d, how h)
{
    memset(h.out, 0xa5, d->m.out_bytes);
    return gather(d, h);
}

static void check_gather(const dataset *d, how h)
{
    h5fast_error e = gather_afresh(d, h);
    CHECK(e.status == H5FAST_OK, "status %d of filter %d, errno %d, %d threads", e.status, e.filter, e.sys_errno, h.threads);
    CHECK(memcmp(h.out, expected, d->m.out_bytes) == 0, "output differs, %d threads", h.threads);
    gathers++;
}

static how some_way(h5fast_source *source)
{
    static const double slices[] = {1e-5, 1e-3, 10};
    return (how){source, NULL, out, 1 + (int)random_below(8), slices[random_below(3)]};
}

/* The file's pages leave memory, where the file system lets them. */
static void chill(void)
{
    fdatasync(descriptor);
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
}

static void test_random_datasets(void)
{
    static dataset d;
    for (int round = 0, end = rounds(2500); round < end; round++) {
        h5fast_source source;
        random_dataset(&d);
        int memory = chance(20);
        if (chance(5))
            chill();
        if (memory)
            h5fast_source_of_memory(&source, file, d.file_bytes);
        else
            CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        for (int i = 0; i < 8; i++) {
            select_some(&d);
            check_gather(&d, some_way(&source));
        }
        if (!memory)
            h5fast_source_close(&source);
    }
}

/* More chunks than one window of the engine's plan. */
static void test_many_chunks(void)
{
    static dataset d;
    h5fast_source source;
    memset(&d, 0, sizeof d);
    d.present = 90;
    d.m.storage.rank = 2;
    d.m.storage.itemsize = 4;
    d.m.storage.shape[0] = 190, d.m.storage.shape[1] = 200;
    d.m.storage.chunk[0] = d.m.storage.chunk[1] = 1;
    complete_storage(&d.m);
    store(&d, 0);
    CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
    d.m.selection = (h5fast_selection){.count = {190, 200}, .step = {1, 1}, .point_count = 1};
    lay_out(&d.m);
    expect(&d);
    for (int threads = 1; threads <= 8; threads++)
        check_gather(&d, (how){&source, NULL, out, threads, 1e-4});
    h5fast_source_close(&source);
}

/* --- casts, against plain C ------------------------------------------------------------------------------------------- */

#define READ(KIND, TYPE)                                                                                               \
    case KIND: {                                                                                                       \
        TYPE value;                                                                                                    \
        memcpy(&value, bytes, sizeof value);                                                                           \
        return (OUT)value;                                                                                             \
    }
#define DEFINE_REFERENCE(NAME)                                                                                         \
    static OUT NAME##_of(h5fast_kind kind, const uint8_t *bytes)                                                       \
    {                                                                                                                  \
        switch (kind) {                                                                                                \
            READ(H5FAST_I8, int8_t) READ(H5FAST_U8, uint8_t) READ(H5FAST_I16, int16_t) READ(H5FAST_U16, uint16_t)      \
            READ(H5FAST_I32, int32_t) READ(H5FAST_U32, uint32_t) READ(H5FAST_I64, int64_t)                             \
            READ(H5FAST_U64, uint64_t) READ(H5FAST_F32, float) READ(H5FAST_F64, double)                                \
        default: abort();                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void NAME##_element(const h5fast_cast *cast, h5fast_kind kind, const uint8_t *bytes, uint64_t c, uint8_t *to) \
    {                                                                                                                  \
        volatile OUT value = NAME##_of(kind, bytes); /* volatile: two operations, two roundings */                     \
        if (cast->scale != NULL)                                                                                       \
            value = value * ((const OUT *)cast->scale)[c];                                                             \
        if (cast->offset != NULL)                                                                                      \
            value = value + ((const OUT *)cast->offset)[c];                                                            \
        OUT result = value;                                                                                            \
        memcpy(to, &result, sizeof result);                                                                            \
    }
#define OUT float
DEFINE_REFERENCE(f32)
#undef OUT
#define OUT double
DEFINE_REFERENCE(f64)
#undef OUT

static const uint64_t kind_sizes[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};

typedef struct {
    h5fast_cast cast;
    h5fast_kind from, to;
    int swapped;
    uint64_t out_size; /* of one element */
    float factors32[2][8];
    double factors64[2][8];
} cast_case;

/* A dataset of rows, whole in their chunks, and a list of them. */
static void row_dataset(dataset *d, cast_case *c, uint64_t itemsize)
{
    do {
        random_storage(&d->m, itemsize);
    } while (d->m.storage.rank == 0);
    h5fast_storage *s = &d->m.storage;
    s->shape[s->rank - 1] = 1 + random_below(8);
    for (int axis = 1; axis < s->rank; axis++)
        s->chunk[axis] = s->shape[axis];
    complete_storage(&d->m);
    d->present = 90;
    random_filters(s, (unsigned)itemsize, has_deflate);
    store(d, 0);
    c->cast.elements = d->m.elements / s->shape[0];
    c->cast.channels = chance(40) || s->rank == 1 ? 1 : s->shape[s->rank - 1];
    c->cast.channels_first = chance(50);
    c->cast.itemsize = itemsize;
    h5fast_selection *p = &d->m.selection;
    memset(p, 0, sizeof *p);
    random_points(&d->m, 0, 1 + random_below(50));
    int64_t stride = (int64_t)itemsize; /* as if the row were copied: what a cast makes of it is the cast's affair */
    for (int axis = s->rank - 1; axis > 0; axis--) {
        p->count[axis] = (int64_t)s->shape[axis], p->step[axis] = 1, p->out_stride[axis] = stride;
        stride *= p->count[axis];
    }
    p->point_stride = (int64_t)(c->cast.elements * c->out_size);
    d->m.out_bytes = (uint64_t)(p->point_stride * p->point_count);
    d->m.out_before = chance(30) ? (p->point_count - 1) * p->point_stride : 0;
    if (d->m.out_before > 0)
        p->point_stride = -p->point_stride;
}

static void choose_cast(cast_case *c)
{
    memset(c, 0, sizeof *c);
    c->from = (h5fast_kind)random_below(H5FAST_RAW);
    c->to = chance(20) ? H5FAST_RAW : chance(50) ? H5FAST_F32 : H5FAST_F64;
    c->swapped = chance(50);
    c->out_size = c->to == H5FAST_RAW ? kind_sizes[c->from] : c->to == H5FAST_F32 ? 4 : 8;
    for (int i = 0; i < 16; i++) {
        c->factors64[i / 8][i % 8] = ((double)random32() - 2e9) / 7e8;
        c->factors32[i / 8][i % 8] = (float)c->factors64[i / 8][i % 8];
    }
    for (int i = 0; i < 2; i++) {
        const void *factors = c->to == H5FAST_F32 ? (void *)c->factors32[i] : (void *)c->factors64[i];
        *(i == 0 ? &c->cast.scale : &c->cast.offset) = c->to != H5FAST_RAW && chance(60) ? factors : NULL;
    }
}

static void expect_row(const dataset *d, const cast_case *c, int64_t point)
{
    const h5fast_cast *cast = &c->cast;
    uint64_t pixels = cast->elements / cast->channels, size = cast->itemsize;
    const uint8_t *row = data + (uint64_t)d->m.coords[0][point] * cast->elements * size;
    uint8_t *to = expected + d->m.out_before + point * d->m.selection.point_stride;
    for (uint64_t i = 0; i < cast->elements; i++) {
        uint64_t channel = i % cast->channels, at = cast->channels_first ? channel * pixels + i / cast->channels : i;
        uint8_t bytes[8];
        for (uint64_t k = 0; k < size; k++)
            bytes[k] = row[i * size + (c->swapped && c->to != H5FAST_RAW ? size - 1 - k : k)];
        if (c->to == H5FAST_RAW)
            memcpy(to + at * size, bytes, size);
        else if (c->to == H5FAST_F32)
            f32_element(cast, c->from, bytes, channel, to + at * 4);
        else
            f64_element(cast, c->from, bytes, channel, to + at * 8);
    }
}

/* NaNs need not agree in their payload. */
static int same_values(const cast_case *c, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += c->out_size) {
        if (memcmp(out + at, expected + at, c->out_size) == 0)
            continue;
        float a, b;
        double x, y;
        memcpy(&a, out + at, 4), memcpy(&b, expected + at, 4);
        memcpy(&x, out + at, c->out_size), memcpy(&y, expected + at, c->out_size);
        if (c->to == H5FAST_RAW || !(c->to == H5FAST_F32 ? isnan(a) && isnan(b) : isnan(x) && isnan(y)))
            return 0;
    }
    return 1;
}

/* A cast from a kind below `kinds`, a dataset for it, and what is expected. */
static void random_rows(dataset *d, cast_case *c, h5fast_kind kinds)
{
    do {
        choose_cast(c);
    } while (c->from >= kinds);
    row_dataset(d, c, kind_sizes[c->from]);
    if (c->to == H5FAST_RAW)
        c->cast.channels_first = 1;
    CHECK(h5fast_cast_choose(&c->cast, c->from, c->swapped, c->to), "no kernel from %d to %d", c->from, c->to);
    CHECK(h5fast_gather_can_cast(&d->m.storage, &d->m.selection), "rows are not whole");
    memset(expected, 0xa5, d->m.out_bytes);
    for (int64_t point = 0; point < d->m.selection.point_count; point++)
        expect_row(d, c, point);
}

static void test_casts(void)
{
    static dataset d;
    for (int round = 0, end = rounds(2500); round < end; round++) {
        h5fast_source source;
        cast_case c;
        random_rows(&d, &c, H5FAST_RAW);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        how h = some_way(&source);
        h.cast = &c.cast;
        h5fast_error e = gather_afresh(&d, h);
        CHECK(e.status == H5FAST_OK, "status %d", e.status);
        CHECK(same_values(&c, d.m.out_bytes), "from %d to %d, swapped %d, %llu channels, first %d", c.from, c.to, c.swapped,
              (unsigned long long)c.cast.channels, c.cast.channels_first);
        h5fast_source_close(&source);
        gathers++;
    }
}

/* --- several gathers at once, cancelled ones, forks -------------------------------------------------------------------- */

enum { READERS = 4 };
static _Atomic int stop;

typedef struct {
    dataset *d;
    how h;
} reader;

static void *read_until_stopped(void *context)
{
    const reader *r = context;
    while (!atomic_load(&stop)) {
        h5fast_error e = gather_afresh(r->d, r->h);
        CHECK(e.status == H5FAST_OK, "status %d", e.status);
        CHECK(memcmp(r->h.out, expected, r->d->m.out_bytes) == 0, "output differs");
    }
    return NULL;
}

static void fork_and_read(reader *r)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        if (UNDER_SANITIZER)
            _exit(0);
        for (int i = 0; i < 3; i++)
            check_gather(r->d, r->h);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child: 0x%x", (unsigned)status);
}

/* Readers share a source, its mapping and the pool; meanwhile this thread forks, or cancels gathers of its own. */
static void test_together(void)
{
    static dataset d;
    static uint8_t outs[READERS][1 << 18];
    for (int round = 0, end = rounds(60); round < end; round++) {
        h5fast_source source;
        pthread_t threads[READERS];
        reader readers[READERS];
        do {
            random_dataset(&d);
            select_some(&d);
        } while (d.m.out_bytes > sizeof outs[0] || d.m.out_bytes < 1000);
        CHECK(h5fast_source_open(&source, descriptor, chance(70)) == H5FAST_OK, "open");
        atomic_store(&stop, 0);
        for (int i = 0; i < READERS; i++) {
            readers[i] = (reader){&d, {&source, NULL, outs[i], 1 + (int)random_below(4), 1e-3}};
            CHECK(pthread_create(&threads[i], NULL, read_until_stopped, &readers[i]) == 0, "thread");
        }
        reader mine = {&d, {&source, NULL, out, 4, 1}};
        for (int i = 0; i < 5; i++)
            fork_and_read(&mine);
        atomic_store(&stop, 1);
        for (int i = 0; i < READERS; i++)
            pthread_join(threads[i], NULL);
        h5fast_source_close(&source);
    }
}

static void test_cancel(void)
{
    static dataset d;
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        h5fast_gather g;
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        memset(&g, 0, sizeof g);
        g.storage = &d.m.storage, g.index = &d.index, g.selection = &d.m.selection;
        g.source = &source, g.out = out + d.m.out_before, g.threads = 1 + (int)random_below(4);
        CHECK(h5fast_gather_begin(&g) == H5FAST_OK, "begin");
        int done = chance(80) && h5fast_gather_run(&g, 1e-6);
        h5fast_gather_cancel(&g);
        while (!done)
            done = h5fast_gather_run(&g, 1);
        CHECK(g.error.status == H5FAST_CANCELLED, "status %d", g.error.status);
        h5fast_gather_end(&g);
        check_gather(&d, some_way(&source));
        h5fast_source_close(&source);
    }
}

/* --- reads that fail --------------------------------------------------------------------------------------------------- */

typedef enum { EIO_ONCE, EIO_FROM, END_ONCE, END_FROM, INTERRUPTED, SHORT_ONCE, SHORT_FROM, FAULTS } fault_kind;

static struct {
    fault_kind kind;
    int at;            /* number of the read it happens to, or starts with */
    _Atomic int reads; /* so far */
} fault;

static ssize_t failing_pread(int fd, void *buffer, size_t count, off_t offset)
{
    int read = atomic_fetch_add(&fault.reads, 1) + 1;
    int every = fault.kind == EIO_FROM || fault.kind == END_FROM || fault.kind == SHORT_FROM;
    if (every ? read < fault.at : read != fault.at)
        return pread(fd, buffer, count, offset);
    switch (fault.kind) {
    case EIO_ONCE: case EIO_FROM: errno = EIO; return -1;
    case END_ONCE: case END_FROM: return 0;
    case INTERRUPTED: errno = EINTR; return -1;
    default: return pread(fd, buffer, 1 + (size_t)read * 2654435761u % count % 5000, offset);
    }
}

/* The status may be OK where the engine tries chunks one by one after a read of several failed; then the bytes are right. */
static void check_fault(const dataset *d, how h)
{
    h5fast_error e = gather_afresh(d, h);
    int reached = atomic_load(&fault.reads) >= fault.at;
    int is_io = fault.kind == EIO_ONCE || fault.kind == EIO_FROM, is_end = fault.kind == END_ONCE || fault.kind == END_FROM;
    int must = reached && (fault.kind == EIO_FROM || fault.kind == END_FROM);
    h5fast_status bad = is_io ? H5FAST_READ : is_end ? H5FAST_TRUNCATED : H5FAST_OK;
    CHECK(e.status == bad || (e.status == H5FAST_OK && !must), "fault %d at read %d: status %d", fault.kind, fault.at,
          e.status);
    if (e.status == H5FAST_OK)
        CHECK(memcmp(h.out, expected, d->m.out_bytes) == 0, "fault %d at read %d: output differs", fault.kind, fault.at);
    else
        CHECK(e.address >= HEAD && e.sys_errno == (is_io ? EIO : 0), "errno %d", e.sys_errno);
    failures += e.status != H5FAST_OK;
}

static void fail_each_read(const dataset *d, h5fast_source *source)
{
    for (fault.kind = 0; fault.kind < FAULTS; fault.kind++)
        for (fault.at = 1;; fault.at += 1 + fault.at / 8) {
            h5fast_scratch_trim();
            long before = atomic_load(&live);
            atomic_store(&fault.reads, 0);
            h5fast_pread = failing_pread;
            check_fault(d, (how){source, NULL, out, 1 + fault.at % 3, 10});
            h5fast_pread = pread;
            int reads = atomic_load(&fault.reads);
            h5fast_scratch_trim();
            CHECK(atomic_load(&live) == before, "%ld allocations leak", atomic_load(&live) - before);
            check_gather(d, (how){source, NULL, out, 2, 10});
            if (reads < fault.at)
                break;
        }
}

static void test_failing_reads(void)
{
    static dataset d;
    for (int round = 0, end = rounds(100); round < end; round++) {
        h5fast_source source;
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, 0) == H5FAST_OK, "open");
        fail_each_read(&d, &source);
        h5fast_source_close(&source);
    }
}

/* --- memory that runs out ---------------------------------------------------------------------------------------------- */

static h5fast_error open_and_gather(const dataset *d, int map, how h)
{
    h5fast_source source;
    CHECK(h5fast_source_open(&source, descriptor, map) == H5FAST_OK, "open");
    h.source = &source;
    h5fast_error e = gather_afresh(d, h);
    h5fast_source_close(&source);
    return e;
}

static void fail_each_allocation(const dataset *d, int map, how h)
{
    h5fast_scratch_trim();
    long before = atomic_load(&live), made, at = 1;
    do {
        atomic_store(&allocations, 0);
        atomic_store(&refused, at);
        h5fast_error e = open_and_gather(d, map, h);
        made = atomic_load(&allocations);
        atomic_store(&refused, 0);
        /* What a helper or a common read has no memory for may be done by others, or chunk by chunk. */
        CHECK(e.status == H5FAST_MEMORY || e.status == H5FAST_OK, "allocation %ld: status %d", at, e.status);
        if (e.status == H5FAST_OK)
            CHECK(memcmp(out, expected, d->m.out_bytes) == 0, "allocation %ld: output differs", at);
        h5fast_scratch_trim();
        CHECK(atomic_load(&live) == before, "allocation %ld: %ld leak", at, atomic_load(&live) - before);
        e = open_and_gather(d, map, h);
        CHECK(e.status == H5FAST_OK && memcmp(out, expected, d->m.out_bytes) == 0, "after it: status %d", e.status);
        failures += made >= at;
        h5fast_scratch_trim(); /* so that the next gather needs all of its memory again */
    } while (made >= at && (at += 1 + at / 16, 1));
}

static void test_failing_allocations(void)
{
    static dataset d;
    for (int round = 0, end = rounds(200); round < end; round++) {
        how h = {NULL, NULL, out, chance(50) ? 1 : 4, 10};
        cast_case c;
        if (chance(30)) {
            random_rows(&d, &c, H5FAST_F32); /* no NaNs, which may differ in their payload */
            h.cast = &c.cast;
        } else {
            random_dataset(&d);
            select_some(&d);
        }
        fail_each_allocation(&d, chance(50), h);
    }
}

/* --- an index that lies, bytes that are damaged ------------------------------------------------------------------------ */

/* Does the selection touch a chunk that the file cannot hold, or, of those marked, which lies first? */
static uint64_t look_at_jobs(const dataset *d, const uint8_t *marked, int *impossible)
{
    h5fast_plan plan;
    h5fast_box box;
    uint64_t coordinates[H5FAST_MAX_RANK], first = UINT64_MAX;
    CHECK(h5fast_plan_make(&plan, &d->m.storage, &d->m.selection) == H5FAST_OK, "plan");
    for (uint64_t job = 0; job < plan.job_count; job++) {
        uint64_t number = h5fast_plan_locate(&plan, job, coordinates);
        h5fast_chunk c = h5fast_index_find(&d->m.storage, &d->index, number, coordinates);
        h5fast_box_make(&box, &plan, coordinates);
        if (box.empty || c.address == 0)
            continue;
        if (c.size > d->file_bytes || c.address > d->file_bytes - c.size)
            *impossible = 1;
        if (marked != NULL && marked[number] && c.address < first)
            first = c.address;
    }
    h5fast_plan_free(&plan);
    return first;
}

static uint64_t wild_number(uint64_t near)
{
    static const uint64_t special[] = {0, 1, 1u << 31, (uint64_t)1 << 32, (uint64_t)1 << 62, (uint64_t)1 << 63};
    switch (random_below(4)) {
    case 0: return special[random_below(6)] - random_below(2);
    case 1: return 0 - (uint64_t)random_below(10000);
    case 2: return near + random_below(5) - 2;
    default: return (uint64_t)random32() << 32 | random32();
    }
}

static void lie(dataset *d)
{
    for (int i = 0, lies = 1 + (int)random_below(4); i < lies; i++) {
        h5fast_chunk *c = &chunks[random_below((size_t)d->index.count)];
        if (chance(60))
            c->address = wild_number(chance(50) ? d->file_bytes : c->address);
        if (chance(60))
            c->size = wild_number(chance(50) ? d->file_bytes : c->size);
        if (chance(50)) /* a neighbour whose own record is fine, right behind the lie, were it true */
            chunks[random_below((size_t)d->index.count)] = (h5fast_chunk){c->address + c->size + random_below(3), 10, 0};
        if (chance(20)) /* a size that wraps around to the next chunk */
            *c = (h5fast_chunk){chunks[random_below((size_t)d->index.count)].address, 0 - (uint64_t)random_below(4096), 0};
    }
}

static void test_lying_index(void)
{
    static dataset d;
    for (int round = 0, end = rounds(20000); round < end; round++) {
        h5fast_source source;
        if (round % 8 == 0)
            do {
                random_dataset(&d);
            } while (d.index.count == 0 || d.file_bytes > 100000);
        h5fast_chunk kept[2048];
        size_t bytes = (size_t)d.index.count * sizeof *kept;
        CHECK(bytes <= sizeof kept, "%zu chunks", (size_t)d.index.count);
        memcpy(kept, chunks, bytes);
        select_some(&d);
        lie(&d);
        int impossible = 0;
        look_at_jobs(&d, NULL, &impossible);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status <= H5FAST_CHECKSUM || e.status == H5FAST_TRUNCATED, "status %d", e.status);
        CHECK(!impossible || e.status != H5FAST_OK, "a chunk that the file cannot hold was read");
        CHECK(e.status != H5FAST_TRUNCATED || e.filter == 0, "filter %d is blamed", e.filter);
        memcpy(chunks, kept, bytes);
        check_gather(&d, some_way(&source));
        h5fast_source_close(&source);
    }
}

/* An unfiltered chunk whose record says that it is shorter than it has to be, though the file goes on behind it. */
static void test_short_raw_chunks(void)
{
    static dataset d;
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        random_storage(&d.m, 4);
        d.present = 100;
        store(&d, 0);
        h5fast_chunk *shorter = &chunks[random_below((size_t)d.m.chunk_count)];
        shorter->size = random_below(4);
        d.m.selection = (h5fast_selection){.point_count = 1};
        for (int axis = 0; axis < d.m.storage.rank; axis++)
            d.m.selection.count[axis] = (int64_t)d.m.storage.shape[axis], d.m.selection.step[axis] = 1;
        lay_out(&d.m);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status == H5FAST_SHORT && e.address == shorter->address, "status %d", e.status);
        h5fast_source_close(&source);
    }
}

static void note_element(void *context, uint64_t element, int64_t to)
{
    (void)element, (void)to;
    *(int *)context = 1;
}

/* A contiguous dataset that begins behind the end of the file, or so far on that adding to it wraps around. */
static void test_lying_base(void)
{
    static dataset d;
    for (int round = 0, end = rounds(3000); round < end; round++) {
        h5fast_source source;
        if (round % 30 == 0)
            do {
                random_dataset(&d);
            } while (d.index.kind != H5FAST_INDEX_CONTIGUOUS);
        select_some(&d);
        int selected = 0;
        visit_selection(&d.m, note_element, &selected);
        uint64_t base = d.index.base;
        d.index.base = chance(30) ? d.file_bytes + random_below(5) : 0 - (uint64_t)(1 + random_below(2 * d.file_bytes));
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status == (selected ? H5FAST_TRUNCATED : H5FAST_OK), "status %d", e.status);
        h5fast_source_close(&source);
        d.index.base = base;
    }
}

/* Of several damaged chunks the one that lies first is reported, by any number of threads. */
static void test_damaged_chunks(void)
{
    static dataset d;
    static uint8_t marked[MOST_CHUNKS];
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        do {
            random_storage(&d.m, 200); /* enough bytes to be worth several threads */
        } while (d.m.storage.chunk_bytes > 5000 || d.m.elements < 100);
        d.present = 90;
        random_filters(&d.m.storage, 8, has_deflate);
        d.m.storage.filters[d.m.storage.filter_count++] = (h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL};
        store(&d, 0);
        select_some(&d);
        memset(marked, 0, d.m.chunk_count);
        for (size_t i = 0; i < d.index.count; i++)
            if (chunks[i].address != 0 && chunks[i].mask >> (d.m.storage.filter_count - 1) == 0 && chance(20)) {
                marked[d.index.kind == H5FAST_INDEX_SORTED ? numbers[i] : i] = 1;
                file[chunks[i].address + random_below((size_t)chunks[i].size)] ^= 1;
            }
        write_file(&d);
        int impossible = 0;
        uint64_t first = look_at_jobs(&d, marked, &impossible);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        for (int threads = 1; threads <= 8; threads++) {
            h5fast_error e = gather_afresh(&d, (how){&source, NULL, out, threads, 1e-4});
            CHECK(e.status == (first == UINT64_MAX ? H5FAST_OK : H5FAST_CHECKSUM), "status %d", e.status);
            CHECK(e.status == H5FAST_OK || e.address == first, "%d threads: chunk at %llu, not %llu", threads,
                  (unsigned long long)e.address, (unsigned long long)first);
        }
        h5fast_source_close(&source);
    }
}

/* --- a file that shrinks under its mapping ------------------------------------------------------------------------------ */

static _Thread_local sigjmp_buf foreign_place;
static _Atomic int foreign_seen;

static void on_foreign(int number)
{
    (void)number;
    atomic_fetch_add(&foreign_seen, 1);
    siglongjmp(foreign_place, 1);
}

static void on_foreign_info(int number, siginfo_t *info, void *context)
{
    (void)context;
    CHECK(info->si_addr != NULL, "no address");
    on_foreign(number);
}

static void install_foreign(int with_info)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = with_info ? SA_SIGINFO : 0;
    if (with_info)
        action.sa_sigaction = on_foreign_info;
    else
        action.sa_handler = on_foreign;
    CHECK(sigaction(SIGBUS, &action, NULL) == 0, "sigaction");
}

static void check_foreign_installed(int with_info)
{
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now);
    CHECK(with_info ? now.sa_sigaction == on_foreign_info : now.sa_handler == on_foreign, "our handler stays installed");
}

static const volatile uint8_t *page_without_file; /* touching it raises SIGBUS */
static volatile uint8_t touched;                  /* what is read is used: valgrind drops other loads */

static void make_page_without_file(void)
{
    FILE *empty = tmpfile();
    CHECK(empty != NULL, "tmpfile");
    page_without_file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(empty), 0);
    CHECK(page_without_file != MAP_FAILED, "mmap");
    fclose(empty);
}

/* Returns 1 where the fault came to the handler that was there before ours. */
static int foreign_fault(void)
{
    int before = atomic_load(&foreign_seen);
    if (sigsetjmp(foreign_place, 1) == 0)
        touched = *page_without_file;
    return atomic_load(&foreign_seen) == before + 1;
}

static void *foreign_faults(void *unused)
{
    while (!atomic_load(&stop)) {
        CHECK(foreign_fault(), "a SIGBUS that is not ours did not reach its handler");
        usleep(10); /* under valgrind threads run one at a time, and this one would be it */
    }
    return unused;
}

static struct {
    _Atomic int armed;
    size_t new_size;
    int delay; /* loops between the start of the gather and the truncation */
} truncation;

static void *truncate_when_armed(void *unused)
{
    while (!atomic_load(&stop)) {
        if (!atomic_load(&truncation.armed))
            continue;
        for (volatile int i = 0; i < truncation.delay; i = i + 1)
            ;
        CHECK(ftruncate(descriptor, (off_t)truncation.new_size) == 0, "ftruncate");
        atomic_store(&truncation.armed, 0);
    }
    return unused;
}

static ssize_t counting_pread(int fd, void *buffer, size_t count, off_t offset)
{
    atomic_fetch_add(&fault.reads, 1);
    return pread(fd, buffer, count, offset);
}

/* Counts, in caught, gathers that met the end of the file in the mapping: no read of theirs could have told. */
static void truncate_once(const dataset *d, size_t *caught)
{
    h5fast_source source;
    write_file(d);
    CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
    how h = {&source, NULL, out, 1 + (int)random_below(4), 1};
    check_gather(d, h); /* from here on all of the file counts as resident */
    truncation.new_size = random_below(d->file_bytes);
    truncation.delay = (int)random_below(1 << random_below(18));
    atomic_store(&fault.reads, 0);
    atomic_store(&truncation.armed, 1);
    h5fast_error e = gather_afresh(d, h);
    while (atomic_load(&truncation.armed))
        sched_yield();
    CHECK(e.status == H5FAST_OK || e.status == H5FAST_TRUNCATED || e.status == H5FAST_CORRUPT, "status %d", e.status);
    CHECK(h5fast_source_changed(&source) == (int64_t)truncation.new_size, "the change is not noticed");
    *caught += e.status == H5FAST_TRUNCATED && atomic_load(&fault.reads) == 0;
    failures += e.status != H5FAST_OK;
    h5fast_source_close(&source);
}

/* The file is bytes without filters, so a page of zeros behind its end passes: the caller asks h5fast_source_changed. */
static size_t truncate_often(int filtered, int times)
{
    static dataset d;
    static unsigned size = 4;
    size_t caught = 0;
    memset(&d, 0, sizeof d);
    d.present = 100;
    d.m.storage.rank = 2;
    d.m.storage.itemsize = 4;
    d.m.storage.shape[0] = 64, d.m.storage.shape[1] = 1024;
    d.m.storage.chunk[0] = 2, d.m.storage.chunk[1] = 1024;
    d.m.storage.filter_count = filtered;
    d.m.storage.filters[0] = (h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &size};
    complete_storage(&d.m);
    store(&d, 0);
    d.m.selection = (h5fast_selection){.count = {64, 1024}, .step = {1, 1}, .point_count = 1};
    lay_out(&d.m);
    expect(&d);
    for (int i = 0; i < times; i++)
        truncate_once(&d, &caught);
    return caught;
}

static void test_truncation(void)
{
    pthread_t truncator, faulter;
    size_t caught = 0;
    h5fast_pread = counting_pread;
    for (int with_info = 0; with_info < 2; with_info++) {
        install_foreign(with_info);
        atomic_store(&stop, 0);
        CHECK(pthread_create(&truncator, NULL, truncate_when_armed, NULL) == 0, "thread");
        caught += truncate_often(with_info, rounds(1500));
        int seen = atomic_load(&foreign_seen);
        CHECK(seen == 0 || with_info, "%d faults of ours reached another handler", seen);
        CHECK(pthread_create(&faulter, NULL, foreign_faults, NULL) == 0, "thread");
        truncate_often(!with_info, rounds(300));
        atomic_store(&stop, 1);
        pthread_join(truncator, NULL);
        pthread_join(faulter, NULL);
        check_foreign_installed(with_info);
    }
    h5fast_pread = pread;
    printf("gather: %zu mappings lost their pages in mid-gather; %d faults of others passed on\n", caught,
           atomic_load(&foreign_seen));
}

/* A gather is under way and this thread is not inside it: its faults go where they went before. */
static void test_fault_between_slices(void)
{
    for (int with_info = 0; with_info < 2; with_info++) {
        static dataset d;
        h5fast_source source;
        h5fast_gather g;
        install_foreign(with_info);
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
        memset(&g, 0, sizeof g);
        g.storage = &d.m.storage, g.index = &d.index, g.selection = &d.m.selection;
        g.source = &source, g.out = out + d.m.out_before, g.threads = 2;
        alarm(30); /* a handler that returns from a fault meets it again, for ever */
        CHECK(h5fast_gather_begin(&g) == H5FAST_OK && foreign_fault(), "the fault did not reach its handler");
        while (!h5fast_gather_run(&g, 10))
            ;
        CHECK(foreign_fault(), "the fault did not reach its handler");
        h5fast_gather_end(&g);
        alarm(0);
        check_foreign_installed(with_info);
        h5fast_source_close(&source);
    }
}

/* With a gather begun and nobody else to take the signal, a fault that is not ours ends the process, as without us. */
static void test_fault_without_handler(void)
{
    void (*const before[])(int) = {SIG_DFL, SIG_IGN};
    for (int i = 0; i < 2; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            static dataset d;
            h5fast_source source;
            h5fast_gather g;
            signal(SIGBUS, before[i]);
            signal(SIGALRM, SIG_DFL);
            alarm(5);
            random_dataset(&d);
            CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
            memset(&g, 0, sizeof g);
            g.storage = &d.m.storage, g.index = &d.index, g.selection = &d.m.selection, g.source = &source, g.out = out;
            CHECK(h5fast_gather_begin(&g) == H5FAST_OK, "begin");
            _exit(*page_without_file);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%s: status 0x%x", i ? "ignored" : "default",
              (unsigned)status);
    }
}

int main(void)
{
    char path[4096];
    const char *folder = getenv("TMPDIR"), *name = find_failing_deflate();
    has_deflate = name != NULL;
    snprintf(path, sizeof path, "%s/h5fast-test-XXXXXX", folder != NULL ? folder : "/tmp");
    descriptor = mkstemp(path);
    CHECK(descriptor >= 0, "%s: %s", path, strerror(errno));
    unlink(path);
    make_page_without_file();
    test_random_datasets();
    test_many_chunks();
    test_casts();
    test_together();
    test_cancel();
    test_failing_reads();
    test_failing_allocations();
    test_lying_index();
    test_lying_base();
    test_short_raw_chunks();
    test_damaged_chunks();
    if (!UNDER_THREAD_SANITIZER) {
        test_truncation();
        test_fault_between_slices();
        test_fault_without_handler();
    }
    h5fast_scratch_trim();
    printf("gather: deflate by %s; %zu gathers right, %zu failed as they had to: ok\n", name != NULL ? name : "nobody",
           gathers, failures);
}
