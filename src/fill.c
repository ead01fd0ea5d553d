#include "fill.h"

#include <stdlib.h>
#include <string.h>

/* Seconds of work after which a stop is noticed. */
static const double SLICE = 0.05;
/* Copying less than this is done sooner alone than with help. */
static const uint64_t INLINE_BYTES = 768u << 10;

/* Rows to read: the engine's points. */
typedef struct {
    uint64_t count, capacity;
    int64_t *rows;     /* of the dataset of its part */
    uint8_t **targets;
    uint8_t *uncast;
    uint32_t *parts;
} points;

/* A row that was given a slot of the cache in this batch. */
typedef struct {
    uint32_t slot;
    uint64_t time;     /* that it is kept for; another one took the slot if the cache says otherwise */
    uint64_t row;
} pending;

typedef struct {
    const uint8_t *from;
    uint8_t *to;
} move;

struct h5fast_filler {
    h5fast_filling given;
    _Atomic int *stop;
    h5fast_fill_error *error;
    /* The batch: */
    uint64_t first, count;    /* positions */
    int64_t *items;           /* the batch's own */
    uint64_t *rows;           /* of the loader */
    uint8_t *is_missing;      /* by row: it has to be read for the field at hand */
    uint8_t *is_damaged;      /* by row: some field of it does not decode */
    uint64_t *groups;         /* of the field at hand: those that are decoded for the batch */
    move *moves;
    uint8_t *staged;          /* rows on their way to a cast that the engine cannot run; NULL: no field needs that */
    points points, sorted;    /* in order of parts, where there are several */
    uint64_t *part_first;     /* first of `sorted` of each part that is read */
    uint32_t *part_numbers;
    uint64_t part_limit;      /* places in these two */
    pending *pending;
    uint64_t pending_count, pending_capacity;
    uint64_t bytes;
};

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
    if (f->rows == NULL || f->is_missing == NULL || f->is_damaged == NULL || f->groups == NULL ||
        f->moves == NULL || f->staged == NULL || f->part_first == NULL || f->part_numbers == NULL) {
        h5fast_filler_free(f);
        return NULL;
    }
    return f;
}

static void free_points(points *p)
{
    free(p->rows);
    free(p->targets);
    free(p->uncast);
    free(p->parts);
}

void h5fast_filler_free(h5fast_filler *f)
{
    if (f == NULL)
        return;
    for (uint32_t i = 0; i < f->given.field_count; i++) {
        h5fast_field *field = f->given.fields[i];
        free(field->damaged);
        field->damaged = NULL;
        field->damaged_count = 0;
    }
    free_points(&f->points);
    free_points(&f->sorted);
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

/* --- where rows are ------------------------------------------------------------------------------------------------- */

static uint32_t part_of(const h5fast_field *field, uint64_t row)
{
    uint32_t low = 0, high = field->part_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (field->parts[middle].first <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static uint64_t row_in_part(const h5fast_part *part, uint64_t row)
{
    return row - part->first + part->offset;
}

static uint64_t group_in_part(const h5fast_part *part, uint64_t row)
{
    return part->first_group + row_in_part(part, row) / part->group_rows - part->offset / part->group_rows;
}

static uint64_t group_of(const h5fast_field *field, uint64_t row)
{
    return group_in_part(&field->parts[part_of(field, row)], row);
}

static const h5fast_part *part_of_group(const h5fast_field *field, uint64_t group)
{
    uint32_t low = 0, high = field->part_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (field->parts[middle].first_group <= group)
            low = middle;
        else
            high = middle;
    }
    return &field->parts[low];
}

/* The rows [*begin, *end) of the loader that are in a group. */
static void rows_of_group(const h5fast_field *field, uint64_t group, uint64_t *begin, uint64_t *end)
{
    const h5fast_part *part = part_of_group(field, group);
    uint64_t first = (part->offset / part->group_rows + group - part->first_group) * part->group_rows;
    uint64_t last = first + part->group_rows, limit = part->offset + part->rows;
    first = first > part->offset ? first : part->offset;
    last = last < limit ? last : limit;
    *begin = first - part->offset + part->first;
    *end = last - part->offset + part->first;
}

static int bit(const uint8_t *bits, uint64_t at)
{
    return bits[at / 8] >> at % 8 & 1;
}

static void set_bit(uint8_t *bits, uint64_t at)
{
    bits[at / 8] |= (uint8_t)(1u << at % 8);
}

/* When an item is needed next, counted over all epochs, from this position of the present one on. */
static uint64_t next_time(const h5fast_filler *f, uint64_t item, uint64_t from)
{
    uint64_t position = h5fast_schedule_next(f->given.now, item, from);
    if (position != H5FAST_NEVER)
        return h5fast_schedule_time(f->given.now, position);
    position = h5fast_schedule_next(f->given.next, item, 0);
    return position != H5FAST_NEVER ? h5fast_schedule_time(f->given.next, position) : H5FAST_NEVER;
}

/* --- reading points ------------------------------------------------------------------------------------------------- */

/* Grows by half; the old memory stays valid on failure. */
static int reserve(h5fast_filler *f, points *p, uint64_t count)
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

static h5fast_status add_point(h5fast_filler *f, const h5fast_field *field, uint64_t row, uint8_t *target, int uncast)
{
    points *p = &f->points;
    if (!reserve(f, p, p->count + 1))
        return H5FAST_MEMORY;
    uint32_t part = part_of(field, row);
    p->rows[p->count] = (int64_t)row_in_part(&field->parts[part], row);
    p->targets[p->count] = target;
    p->uncast[p->count] = (uint8_t)uncast;
    p->parts[p->count++] = part;
    return H5FAST_OK;
}

/* Reads points [first, end) of `p`, which lie in one part. */
static h5fast_error read_part(const h5fast_filler *f, h5fast_field *field, uint32_t part, const points *p, uint64_t first,
                              uint64_t end, int threads)
{
    const h5fast_part *from = &field->parts[part];
    h5fast_selection selection = field->row;
    selection.coords[0] = p->rows + first;
    selection.targets = p->targets + first;
    selection.uncast = p->uncast + first;
    selection.point_count = (int64_t)(end - first);
    selection.point_stride = 0;
    h5fast_gather g;
    memset(&g, 0, sizeof g);
    g.storage = from->storage;
    g.index = from->index;
    g.source = from->source;
    g.selection = &selection;
    g.cast = field->is_fused ? field->cast : NULL;
    g.threads = threads;
    h5fast_status status = h5fast_gather_begin(&g);
    if (status == H5FAST_OK) {
        while (!h5fast_gather_run(&g, SLICE))
            if (atomic_load(f->stop))
                h5fast_gather_cancel(&g);
    } else {
        g.error.status = status;
    }
    h5fast_gather_end(&g);
    if (g.error.status == H5FAST_OK && h5fast_source_changed(from->source) >= 0)
        g.error.status = H5FAST_CHANGED;
    atomic_fetch_add(&field->decodes, g.decodes);
    atomic_fetch_add(&field->stored_bytes, from->storage->filter_count > 0 ? g.stored_bytes
                                                                           : (end - first) * field->row_bytes);
    return g.error;
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

static h5fast_status run_task(h5fast_filler *f, h5fast_task *task)
{
    h5fast_pool_submit(task);
    while (!h5fast_pool_help(task, SLICE))
        if (atomic_load(f->stop))
            h5fast_pool_cancel(task);
    return atomic_load(&task->cancelled) ? H5FAST_CANCELLED : H5FAST_OK;
}

static h5fast_status fail(h5fast_filler *f, uint32_t field, uint32_t part, h5fast_error what)
{
    *f->error = (h5fast_fill_error){what, field, part};
    return what.status;
}

static h5fast_status fail_plainly(h5fast_filler *f, h5fast_status status)
{
    return fail(f, 0, 0, (h5fast_error){status, 0, 0, 0, 0, 0});
}

/* Puts the points in order of their parts; returns how many parts have some. */
static uint64_t sort_by_part(h5fast_filler *f)
{
    const points *p = &f->points;
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

static h5fast_status read_points(h5fast_filler *f, uint32_t number)
{
    h5fast_field *field = f->given.fields[number];
    const points *p = &f->points;
    if (p->count == 0)
        return H5FAST_OK;
    if (field->part_count == 1) {
        h5fast_error error = read_part(f, field, 0, p, 0, p->count, f->given.threads);
        return error.status == H5FAST_OK ? H5FAST_OK : fail(f, number, 0, error);
    }
    if (!reserve(f, &f->sorted, p->count))
        return fail_plainly(f, H5FAST_MEMORY);
    uint64_t used = sort_by_part(f);
    h5fast_error *errors = calloc(used, sizeof *errors);
    if (errors == NULL)
        return fail_plainly(f, H5FAST_MEMORY);
    h5fast_status status = H5FAST_OK;
    if (used == 1) {
        errors[0] = read_part(f, field, f->part_numbers[0], &f->sorted, 0, p->count, f->given.threads);
    } else {
        parts_task context = {f, field, errors};
        h5fast_task task = {.work = read_parts, .context = &context, .count = used, .grain = 1,
                            .max_threads = f->given.threads};
        status = run_task(f, &task);
    }
    if (status != H5FAST_OK)
        status = fail_plainly(f, status);
    for (uint64_t i = 0; i < used && status == H5FAST_OK; i++)
        if (errors[i].status != H5FAST_OK)
            status = fail(f, number, f->part_numbers[i], errors[i]);
    free(errors);
    return status;
}

/* --- copying rows --------------------------------------------------------------------------------------------------- */

typedef struct {
    const move *moves;
    const h5fast_field *field;
    uint64_t count;
} copy_task;

static void copy_rows(h5fast_task *task, void *context)
{
    const copy_task *t = context;
    const h5fast_cast *cast = t->field->cast;
    uint64_t at, end, size = t->field->row_bytes;
    int submitter = h5fast_task_is_submitter(task);
    while (h5fast_task_next(task, submitter, &at, &end))
        for (; at < end; at++) {
            if (at + 2 < t->count) /* rows of a store lie anywhere; what follows their start the processor finds itself */
                for (uint64_t line = 0; line < 1024 && line < size; line += 64)
                    __builtin_prefetch(t->moves[at + 2].from + line);
            if (cast != NULL)
                cast->kernel(cast, t->moves[at].from, t->moves[at].to);
            else
                memcpy(t->moves[at].to, t->moves[at].from, size);
        }
}

static h5fast_status run_moves(h5fast_filler *f, const h5fast_field *field, uint64_t count)
{
    if (count == 0)
        return H5FAST_OK;
    copy_task context = {f->moves, field, count};
    uint64_t bytes = count * (field->row_bytes + field->out_bytes) / 2;
    h5fast_task task = {.work = copy_rows, .context = &context, .count = count, .grain = 1 + count / 16,
                        .max_threads = bytes <= INLINE_BYTES ? 1 : f->given.threads};
    h5fast_status status = run_task(f, &task);
    return status == H5FAST_OK ? H5FAST_OK : fail_plainly(f, status);
}

/* --- one field ------------------------------------------------------------------------------------------------------ */

static int is_damaged_group(const h5fast_field *field, uint64_t group)
{
    for (uint64_t i = 0; i < field->damaged_count; i++)
        if (field->damaged[i] == group)
            return 1;
    return 0;
}

/* Rows of groups that are known not to decode are not read. */
static void leave_out_damaged(h5fast_filler *f, const h5fast_field *field)
{
    if (field->damaged_count == 0)
        return;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i] && is_damaged_group(field, group_of(field, f->rows[i]))) {
            f->is_missing[i] = 0;
            f->is_damaged[i] = 1;
        }
}

/* Notes the group of the chunk that failed; 0 where that is not how to go on. */
static int note_damage(h5fast_filler *f, h5fast_status status)
{
    if (!f->given.skip_damaged || (status != H5FAST_CORRUPT && status != H5FAST_SHORT && status != H5FAST_CHECKSUM))
        return 0;
    h5fast_field *field = f->given.fields[f->error->field];
    const h5fast_part *part = &field->parts[f->error->part];
    uint64_t across = 1;
    for (int axis = 1; axis < part->storage->rank; axis++)
        across *= part->storage->grid[axis];
    uint64_t group = f->error->what.number / across - part->offset / part->group_rows + part->first_group;
    uint64_t *grown = realloc(field->damaged, (field->damaged_count + 1) * sizeof *grown);
    if (grown == NULL || is_damaged_group(field, group))
        return 0;
    field->damaged = grown;
    field->damaged[field->damaged_count++] = group;
    return 1;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The groups that the missing rows are in, each once, into f->groups. */
static uint64_t missing_groups(h5fast_filler *f, const h5fast_field *field)
{
    uint64_t count = 0, distinct = 0;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i])
            f->groups[count++] = group_of(field, f->rows[i]);
    qsort(f->groups, count, sizeof *f->groups, compare_numbers);
    for (uint64_t i = 0; i < count; i++)
        if (i == 0 || f->groups[i] != f->groups[i - 1])
            f->groups[distinct++] = f->groups[i];
    return distinct;
}

/* The missing rows, straight to the batch, or to where they are cast from. */
static h5fast_status add_missing(h5fast_filler *f, const h5fast_field *field, uint8_t *out)
{
    int is_staged = field->cast != NULL && !field->is_fused;
    for (uint64_t i = 0; i < f->count; i++) {
        if (!f->is_missing[i])
            continue;
        uint8_t *target = is_staged ? f->staged + i * field->row_bytes : out + i * field->out_bytes;
        h5fast_status status = add_point(f, field, f->rows[i], target, 0);
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static h5fast_status cast_staged(h5fast_filler *f, const h5fast_field *field, uint8_t *out)
{
    if (field->cast == NULL || field->is_fused)
        return H5FAST_OK;
    uint64_t count = 0;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i])
            f->moves[count++] = (move){f->staged + i * field->row_bytes, out + i * field->out_bytes};
    return run_moves(f, field, count);
}

static int still_holds(const h5fast_field *field, const pending *p)
{
    return h5fast_rowcache_position(field->store.cache, p->slot) == p->time;
}

/* Room for one more. Those that lost their slot again to rows needed sooner make place first: no more than two for each slot
 * are ever noted. */
static int reserve_pending(h5fast_filler *f, const h5fast_field *field)
{
    if (f->pending_count < f->pending_capacity)
        return 1;
    uint64_t kept = 0;
    for (uint64_t i = 0; i < f->pending_count; i++)
        if (still_holds(field, &f->pending[i]))
            f->pending[kept++] = f->pending[i];
    f->pending_count = kept;
    if (kept < f->pending_capacity / 2)
        return 1;
    uint64_t capacity = f->pending_capacity + f->pending_capacity / 2 + 256;
    pending *grown = realloc(f->pending, capacity * sizeof *grown);
    if (grown == NULL)
        return 0;
    f->bytes += (capacity - f->pending_capacity) * sizeof *grown;
    f->pending = grown;
    f->pending_capacity = capacity;
    return 1;
}

/* Offers the cache the rows of a group that is decoded anyway. */
static h5fast_status offer_group(h5fast_filler *f, const h5fast_field *field, uint64_t group)
{
    h5fast_rowcache *cache = field->store.cache;
    uint64_t begin, end;
    rows_of_group(field, group, &begin, &end);
    uint64_t last = h5fast_items_below(f->given.items, end);
    for (uint64_t rank = h5fast_items_below(f->given.items, begin); rank < last; rank++) {
        uint64_t item = h5fast_items_ranked(f->given.items, rank), time = next_time(f, item, f->first + f->count);
        if (time == H5FAST_NEVER || h5fast_rowcache_find(cache, time) != H5FAST_NO_SLOT)
            continue;
        if (!reserve_pending(f, field))
            return H5FAST_MEMORY;
        uint32_t slot = h5fast_rowcache_offer(cache, time);
        if (slot == H5FAST_NO_SLOT)
            continue;
        field->store.items[slot] = (int64_t)item;
        f->pending[f->pending_count++] = (pending){slot, time, h5fast_items_row(f->given.items, item)};
    }
    return H5FAST_OK;
}

/* Reads what is missing, and with it what its groups hold that is worth keeping. */
static h5fast_status read_and_keep(h5fast_filler *f, uint32_t number, uint8_t *out)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_store *store = &field->store;
    h5fast_status status = H5FAST_OK;
    f->points.count = f->pending_count = 0;
    uint64_t groups = store->kind == H5FAST_STORE_SOME ? missing_groups(f, field) : 0;
    for (uint64_t i = 0; i < groups && status == H5FAST_OK; i++)
        status = offer_group(f, field, f->groups[i]);
    if (status == H5FAST_OK)
        status = add_missing(f, field, out);
    for (uint64_t i = 0; i < f->pending_count && status == H5FAST_OK; i++)
        if (still_holds(field, &f->pending[i]))
            status = add_point(f, field, f->pending[i].row, store->rows + f->pending[i].slot * field->row_bytes, 1);
    if (status != H5FAST_OK)
        fail_plainly(f, status);
    else
        status = read_points(f, number);
    for (uint64_t i = 0; i < f->pending_count && status != H5FAST_OK; i++)
        if (still_holds(field, &f->pending[i]))
            h5fast_rowcache_drop(store->cache, f->pending[i].slot);
    return status != H5FAST_OK ? status : cast_staged(f, field, out);
}

/* The same where there is room for all: whole groups go to the store. */
static h5fast_status read_groups(h5fast_filler *f, uint32_t number)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_store *store = &field->store;
    h5fast_status status = H5FAST_OK;
    f->points.count = 0;
    uint64_t groups = missing_groups(f, field);
    for (uint64_t i = 0; i < groups && status == H5FAST_OK; i++) {
        uint64_t begin, end;
        rows_of_group(field, f->groups[i], &begin, &end);
        uint64_t last = h5fast_items_below(f->given.items, end);
        for (uint64_t rank = h5fast_items_below(f->given.items, begin); rank < last && status == H5FAST_OK; rank++) {
            uint64_t item = h5fast_items_ranked(f->given.items, rank);
            status = add_point(f, field, h5fast_items_row(f->given.items, item), store->rows + item * field->row_bytes, 1);
        }
    }
    status = status == H5FAST_OK ? read_points(f, number) : fail_plainly(f, status);
    for (uint64_t i = 0; i < groups && status == H5FAST_OK; i++)
        set_bit(store->present, f->groups[i]);
    return status;
}

/* Marks what is missing; for what the cache has, f->moves. Returns how many of these there are. */
static uint64_t find_kept(h5fast_filler *f, h5fast_field *field, uint8_t *out)
{
    const h5fast_store *store = &field->store;
    uint64_t moves = 0;
    h5fast_rowcache_advance(store->cache, h5fast_schedule_time(f->given.now, f->first));
    for (uint64_t i = 0; i < f->count; i++) {
        uint64_t position = f->first + i;
        uint32_t slot = h5fast_rowcache_find(store->cache, h5fast_schedule_time(f->given.now, position));
        f->is_missing[i] = slot == H5FAST_NO_SLOT;
        if (slot == H5FAST_NO_SLOT)
            continue;
        f->moves[moves++] = (move){store->rows + slot * field->row_bytes, out + i * field->out_bytes};
        /* Nothing is put into slots before the moves are done, so this one may change hands already. */
        uint64_t time = next_time(f, (uint64_t)f->items[i], position + 1);
        if (time == H5FAST_NEVER || h5fast_rowcache_find(store->cache, time) != H5FAST_NO_SLOT)
            h5fast_rowcache_drop(store->cache, slot);
        else
            h5fast_rowcache_move(store->cache, slot, time);
    }
    return moves;
}

static void count_touched(h5fast_filler *f, h5fast_field *field)
{
    for (uint64_t i = 0; i < f->count && field->touched != NULL; i++) {
        uint64_t group = group_of(field, f->rows[i]);
        if (!bit(field->touched, group)) {
            set_bit(field->touched, group);
            atomic_fetch_add(&field->groups_touched, 1);
        }
    }
}

static h5fast_status fill_field(h5fast_filler *f, uint32_t number, uint8_t *out)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_store *store = &field->store;
    h5fast_status status = H5FAST_OK;
    count_touched(f, field);
    if (store->kind == H5FAST_STORE_SOME)
        status = run_moves(f, field, find_kept(f, field, out));
    else
        for (uint64_t i = 0; i < f->count; i++)
            f->is_missing[i] = store->kind == H5FAST_STORE_NONE || !bit(store->present, group_of(field, f->rows[i]));
    while (status == H5FAST_OK) {
        leave_out_damaged(f, field);
        status = store->kind == H5FAST_STORE_ALL ? read_groups(f, number) : read_and_keep(f, number, out);
        if (status == H5FAST_OK || !note_damage(f, status))
            break;
        status = H5FAST_OK;
    }
    if (status != H5FAST_OK || store->kind != H5FAST_STORE_ALL)
        return status;
    for (uint64_t i = 0; i < f->count; i++) /* damaged rows too: whatever is copied for them is left out in the end */
        f->moves[i] = (move){store->rows + (uint64_t)f->items[i] * field->row_bytes, out + i * field->out_bytes};
    return run_moves(f, field, f->count);
}

/* --- the batch ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const h5fast_filler *filler;
    const int64_t *items;
} settling;

static uint64_t time_of_slot(void *context, uint32_t slot)
{
    const settling *s = context;
    return next_time(s->filler, (uint64_t)s->items[slot], s->filler->given.now->begun);
}

void h5fast_filler_settle(h5fast_filler *f)
{
    for (uint32_t i = 0; i < f->given.field_count; i++) {
        const h5fast_store *store = &f->given.fields[i]->store;
        settling context = {f, store->items};
        if (store->kind != H5FAST_STORE_SOME)
            continue;
        h5fast_rowcache_advance(store->cache, h5fast_schedule_time(f->given.now, f->given.now->begun));
        h5fast_rowcache_rekey(store->cache, time_of_slot, &context);
    }
}

/* Closes the gaps that damaged rows left. Returns how many rows remain. */
static uint64_t close_gaps(h5fast_filler *f, uint8_t *const *outs)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < f->count; i++) {
        if (f->is_damaged[i])
            continue;
        for (uint32_t n = 0; n < f->given.field_count && kept != i; n++) {
            uint64_t size = f->given.fields[n]->out_bytes;
            memcpy(outs[n] + kept * size, outs[n] + i * size, size);
        }
        f->items[kept++] = f->items[i];
    }
    return kept;
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
    batch->count = close_gaps(f, batch->outs);
    batch->dropped = f->count - batch->count;
    return H5FAST_OK;
}
