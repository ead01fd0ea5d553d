#include "plan.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t key;
    int64_t point;
} keyed;

enum { RADIX_BITS = 11, RADIX = 1 << RADIX_BITS };

/* Stable least-significant-digit radix sort; `spare` has as many places. Returns the array that holds the result. */
static keyed *radix_sort(keyed *items, keyed *spare, uint64_t count, uint64_t largest)
{
    for (int shift = 0; shift < 64 && (largest >> shift) != 0; shift += RADIX_BITS) {
        uint32_t place[RADIX];
        memset(place, 0, sizeof place);
        for (uint64_t i = 0; i < count; i++)
            place[(items[i].key >> shift) & (RADIX - 1)]++;
        uint32_t sum = 0;
        for (int digit = 0; digit < RADIX; digit++) {
            uint32_t here = place[digit];
            place[digit] = sum;
            sum += here;
        }
        for (uint64_t i = 0; i < count; i++)
            spare[place[(items[i].key >> shift) & (RADIX - 1)]++] = items[i];
        keyed *swap = items;
        items = spare;
        spare = swap;
    }
    return items;
}

static int compare_keyed(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->point < y->point ? -1 : x->point > y->point;
}

/* The radix sort counts in 32 bits; below a few dozen points its tables cost more than comparing. */
static keyed *sort_keys(keyed *items, keyed *spare, uint64_t count, uint64_t largest)
{
    if (count < 64 || count > UINT32_MAX) {
        qsort(items, count, sizeof *items, compare_keyed);
        return items;
    }
    return radix_sort(items, spare, count, largest);
}

/* Key of every point; returns 1 where the keys are ascending already. */
static int make_keys(const h5fast_plan *plan, keyed *items, uint64_t *largest)
{
    const h5fast_storage *storage = plan->storage;
    const h5fast_selection *selection = plan->selection;
    uint64_t count = (uint64_t)selection->point_count;
    int first_axis = 1;
    for (int axis = 0; axis < storage->rank; axis++) {
        const int64_t *coords = selection->coords[axis];
        if (coords == NULL)
            continue;
        uint64_t chunk = storage->chunk[axis], grid = storage->grid[axis];
        for (uint64_t i = 0; i < count; i++) {
            uint64_t coordinate = chunk == 1 ? (uint64_t)coords[i] : (uint64_t)coords[i] / chunk;
            items[i].key = first_axis ? coordinate : items[i].key * grid + coordinate;
            items[i].point = (int64_t)i;
        }
        first_axis = 0;
    }
    uint64_t previous = 0, most = 0;
    int ascending = 1;
    for (uint64_t i = 0; i < count; i++) {
        ascending &= items[i].key >= previous;
        previous = items[i].key;
        most = previous > most ? previous : most;
    }
    *largest = most;
    return ascending;
}

static h5fast_status group_points(h5fast_plan *plan, const keyed *items, int keep_order)
{
    uint64_t count = (uint64_t)plan->selection->point_count, groups = 1;
    for (uint64_t i = 1; i < count; i++)
        groups += items[i].key != items[i - 1].key;
    plan->groups = malloc(groups * sizeof *plan->groups);
    if (keep_order)
        plan->order = malloc(count * sizeof *plan->order);
    if (plan->groups == NULL || (keep_order && plan->order == NULL))
        return H5FAST_MEMORY;
    uint64_t group = 0;
    plan->groups[0] = (h5fast_group){0, 0, items[0].key};
    for (uint64_t i = 0; i < count; i++) {
        if (items[i].key != plan->groups[group].key)
            plan->groups[++group] = (h5fast_group){i, 0, items[i].key};
        plan->groups[group].count++;
        if (keep_order)
            plan->order[i] = items[i].point;
    }
    plan->group_count = groups;
    return H5FAST_OK;
}

static h5fast_status sort_points(h5fast_plan *plan)
{
    uint64_t count = (uint64_t)plan->selection->point_count;
    if (count > SIZE_MAX / (2 * sizeof(keyed)))
        return H5FAST_MEMORY;
    keyed *items = malloc(2 * count * sizeof *items);
    if (items == NULL)
        return H5FAST_MEMORY;
    uint64_t largest = 0;
    int ascending = make_keys(plan, items, &largest);
    keyed *sorted = ascending ? items : sort_keys(items, items + count, count, largest);
    h5fast_status status = group_points(plan, sorted, !ascending);
    free(items);
    return status;
}

static h5fast_status one_group(h5fast_plan *plan)
{
    plan->groups = malloc(sizeof *plan->groups);
    if (plan->groups == NULL)
        return H5FAST_MEMORY;
    plan->groups[0] = (h5fast_group){0, 1, 0};
    plan->group_count = 1;
    return H5FAST_OK;
}

/* Chunk coordinates that the ranges touch. Returns 1 where some range is empty. */
static int cover_ranges(h5fast_plan *plan)
{
    const h5fast_storage *storage = plan->storage;
    const h5fast_selection *selection = plan->selection;
    plan->chunks_per_group = 1;
    for (int axis = 0; axis < storage->rank; axis++) {
        plan->range_first[axis] = 0;
        plan->range_chunks[axis] = 1;
        if (selection->coords[axis] != NULL)
            continue;
        if (selection->count[axis] == 0)
            return 1;
        uint64_t chunk = storage->chunk[axis], start = (uint64_t)selection->start[axis];
        uint64_t last = start + (uint64_t)(selection->count[axis] - 1) * (uint64_t)selection->step[axis];
        plan->range_first[axis] = start / chunk;
        plan->range_chunks[axis] = last / chunk - start / chunk + 1;
        plan->chunks_per_group *= plan->range_chunks[axis]; /* at most the grid, which was checked */
    }
    return selection->point_count == 0;
}

h5fast_status h5fast_plan_make(h5fast_plan *plan, const h5fast_storage *storage, const h5fast_selection *selection)
{
    memset(plan, 0, sizeof *plan);
    plan->storage = storage;
    plan->selection = selection;
    if (cover_ranges(plan))
        return H5FAST_OK; /* nothing selected: no jobs */
    int has_points = 0;
    for (int axis = 0; axis < storage->rank; axis++)
        has_points |= selection->coords[axis] != NULL;
    h5fast_status status = has_points ? sort_points(plan) : one_group(plan);
    if (status == H5FAST_OK)
        plan->job_count = plan->group_count * plan->chunks_per_group; /* <= points * grid, each job one real chunk */
    return status;
}

void h5fast_plan_free(h5fast_plan *plan)
{
    free(plan->order);
    free(plan->groups);
    plan->order = NULL;
    plan->groups = NULL;
}

uint64_t h5fast_plan_locate(const h5fast_plan *plan, uint64_t job, uint64_t *coordinates)
{
    const h5fast_storage *storage = plan->storage;
    uint64_t key = plan->groups[plan->chunks_per_group == 1 ? job : job / plan->chunks_per_group].key;
    uint64_t within = plan->chunks_per_group == 1 ? 0 : job % plan->chunks_per_group;
    for (int axis = storage->rank - 1; axis >= 0; axis--) {
        if (plan->selection->coords[axis] != NULL) {
            coordinates[axis] = key % storage->grid[axis];
            key /= storage->grid[axis];
        } else if (plan->range_chunks[axis] == 1) {
            coordinates[axis] = plan->range_first[axis];
        } else {
            coordinates[axis] = plan->range_first[axis] + within % plan->range_chunks[axis];
            within /= plan->range_chunks[axis];
        }
    }
    uint64_t number = 0;
    for (int axis = 0; axis < storage->rank; axis++)
        number = number * storage->grid[axis] + coordinates[axis];
    return number;
}

h5fast_span h5fast_plan_span(const h5fast_plan *plan, int axis, uint64_t coordinate)
{
    const h5fast_selection *selection = plan->selection;
    uint64_t chunk = plan->storage->chunk[axis], begin = coordinate * chunk;
    uint64_t start = (uint64_t)selection->start[axis], step = (uint64_t)selection->step[axis];
    uint64_t count = (uint64_t)selection->count[axis];
    uint64_t first = start >= begin ? 0 : (begin - start + step - 1) / step;
    uint64_t end = begin + chunk; /* may pass the extent; the selection does not */
    uint64_t last = end <= start ? 0 : (end - start + step - 1) / step; /* first index beyond the chunk */
    if (last > count)
        last = count;
    if (first >= last)
        return (h5fast_span){0, 0, 0};
    return (h5fast_span){start + first * step - begin, last - first, (int64_t)first};
}
