/* For the C tests of the engine: random datasets and selections, what reading them must give, and encoders. */
#ifndef H5FAST_TEST_ENGINE_H
#define H5FAST_TEST_ENGINE_H

#include <dlfcn.h>

#include "guard.h"

#include "../../src/fletcher32.h"
#include "../../src/inflate.h"
#include "../../src/plan.h"

/* Under the thread sanitizer a signal handler cannot be left by a jump: it blocks all signals around handlers. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#elif __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
enum { UNDER_THREAD_SANITIZER = 1 };
#else
enum { UNDER_THREAD_SANITIZER = 0 };
#endif

/* The sanitizers' own locks do not survive the fork of a process with threads: their children cannot allocate, or cannot
 * start threads. */
#ifdef __SANITIZE_ADDRESS__
enum { UNDER_SANITIZER = 1 };
#else
enum { UNDER_SANITIZER = UNDER_THREAD_SANITIZER };
#endif

/* `full` rounds, or 1/H5FAST_TEST_SHARE of them: what runs under valgrind or a sanitizer is that much slower. */
static inline int rounds(int full)
{
    const char *share = getenv("H5FAST_TEST_SHARE");
    int part = share != NULL ? full / atoi(share) : full;
    return part > 0 ? part : 1;
}

static inline int chance(int percent) { return random_below(100) < (size_t)percent; }

/* --- a random dataset's shape, and a random selection of it --------------------------------------------------------- */

enum { MOST_RANK = 6, MOST_POINTS = 400 };

typedef struct {
    h5fast_storage storage;
    h5fast_selection selection;
    int64_t coords[MOST_RANK][MOST_POINTS];
    uint64_t elements, chunk_elements, chunk_count;
    int by_bytes;       /* the last axis runs over the bytes of an element, as when a field is read */
    int64_t out_before; /* bytes of the output in front of what `out` points to */
    uint64_t out_bytes; /* all of them */
} model;

/* Derives what follows from shape, chunk and itemsize. */
static inline void complete_storage(model *m)
{
    h5fast_storage *s = &m->storage;
    m->elements = m->chunk_elements = m->chunk_count = 1;
    for (int axis = 0; axis < s->rank; axis++) {
        s->grid[axis] = (s->shape[axis] + s->chunk[axis] - 1) / s->chunk[axis];
        m->elements *= s->shape[axis];
        m->chunk_elements *= s->chunk[axis];
        m->chunk_count *= s->grid[axis];
    }
    s->chunk_bytes = m->chunk_elements * s->itemsize;
    s->fill_bytes = s->itemsize;
}

static inline void random_storage(model *m, uint64_t itemsize)
{
    static const size_t longest[MOST_RANK] = {1, 300, 30, 10, 6, 4};
    memset(m, 0, sizeof *m);
    h5fast_storage *s = &m->storage;
    s->rank = (int)random_below(MOST_RANK);
    s->itemsize = itemsize;
    for (int axis = 0; axis < s->rank; axis++) {
        s->shape[axis] = 1 + random_below(longest[s->rank]);
        size_t extent = (size_t)s->shape[axis], how = random_below(4);
        s->chunk[axis] = how == 0 ? 1 : how == 1 ? extent : 1 + random_below(extent + (how == 2 ? 2 : 0));
    }
    complete_storage(m);
}

/* Contiguous data in virtual chunks: extent 1 on the leading axes, some length on one, all of those behind it. */
static inline void cut_contiguous_chunks(model *m)
{
    h5fast_storage *s = &m->storage;
    int cut = s->rank > 0 ? (int)random_below((size_t)s->rank) : 0;
    for (int axis = 0; axis < s->rank; axis++)
        s->chunk[axis] = axis < cut ? 1 : axis > cut ? s->shape[axis] : 1 + random_below((size_t)s->shape[axis]);
    complete_storage(m);
}

/* The same dataset with the bytes of an element as a last axis. */
static inline void split_elements(model *m)
{
    h5fast_storage *s = &m->storage;
    s->shape[s->rank] = s->chunk[s->rank] = s->itemsize;
    s->rank++;
    s->itemsize = 1;
    complete_storage(m);
    s->fill_bytes = s->chunk[s->rank - 1];
    m->by_bytes = 1;
}

static inline void random_range(model *m, int axis)
{
    h5fast_selection *p = &m->selection;
    size_t extent = (size_t)m->storage.shape[axis];
    int whole = chance(40), is_bytes = m->by_bytes && axis == m->storage.rank - 1;
    p->start[axis] = whole ? 0 : (int64_t)random_below(extent);
    p->step[axis] = whole || is_bytes || chance(50) ? 1 : 1 + (int64_t)random_below(extent);
    size_t most = (extent - 1 - (size_t)p->start[axis]) / (size_t)p->step[axis] + 1;
    p->count[axis] = whole ? (int64_t)extent : 1 + (int64_t)random_below(most);
    if (chance(1))
        p->count[axis] = 0;
}

static inline void random_points(model *m, int axis, size_t count)
{
    int ascending = chance(30);
    m->selection.coords[axis] = m->coords[axis];
    m->selection.point_count = (int64_t)count;
    for (size_t i = 0; i < count; i++) {
        size_t extent = (size_t)m->storage.shape[axis];
        m->coords[axis][i] = (int64_t)(ascending ? i * (extent - 1) / count : random_below(extent));
    }
}

/* Gives the output's dimensions (the points, the range axes) strides of either sign, in any order, with gaps or without. */
static inline void lay_out(model *m)
{
    h5fast_selection *p = &m->selection;
    int64_t *strides[MOST_RANK + 1];
    uint64_t counts[MOST_RANK + 1], size = m->storage.itemsize;
    int dims = 0, natural = chance(50);
    strides[dims] = &p->point_stride;
    counts[dims++] = (uint64_t)p->point_count;
    for (int axis = 0; axis < m->storage.rank; axis++)
        if (p->coords[axis] == NULL) {
            strides[dims] = &p->out_stride[axis];
            counts[dims++] = (uint64_t)p->count[axis];
        }
    int fixed = m->by_bytes ? dims - 1 : dims; /* an element's bytes stay together */
    for (int i = fixed - 1; i > 0 && !natural; i--) {
        int j = (int)random_below((size_t)i + 1);
        int64_t *stride = strides[i];
        uint64_t count = counts[i];
        strides[i] = strides[j], counts[i] = counts[j];
        strides[j] = stride, counts[j] = count;
    }
    m->out_before = 0;
    for (int i = dims - 1; i >= 0; i--) {
        int plain = natural || i >= fixed;
        *strides[i] = !plain && chance(40) ? -(int64_t)size : (int64_t)size;
        if (*strides[i] < 0 && counts[i] > 0)
            m->out_before += (int64_t)size * (int64_t)(counts[i] - 1);
        size = size * (counts[i] > 0 ? counts[i] : 1) + (plain ? 0 : random_below(3) * m->storage.itemsize);
    }
    m->out_bytes = size;
}

static inline void random_selection(model *m, size_t most_points)
{
    h5fast_selection *p = &m->selection;
    int last = m->storage.rank - 1, points = (int)random_below(3);
    size_t count = chance(2) ? 0 : 1 + random_below(most_points);
    memset(p, 0, sizeof *p);
    p->point_count = 1;
    for (int axis = 0; axis <= last; axis++)
        if (points > 0 && chance(50) && !(m->by_bytes && axis == last))
            random_points(m, axis, count);
        else
            random_range(m, axis);
    lay_out(m);
}

typedef void (*visitor)(void *context, uint64_t element, int64_t to);

static inline void visit_axis(const model *m, int axis, int64_t point, uint64_t element, int64_t to, visitor visit,
                              void *context)
{
    const h5fast_selection *p = &m->selection;
    if (axis == m->storage.rank) {
        visit(context, element, to);
        return;
    }
    element *= m->storage.shape[axis];
    if (p->coords[axis] != NULL) {
        visit_axis(m, axis + 1, point, element + (uint64_t)p->coords[axis][point], to, visit, context);
        return;
    }
    for (int64_t i = 0; i < p->count[axis]; i++)
        visit_axis(m, axis + 1, point, element + (uint64_t)(p->start[axis] + i * p->step[axis]),
                   to + i * p->out_stride[axis], visit, context);
}

/* Every selected element, one by one: its row-major number in the dataset, and its byte offset from `out`. */
static inline void visit_selection(const model *m, visitor visit, void *context)
{
    for (int64_t point = 0; point < m->selection.point_count; point++)
        visit_axis(m, 0, point, 0, point * m->selection.point_stride, visit, context);
}

/* Row-major number, in the dataset, of element `within` of the chunk at these grid coordinates; UINT64_MAX beyond it. */
static inline uint64_t element_of(const model *m, const uint64_t *coordinates, uint64_t within)
{
    const h5fast_storage *s = &m->storage;
    uint64_t element = 0, stride = 1;
    for (int axis = s->rank - 1; axis >= 0; axis--) {
        uint64_t at = coordinates[axis] * s->chunk[axis] + within % s->chunk[axis];
        if (at >= s->shape[axis])
            return UINT64_MAX;
        within /= s->chunk[axis];
        element += at * stride;
        stride *= s->shape[axis];
    }
    return element;
}

/* --- encoders, all of them able to write what they are given into 2 * len + 64 bytes --------------------------------- */

enum { FILTER_XOR = 40000 }; /* a plugin of these tests: every byte xor 0x5a */

typedef int (*compress2_function)(uint8_t *out, unsigned long *out_len, const uint8_t *in, unsigned long len, int level);
static compress2_function compress2_found;

/* zlib from libz.so.1 into *api; 0 where there is none. */
static inline int find_zlib(h5fast_inflate_api *api)
{
    void *library = dlopen("libz.so.1", RTLD_NOW);
    if (library == NULL)
        return 0;
    *(void **)&api->inflate_init = dlsym(library, "inflateInit_");
    *(void **)&api->inflate = dlsym(library, "inflate");
    *(void **)&api->inflate_end = dlsym(library, "inflateEnd");
    *(void **)&compress2_found = dlsym(library, "compress2");
    return api->inflate_init != NULL && api->inflate != NULL && api->inflate_end != NULL;
}

/* libdeflate from the path in H5FAST_DEFLATE_SO into *api; 0 where that is not set. */
static inline int find_libdeflate(h5fast_inflate_api *api)
{
    const char *path = getenv("H5FAST_DEFLATE_SO");
    void *library = path != NULL && *path != 0 ? dlopen(path, RTLD_NOW) : NULL;
    CHECK(path == NULL || *path == 0 || library != NULL, "%s", dlerror());
    if (library == NULL)
        return 0;
    *(void **)&api->alloc_decompressor = dlsym(library, "libdeflate_alloc_decompressor");
    *(void **)&api->free_decompressor = dlsym(library, "libdeflate_free_decompressor");
    *(void **)&api->zlib_decompress_ex = dlsym(library, "libdeflate_zlib_decompress_ex");
    CHECK(api->alloc_decompressor != NULL && api->zlib_decompress_ex != NULL, "%s", path);
    return 1;
}

/* Fills h5fast_inflate with what there is, libdeflate first; its name, or NULL. */
static inline const char *find_deflate(void)
{
    int zlib = find_zlib(&h5fast_inflate);
    return find_libdeflate(&h5fast_inflate) ? "libdeflate" : zlib ? "zlib" : NULL;
}

static inline size_t encode_stored(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t at = 0;
    uint32_t low = 1, high = 0;
    out[at++] = 0x78, out[at++] = 0x01;
    for (size_t done = 0, part; done == 0 || done < len; done += part ? part : 1) {
        part = len - done < 65535 ? len - done : 65535;
        out[at++] = done + part == len;
        out[at++] = (uint8_t)part, out[at++] = (uint8_t)(part >> 8);
        out[at++] = (uint8_t)~part, out[at++] = (uint8_t)(~part >> 8);
        memcpy(out + at, in + done, part);
        at += part;
    }
    for (size_t i = 0; i < len; i++)
        low = (low + in[i]) % 65521, high = (high + low) % 65521;
    for (int shift = 24; shift >= 0; shift -= 8)
        out[at++] = (uint8_t)((high << 16 | low) >> shift);
    return at;
}

static inline size_t encode_deflate(const uint8_t *in, size_t len, uint8_t *out)
{
    unsigned long size = 2 * len + 64;
    if (compress2_found == NULL || chance(20))
        return encode_stored(in, len, out);
    CHECK(compress2_found(out, &size, in, len, (int)random_below(10)) == 0, "compress2, %zu bytes", len);
    return size;
}

/* Literals, and references to the byte before where that repeats. */
static inline size_t encode_lzf(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t at = 0, literals = 0, head = 0;
    for (size_t i = 0; i < len;) {
        size_t same = 0;
        while (i > 0 && same < 8 && i + same < len && in[i + same] == in[i - 1])
            same++;
        if (same >= 3) {
            out[at++] = (uint8_t)((same - 2) << 5);
            out[at++] = 0;
            i += same;
            literals = 0;
            continue;
        }
        if (literals == 0)
            head = at++;
        out[head] = (uint8_t)literals;
        out[at++] = in[i++];
        literals = (literals + 1) % 32;
    }
    return at;
}

static inline size_t encode_shuffle(const uint8_t *in, size_t len, size_t size, uint8_t *out)
{
    size_t n = size > 1 ? len / size : 0;
    if (n < 2)
        n = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < size; k++)
            out[k * n + i] = in[i * size + k];
    memcpy(out + n * size, in + n * size, len - n * size);
    return len;
}

static inline size_t encode_fletcher32(const uint8_t *in, size_t len, uint8_t *out)
{
    uint32_t sum = h5fast_fletcher32(in, len);
    memcpy(out, in, len);
    for (int i = 0; i < 4; i++)
        out[len++] = (uint8_t)(sum >> 8 * i);
    return len;
}

static inline size_t encode_xor(const uint8_t *in, size_t len, uint8_t *out)
{
    for (size_t i = 0; i < len; i++)
        out[i] = in[i] ^ 0x5a;
    return len;
}

static inline size_t encode_step(const h5fast_filter *filter, const uint8_t *in, size_t len, uint8_t *out)
{
    switch (filter->id) {
    case H5FAST_FILTER_DEFLATE: return encode_deflate(in, len, out);
    case H5FAST_FILTER_LZF: return encode_lzf(in, len, out);
    case H5FAST_FILTER_SHUFFLE: return encode_shuffle(in, len, filter->cd_values[0], out);
    case H5FAST_FILTER_FLETCHER32: return encode_fletcher32(in, len, out);
    default: return encode_xor(in, len, out);
    }
}

/* Runs the pipeline but for the filters in mask; the result lies in out, which like `spare` has room for all of it. */
static inline size_t encode(const h5fast_storage *storage, uint32_t mask, const uint8_t *in, size_t len, uint8_t *out,
                            uint8_t *spare)
{
    memcpy(out, in, len);
    for (int i = 0; i < storage->filter_count; i++)
        if (!(mask >> i & 1)) {
            memcpy(spare, out, len);
            len = encode_step(&storage->filters[i], spare, len, out);
        }
    return len;
}

/* The plugin's `filter`: decodes in place, or into a new buffer, as plugins may. */
static inline size_t decode_xor(unsigned flags, size_t cd_nelmts, const unsigned *cd_values, size_t nbytes,
                                size_t *buffer_size, void **buffer)
{
    (void)flags, (void)cd_nelmts, (void)cd_values;
    uint8_t *bytes = *buffer;
    for (size_t i = 0; i < nbytes; i++)
        bytes[i] ^= 0x5a;
    *buffer_size = nbytes;
    return nbytes;
}

/* Up to five filters in any order; shuffles by the size of an element, mostly. */
static inline void random_filters(h5fast_storage *storage, unsigned shuffle_size, int has_deflate)
{
    static unsigned sizes[H5FAST_MAX_FILTERS];
    static const int ids[] = {H5FAST_FILTER_SHUFFLE, H5FAST_FILTER_LZF, H5FAST_FILTER_FLETCHER32, FILTER_XOR,
                              H5FAST_FILTER_DEFLATE};
    storage->filter_count = (int)random_below(6);
    for (int i = 0; i < storage->filter_count; i++) {
        int id = ids[random_below(has_deflate ? 5 : 4)];
        sizes[i] = chance(70) ? shuffle_size : 1 + (unsigned)random_below(9);
        storage->filters[i] = (h5fast_filter){id, id == FILTER_XOR ? decode_xor : NULL, 1, &sizes[i]};
    }
}

#endif
