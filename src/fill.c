#include "filler.h"

#include <stdlib.h>
#include <string.h>

/* Seconds of work after which a stop is noticed. */
static const double SLICE = 0.05;

static void *obtain(h5fast_filler *f, uint64_t count, size_t size)
{
    f->bytes += count * size;
    return malloc(count > 0 ? count * size : 1);
}

h5fast_filler *h5fast_filler_make(const h5fast_filling *given)
{
    h5fast_filler *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->given = *given;
    uint64_t batch = given->now->batch, widest = 0;
    for (uint32_t i = 0; i < given->field_count; i++) {
        const h5fast_field *field = given->fields[i];
        if (field->cast != NULL && !field->is_fused && field->row_bytes > widest)
            widest = field->row_bytes;
        f->part_limit = field->part_count > f->part_limit ? field->part_count : f->part_limit;
    }
    f->rows = obtain(f, batch, sizeof *f->rows);
    f->is_missing = obtain(f, batch, 1);
    f->is_damaged = obtain(f, batch, 1);
    f->groups = obtain(f, batch, sizeof *f->groups);
    f->moves = obtain(f, batch, sizeof *f->moves);
    f->staged = obtain(f, batch, widest);
    f->part_first = obtain(f, f->part_limit + 1, sizeof *f->part_first);
    f->part_numbers = obtain(f, f->part_limit, sizeof *f->part_numbers);
    f->damage = calloc(given->field_count + 1, sizeof *f->damage);
    if (f->rows == NULL || f->is_missing == NULL || f->is_damaged == NULL || f->groups == NULL ||
        f->moves == NULL || f->staged == NULL || f->part_first == NULL || f->part_numbers == NULL ||
        f->damage == NULL) {
        h5fast_filler_free(f);
        return NULL;
    }
    return f;
}

void h5fast_filler_free(h5fast_filler *f)
{
    if (f == NULL)
        return;
    for (uint32_t i = 0; i < f->given.field_count && f->damage != NULL; i++)
        free(f->damage[i].groups);
    free(f->damage);
    h5fast_points_free(&f->points);
    h5fast_points_free(&f->sorted);
    free(f->rows);
    free(f->is_missing);
    free(f->is_damaged);
    free(f->groups);
    free(f->moves);
    free(f->staged);
    free(f->part_first);
    free(f->part_numbers);
    free(f->pending);
    free(f);
}

uint64_t h5fast_filler_bytes(const h5fast_filler *f)
{
    return f->bytes;
}

uint64_t h5fast_filler_next_time(const h5fast_filler *f, uint64_t item, uint64_t from)
{
    return h5fast_schedule_next_time(f->given.now, f->given.next, item, from);
}

h5fast_status h5fast_filler_run(h5fast_filler *f, h5fast_task *task)
{
    h5fast_pool_submit(task);
    while (!h5fast_pool_help(task, SLICE))
        if (atomic_load(f->stop))
            h5fast_pool_cancel(task);
    return atomic_load(&task->cancelled) ? H5FAST_CANCELLED : H5FAST_OK;
}

h5fast_error h5fast_filler_gather(const h5fast_filler *f, h5fast_field *field, uint32_t part, const h5fast_reading *reading)
{
    const h5fast_part *from = &field->parts[part];
    h5fast_gather g;
    memset(&g, 0, sizeof g);
    g.storage = from->storage;
    g.index = from->index;
    g.source = from->source;
    g.kept = from->kept;
    g.selection = reading->selection;
    g.cast = reading->cast;
    g.out = reading->out;
    g.threads = reading->threads;
    h5fast_status status = h5fast_gather_begin(&g);
    if (status == H5FAST_OK) {
        while (!h5fast_gather_run(&g, SLICE))
            if (atomic_load(f->stop))
                h5fast_gather_cancel(&g);
    } else {
        g.error.status = status;
    }
    h5fast_gather_end(&g);
    /* Neither what was read of a file that changed can be trusted, nor what is wrong with it. */
    if (g.error.status != H5FAST_CANCELLED && g.error.status != H5FAST_MEMORY && h5fast_source_changed(from->source) >= 0)
        g.error.status = H5FAST_CHANGED;
    atomic_fetch_add(&field->decodes, g.decodes);
    atomic_fetch_add(&field->stored_bytes, from->storage->filter_count > 0 ? g.stored_bytes
                                                                           : reading->rows * field->row_bytes);
    return g.error;
}

h5fast_status h5fast_filler_failed(h5fast_filler *f, uint32_t field, uint32_t part, h5fast_error what)
{
    *f->error = (h5fast_fill_error){what, field, part};
    return what.status;
}

h5fast_status h5fast_filler_gave_up(h5fast_filler *f, h5fast_status status)
{
    return h5fast_filler_failed(f, 0, 0, (h5fast_error){status, 0, 0, 0, 0, 0});
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t h5fast_filler_missing_groups(h5fast_filler *f, const h5fast_field *field)
{
    uint64_t count = 0, distinct = 0;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i])
            f->groups[count++] = h5fast_group_of(field, f->rows[i]);
    qsort(f->groups, count, sizeof *f->groups, compare_numbers);
    for (uint64_t i = 0; i < count; i++)
        if (i == 0 || f->groups[i] != f->groups[i - 1])
            f->groups[distinct++] = f->groups[i];
    return distinct;
}

static void count_touched(h5fast_filler *f, h5fast_field *field)
{
    for (uint64_t i = 0; i < f->count && field->touched != NULL; i++) {
        uint64_t group = h5fast_group_of(field, f->rows[i]);
        if (!h5fast_bit(field->touched, group)) {
            h5fast_set_bit(field->touched, group);
            atomic_fetch_add(&field->groups_touched, 1);
        }
    }
}

static h5fast_status fill_field(h5fast_filler *f, uint32_t number, uint8_t *out)
{
    h5fast_field *field = f->given.fields[number];
    count_touched(f, field);
    h5fast_status status = h5fast_rowstore_find(f, field, out);
    while (status == H5FAST_OK) {
        h5fast_damage_leave_out(f, number);
        status = h5fast_rowstore_read(f, number, out);
        if (status == H5FAST_OK || !h5fast_damage_note(f, number, status))
            break;
        status = H5FAST_OK;
    }
    return status;
}

h5fast_status h5fast_filler_fill(h5fast_filler *f, uint64_t step, h5fast_batch *batch, _Atomic int *stop,
                                 h5fast_fill_error *error)
{
    f->stop = stop;
    f->error = error;
    f->first = h5fast_schedule_first(f->given.now, step, &f->count);
    f->items = batch->items;
    h5fast_order_items(&f->given.now->order, f->first, f->count, f->items);
    for (uint64_t i = 0; i < f->count; i++)
        f->rows[i] = h5fast_items_row(f->given.items, (uint64_t)f->items[i]);
    memset(f->is_damaged, 0, f->count);
    for (uint32_t i = 0; i < f->given.field_count; i++) {
        h5fast_status status = fill_field(f, i, batch->outs[i]);
        if (status != H5FAST_OK)
            return status;
    }
    batch->step = step;
    batch->count = h5fast_damage_close_gaps(f, batch->outs);
    batch->dropped = f->count - batch->count;
    return H5FAST_OK;
}
