/* For the C tests of the engine: datasets of whole rows, casts of them, and what these must give, in plain C. */
#ifndef H5FAST_TEST_ROWS_H
#define H5FAST_TEST_ROWS_H

#include <math.h>

#include "dataset.h"

#define READ(KIND, TYPE)                                                                                               \
    case KIND: {                                                                                                       \
        TYPE value;                                                                                                    \
        memcpy(&value, bytes, sizeof value);                                                                           \
        return (OUT)value;                                                                                             \
    }
#define DEFINE_REFERENCE(NAME)                                                                                         \
    static inline OUT NAME##_of(h5fast_kind kind, const uint8_t *bytes)                                                \
    {                                                                                                                  \
        switch (kind) {                                                                                                \
            READ(H5FAST_I8, int8_t) READ(H5FAST_U8, uint8_t) READ(H5FAST_I16, int16_t) READ(H5FAST_U16, uint16_t)      \
            READ(H5FAST_I32, int32_t) READ(H5FAST_U32, uint32_t) READ(H5FAST_I64, int64_t)                             \
            READ(H5FAST_U64, uint64_t) READ(H5FAST_F32, float) READ(H5FAST_F64, double)                                \
        default: abort();                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void NAME##_element(const h5fast_cast *cast, h5fast_kind kind, const uint8_t *bytes, uint64_t c,     \
                                      uint8_t *to)                                                                     \
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
static inline void row_dataset(dataset *d, cast_case *c, uint64_t itemsize)
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

static inline void choose_cast(cast_case *c)
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

static inline void expect_row(const dataset *d, const cast_case *c, int64_t point)
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
static inline int same_values(const cast_case *c, uint64_t bytes)
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
static inline void random_rows(dataset *d, cast_case *c, h5fast_kind kinds)
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

#endif
