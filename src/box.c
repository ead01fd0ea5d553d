#include "box.h"

#include <string.h>

void h5fast_chunk_strides(const h5fast_storage *storage, uint64_t *strides)
{
    uint64_t stride = storage->itemsize;
    for (int axis = storage->rank - 1; axis >= 0; axis--) {
        strides[axis] = stride;
        stride *= storage->chunk[axis];
    }
}

typedef struct {
    uint64_t count, from_stride;
    int64_t to_stride;
} loop;

/* Adds a loop around those gathered so far (innermost first); runs and loops that continue each other become one. */
static int wrap(h5fast_box *box, loop *nest, int loops, loop outer)
{
    if (loops == 0 && outer.from_stride == box->run && outer.to_stride == (int64_t)box->run) {
        box->run *= outer.count;
        return 0;
    }
    if (loops > 0) {
        loop *inner = &nest[loops - 1];
        if (inner->from_stride * inner->count == outer.from_stride &&
            inner->to_stride * (int64_t)inner->count == outer.to_stride) {
            inner->count *= outer.count;
            return loops;
        }
    }
    nest[loops] = outer;
    return loops + 1;
}

void h5fast_box_make(h5fast_box *box, const h5fast_plan *plan, const uint64_t *coordinates)
{
    const h5fast_storage *storage = plan->storage;
    const h5fast_selection *selection = plan->selection;
    uint64_t strides[H5FAST_MAX_RANK];
    loop nest[H5FAST_MAX_RANK];
    int loops = 0;
    h5fast_chunk_strides(storage, strides);
    box->run = storage->itemsize;
    box->from = 0;
    box->extent = storage->itemsize;
    box->to = 0;
    box->empty = 0;
    for (int axis = storage->rank - 1; axis >= 0; axis--) {
        if (selection->coords[axis] != NULL)
            continue;
        h5fast_span span = h5fast_plan_span(plan, axis, coordinates[axis]);
        if (span.count == 0) {
            box->empty = 1;
            return;
        }
        uint64_t step = (uint64_t)selection->step[axis] * strides[axis];
        box->from += span.low * strides[axis];
        box->to += span.out_first * selection->out_stride[axis];
        if (span.count == 1)
            continue;
        box->extent += (span.count - 1) * step;
        loops = wrap(box, nest, loops, (loop){span.count, step, selection->out_stride[axis]});
    }
    box->loops = loops;
    for (int i = 0; i < loops; i++) {
        box->count[i] = nest[loops - 1 - i].count;
        box->from_stride[i] = nest[loops - 1 - i].from_stride;
        box->to_stride[i] = nest[loops - 1 - i].to_stride;
    }
}

void h5fast_box_inner(const h5fast_box *box, int depth, uint64_t from, h5fast_box *inner)
{
    inner->loops = box->loops - depth;
    inner->run = box->run;
    inner->from = from;
    inner->extent = box->run;
    inner->to = 0;
    inner->empty = 0;
    for (int i = 0; i < inner->loops; i++) {
        inner->count[i] = box->count[depth + i];
        inner->from_stride[i] = box->from_stride[depth + i];
        inner->to_stride[i] = box->to_stride[depth + i];
        inner->extent += (inner->count[i] - 1) * inner->from_stride[i];
    }
}

/* The innermost loop for runs of a known size: the compiler turns each memcpy into one move. */
#define STRIDED_COPY(SIZE)                                                                                             \
    static void copy_runs_##SIZE(uint64_t count, const uint8_t *from, uint64_t from_stride, uint8_t *to,               \
                                 int64_t to_stride)                                                                    \
    {                                                                                                                  \
        for (uint64_t i = 0; i < count; i++, from += from_stride, to += to_stride)                                     \
            memcpy(to, from, SIZE);                                                                                    \
    }
STRIDED_COPY(1)
STRIDED_COPY(2)
STRIDED_COPY(4)
STRIDED_COPY(8)
STRIDED_COPY(16)

static void copy_runs(uint64_t run, uint64_t count, const uint8_t *from, uint64_t from_stride, uint8_t *to,
                      int64_t to_stride)
{
    switch (run) {
    case 1: copy_runs_1(count, from, from_stride, to, to_stride); return;
    case 2: copy_runs_2(count, from, from_stride, to, to_stride); return;
    case 4: copy_runs_4(count, from, from_stride, to, to_stride); return;
    case 8: copy_runs_8(count, from, from_stride, to, to_stride); return;
    case 16: copy_runs_16(count, from, from_stride, to, to_stride); return;
    default:
        for (uint64_t i = 0; i < count; i++, from += from_stride, to += to_stride)
            memcpy(to, from, run);
    }
}

static void copy_nest(const h5fast_box *box, int depth, const uint8_t *from, uint8_t *to)
{
    if (depth == box->loops - 1) {
        copy_runs(box->run, box->count[depth], from, box->from_stride[depth], to, box->to_stride[depth]);
        return;
    }
    for (uint64_t i = 0; i < box->count[depth]; i++, from += box->from_stride[depth], to += box->to_stride[depth])
        copy_nest(box, depth + 1, from, to);
}

void h5fast_box_copy(const h5fast_box *box, const uint8_t *chunk, uint8_t *out)
{
    if (box->loops == 0)
        memcpy(out + box->to, chunk + box->from, box->run);
    else
        copy_nest(box, 0, chunk + box->from, out + box->to);
}

void h5fast_fill_run(const h5fast_storage *storage, uint64_t from, uint64_t run, uint8_t *to)
{
    uint64_t period = storage->fill_bytes, phase = from % period;
    if (period == 1) {
        memset(to, storage->fill[0], run);
        return;
    }
    for (uint64_t done = 0; done < run;) {
        uint64_t part = period - phase < run - done ? period - phase : run - done;
        memcpy(to + done, storage->fill + phase, part);
        done += part;
        phase = 0;
    }
}

static void fill_nest(const h5fast_box *box, const h5fast_storage *storage, int depth, uint8_t *to)
{
    if (depth == box->loops) {
        h5fast_fill_run(storage, box->from, box->run, to);
        return;
    }
    for (uint64_t i = 0; i < box->count[depth]; i++, to += box->to_stride[depth])
        fill_nest(box, storage, depth + 1, to);
}

void h5fast_box_fill(const h5fast_box *box, const h5fast_storage *storage, uint8_t *out)
{
    fill_nest(box, storage, 0, out + box->to);
}
