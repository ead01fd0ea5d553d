/* Reading of whole groups, where there is room for every item: each group is decoded once for all epochs.
 *
 * Groups of small rows are large (a chunk of labels is 100,000 rows and more), so nothing is listed by row where the items of
 * a group are a range of rows: it is read as a range. Only of a list of rows are the points listed, of some groups at a time.
 */
#include "filler.h"

#include <stdlib.h>

/* Points that are listed at a time, and those of one group more. */
enum { POINTS = 1 << 16 };

static h5fast_error read_range(const h5fast_filler *f, h5fast_field *field, uint64_t group, int threads)
{
    const h5fast_items *items = f->given.items;
    const h5fast_part *part = h5fast_part_of_group(field, group);
    uint64_t begin, end;
    h5fast_rows_of_group(field, group, &begin, &end);
    uint64_t item = h5fast_items_below(items, begin), count = h5fast_items_below(items, end) - item;
    h5fast_selection selection = field->row;
    selection.coords[0] = NULL;
    selection.start[0] = (int64_t)h5fast_row_in_part(part, h5fast_items_row(items, item));
    selection.count[0] = (int64_t)count;
    selection.step[0] = (int64_t)items->step;
    selection.out_stride[0] = (int64_t)field->row_bytes;
    selection.point_count = 1;
    selection.point_stride = 0;
    uint8_t *out = field->store.rows + item * field->row_bytes;
    return h5fast_filler_gather(f, field, (uint32_t)(part - field->parts),
                                &(h5fast_reading){&selection, NULL, out, count, threads});
}

/* Several groups at once, each by one thread. */
typedef struct {
    const h5fast_filler *filler;
    h5fast_field *field;
    h5fast_error *errors; /* of each of filler->groups */
    int threads;          /* for each */
} ranges_task;

static void read_ranges(h5fast_task *task, void *context)
{
    ranges_task *t = context;
    uint64_t at, end;
    int submitter = h5fast_task_is_submitter(task);
    while (h5fast_task_next(task, submitter, &at, &end))
        for (; at < end; at++)
            t->errors[at] = read_range(t->filler, t->field, t->filler->groups[at], t->threads);
}

/* Marks what was read, and returns the first failure. */
static h5fast_status settle(h5fast_filler *f, uint32_t number, const h5fast_error *errors, uint64_t groups)
{
    h5fast_field *field = f->given.fields[number];
    h5fast_status status = H5FAST_OK;
    for (uint64_t i = 0; i < groups; i++) {
        if (errors[i].status == H5FAST_OK)
            h5fast_set_bit(field->store.present, f->groups[i]);
        else if (status == H5FAST_OK)
            status = h5fast_filler_failed(f, number, (uint32_t)(h5fast_part_of_group(field, f->groups[i]) - field->parts),
                                          errors[i]);
    }
    return status;
}

static h5fast_status read_as_ranges(h5fast_filler *f, uint32_t number, uint64_t groups)
{
    h5fast_error *errors = calloc(groups, sizeof *errors);
    if (errors == NULL)
        return h5fast_filler_gave_up(f, H5FAST_MEMORY);
    ranges_task context = {f, f->given.fields[number], errors, groups == 1 ? f->given.threads : 1};
    h5fast_status status = H5FAST_OK;
    if (groups == 1) {
        errors[0] = read_range(f, context.field, f->groups[0], context.threads);
    } else {
        h5fast_task task = {.work = read_ranges, .context = &context, .count = groups, .grain = 1,
                            .max_threads = f->given.threads};
        status = h5fast_filler_run(f, &task);
    }
    status = status == H5FAST_OK ? settle(f, number, errors, groups) : h5fast_filler_gave_up(f, status);
    free(errors);
    return status;
}

static h5fast_status list_group(h5fast_filler *f, const h5fast_field *field, uint64_t group)
{
    const h5fast_items *items = f->given.items;
    uint64_t begin, end;
    h5fast_rows_of_group(field, group, &begin, &end);
    h5fast_status status = H5FAST_OK;
    uint64_t last = h5fast_items_below(items, end);
    for (uint64_t rank = h5fast_items_below(items, begin); rank < last && status == H5FAST_OK; rank++) {
        uint64_t item = h5fast_items_ranked(items, rank);
        status = h5fast_points_add(f, field, h5fast_items_row(items, item), field->store.rows + item * field->row_bytes, 1);
    }
    return status;
}

static h5fast_status read_as_points(h5fast_filler *f, uint32_t number, uint64_t groups)
{
    h5fast_field *field = f->given.fields[number];
    h5fast_status status = H5FAST_OK;
    for (uint64_t done = 0, at = 0; done < groups && status == H5FAST_OK; done = at) {
        f->points.count = 0;
        for (; at < groups && f->points.count < POINTS && status == H5FAST_OK; at++)
            status = atomic_load(f->stop) ? H5FAST_CANCELLED : list_group(f, field, f->groups[at]);
        status = status == H5FAST_OK ? h5fast_points_read(f, number) : h5fast_filler_gave_up(f, status);
        for (uint64_t i = done; i < at && status == H5FAST_OK; i++)
            h5fast_set_bit(field->store.present, f->groups[i]);
    }
    return status;
}

h5fast_status h5fast_groups_read(h5fast_filler *f, uint32_t number)
{
    const h5fast_field *field = f->given.fields[number];
    uint64_t missing = h5fast_filler_missing_groups(f, field), groups = 0;
    for (uint64_t i = 0; i < missing; i++)
        if (!h5fast_bit(field->store.present, f->groups[i]))
            f->groups[groups++] = f->groups[i];
    if (groups == 0)
        return H5FAST_OK;
    return f->given.items->rows == NULL ? read_as_ranges(f, number, groups) : read_as_points(f, number, groups);
}
