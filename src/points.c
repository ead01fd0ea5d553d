#include "filler.h"

#include <stdlib.h>
#include <string.h>

void h5fast_points_free(h5fast_points *p)
{
    free(p->rows);
    free(p->targets);
    free(p->uncast);
    free(p->parts);
}

/* Grows by half; the old memory stays valid on failure. */
static int reserve(h5fast_filler *f, h5fast_points *p, uint64_t count)
{
    if (count <= p->capacity)
        return 1;
    uint64_t capacity = count + count / 2;
    int64_t *rows = realloc(p->rows, capacity * sizeof *rows);
    p->rows = rows != NULL ? rows : p->rows;
    uint8_t **targets = realloc(p->targets, capacity * sizeof *targets);
    p->targets = targets != NULL ? targets : p->targets;
    uint8_t *uncast = realloc(p->uncast, capacity);
    p->uncast = uncast != NULL ? uncast : p->uncast;
    uint32_t *parts = realloc(p->parts, capacity * sizeof *parts);
    p->parts = parts != NULL ? parts : p->parts;
    if (rows == NULL || targets == NULL || uncast == NULL || parts == NULL)
        return 0;
    f->bytes += (capacity - p->capacity) * (sizeof *rows + sizeof *targets + 1 + sizeof *parts);
    p->capacity = capacity;
    return 1;
}

h5fast_status h5fast_points_add(h5fast_filler *f, const h5fast_field *field, uint64_t row, uint8_t *target, int uncast)
{
    h5fast_points *p = &f->points;
    if (!reserve(f, p, p->count + 1))
        return H5FAST_MEMORY;
    uint32_t part = h5fast_part_of(field, row);
    p->rows[p->count] = (int64_t)h5fast_row_in_part(&field->parts[part], row);
    p->targets[p->count] = target;
    p->uncast[p->count] = (uint8_t)uncast;
    p->parts[p->count++] = part;
    return H5FAST_OK;
}

/* Reads points [first, end) of `p`, which lie in one part. */
static h5fast_error read_part(const h5fast_filler *f, h5fast_field *field, uint32_t part, const h5fast_points *p,
                              uint64_t first, uint64_t end, int threads)
{
    h5fast_selection selection = field->row;
    selection.coords[0] = p->rows + first;
    selection.targets = p->targets + first;
    selection.uncast = p->uncast + first;
    selection.point_count = (int64_t)(end - first);
    selection.point_stride = 0;
    const h5fast_cast *cast = field->is_fused ? field->cast : NULL;
    return h5fast_filler_gather(f, field, part, &(h5fast_reading){&selection, cast, NULL, end - first, threads});
}

/* Several parts at once, each by one thread: there are few rows of each. */
typedef struct {
    h5fast_filler *filler;
    h5fast_field *field;
    h5fast_error *errors; /* of each of filler->part_numbers */
} parts_task;

static void read_parts(h5fast_task *task, void *context)
{
    parts_task *t = context;
    const h5fast_filler *f = t->filler;
    uint64_t at, end;
    int submitter = h5fast_task_is_submitter(task);
    while (h5fast_task_next(task, submitter, &at, &end))
        for (; at < end; at++)
            t->errors[at] = read_part(f, t->field, f->part_numbers[at], &f->sorted, f->part_first[at],
                                      f->part_first[at + 1], 1);
}

/* Puts the points in order of their parts; returns how many parts have some. */
static uint64_t sort_by_part(h5fast_filler *f)
{
    const h5fast_points *p = &f->points;
    uint64_t used = 0;
    uint64_t *counts = f->part_first; /* by part at first, by used part at the end */
    memset(counts, 0, (f->part_limit + 1) * sizeof *counts);
    for (uint64_t i = 0; i < p->count; i++)
        counts[p->parts[i] + 1]++;
    for (uint64_t part = 1; part <= f->part_limit; part++)
        counts[part] += counts[part - 1];
    for (uint64_t i = 0; i < p->count; i++) {
        uint64_t at = counts[p->parts[i]]++;
        f->sorted.rows[at] = p->rows[i];
        f->sorted.targets[at] = p->targets[i];
        f->sorted.uncast[at] = p->uncast[i];
        f->sorted.parts[at] = p->parts[i];
    }
    for (uint64_t i = 0; i < p->count; i++)
        if (i == 0 || f->sorted.parts[i] != f->sorted.parts[i - 1]) {
            f->part_numbers[used] = f->sorted.parts[i];
            f->part_first[used++] = i;
        }
    f->part_first[used] = p->count;
    return used;
}

h5fast_status h5fast_points_read(h5fast_filler *f, uint32_t number)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_points *p = &f->points;
    if (p->count == 0)
        return H5FAST_OK;
    if (field->part_count == 1) {
        h5fast_error error = read_part(f, field, 0, p, 0, p->count, f->given.threads);
        return error.status == H5FAST_OK ? H5FAST_OK : h5fast_filler_failed(f, number, 0, error);
    }
    if (!reserve(f, &f->sorted, p->count))
        return h5fast_filler_gave_up(f, H5FAST_MEMORY);
    uint64_t used = sort_by_part(f);
    h5fast_error *errors = calloc(used, sizeof *errors);
    if (errors == NULL)
        return h5fast_filler_gave_up(f, H5FAST_MEMORY);
    h5fast_status status = H5FAST_OK;
    if (used == 1) {
        errors[0] = read_part(f, field, f->part_numbers[0], &f->sorted, 0, p->count, f->given.threads);
    } else {
        parts_task context = {f, field, errors};
        h5fast_task task = {.work = read_parts, .context = &context, .count = used, .grain = 1,
                            .max_threads = f->given.threads};
        status = h5fast_filler_run(f, &task);
    }
    if (status != H5FAST_OK)
        status = h5fast_filler_gave_up(f, status);
    for (uint64_t i = 0; i < used && status == H5FAST_OK; i++)
        if (errors[i].status != H5FAST_OK)
            status = h5fast_filler_failed(f, number, f->part_numbers[i], errors[i]);
    free(errors);
    return status;
}
