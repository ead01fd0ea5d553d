#include "window.h"

#include <stdlib.h>
#include <string.h>

/* Jobs of one window: 800 KB of them and of units. */
enum { WINDOW_JOBS = 16384 };
/* Stored chunks closer than a page are read together, up to a size that stays in the second-level cache. */
static const uint64_t UNIT_GAP = 4096, UNIT_BYTES = 256u << 10;
/* Unfiltered chunks above this are read row by row, not with their neighbours. */
static const uint64_t SMALL_RAW_CHUNK = 16u << 10;
/* Finding scattered bytes costs a job about as much as copying this many. */
static const uint64_t JOB_WORK = 1024;

h5fast_status h5fast_window_make(h5fast_window *window, const h5fast_plan *plan, const h5fast_index *index,
                                 const h5fast_source *source, h5fast_kept *kept)
{
    memset(window, 0, sizeof *window);
    window->plan = plan;
    window->index = index;
    window->source = source;
    window->kept = kept;
    uint64_t jobs = plan->job_count < WINDOW_JOBS ? plan->job_count : WINDOW_JOBS;
    window->jobs = malloc((jobs > 0 ? jobs : 1) * sizeof *window->jobs);
    window->units = malloc((jobs > 0 ? jobs : 1) * sizeof *window->units);
    if (window->jobs == NULL || window->units == NULL)
        return H5FAST_MEMORY;
    /* A read of more chunks than are kept would drive them all out. Without the memory for holds it does without them. */
    if (kept != NULL && plan->job_count <= h5fast_kept_slots(kept) && plan->job_count <= WINDOW_JOBS)
        window->holds = malloc((jobs > 0 ? jobs : 1) * sizeof *window->holds);
    return H5FAST_OK;
}

void h5fast_window_free(h5fast_window *window)
{
    free(window->jobs);
    free(window->units);
    free(window->holds);
}

static int compare_jobs(const void *a, const void *b)
{
    const h5fast_job *x = a, *y = b;
    return x->chunk.address < y->chunk.address ? -1 : x->chunk.address > y->chunk.address;
}

/* Does a stepped range jump over this chunk on some axis? */
static int is_skipped(const h5fast_plan *plan, const uint64_t *coordinates)
{
    const h5fast_selection *selection = plan->selection;
    for (int axis = 0; axis < plan->storage->rank; axis++)
        if (selection->coords[axis] == NULL && selection->step[axis] > 1 &&
            h5fast_plan_span(plan, axis, coordinates[axis]).count == 0)
            return 1;
    return 0;
}

static int is_there(const h5fast_window *window, uint32_t job)
{
    return window->holds != NULL && window->holds[job].bytes != NULL && window->holds[job].is_filled;
}

/* Is the job read together with the one before it, in a unit that begins at this file offset? */
static int joins(const h5fast_window *window, uint32_t job, uint64_t unit_begin)
{
    const h5fast_job *previous = &window->jobs[job - 1], *next = &window->jobs[job];
    if (is_there(window, job - 1) || is_there(window, job))
        return 0;
    const h5fast_storage *storage = window->plan->storage;
    if (storage->filter_count == 0 && storage->chunk_bytes > SMALL_RAW_CHUNK)
        return 0;
    /* Sizes and addresses come from the file: within it, no sum of theirs can wrap. */
    if (!h5fast_source_holds(window->source, previous->chunk.address, previous->chunk.size) ||
        !h5fast_source_holds(window->source, next->chunk.address, next->chunk.size))
        return 0;
    uint64_t end = previous->chunk.address + previous->chunk.size;
    return previous->chunk.address != 0 && next->chunk.address >= end && next->chunk.address - end <= UNIT_GAP &&
           next->chunk.address - unit_begin <= UNIT_BYTES && next->chunk.size <= UNIT_BYTES;
}

static void make_units(h5fast_window *window)
{
    window->unit_count = 0;
    for (uint32_t i = 0; i < window->job_count; i++) {
        h5fast_unit *unit = window->unit_count > 0 ? &window->units[window->unit_count - 1] : NULL;
        if (unit != NULL && joins(window, i, window->jobs[unit->first].chunk.address))
            unit->count++;
        else
            window->units[window->unit_count++] = (h5fast_unit){i, 1};
    }
}

static void take_hold(h5fast_window *window)
{
    window->decode_count = 0;
    window->stored_bytes = 0;
    int decodes = window->plan->storage->filter_count > 0;
    for (uint32_t i = 0; i < window->job_count; i++) {
        const h5fast_job *job = &window->jobs[i];
        if (window->holds != NULL) {
            window->holds[i] = (h5fast_hold){NULL, 0, 0};
            if (job->chunk.address != 0)
                h5fast_kept_touch(window->kept, job->number, &window->holds[i]);
        }
        if (decodes && job->chunk.address != 0 && !is_there(window, i)) {
            window->decode_count++;
            window->stored_bytes += job->chunk.size;
        }
    }
}

void h5fast_window_release(h5fast_window *window)
{
    if (window->holds == NULL)
        return;
    for (uint32_t i = 0; i < window->job_count; i++)
        if (window->holds[i].bytes != NULL)
            h5fast_kept_release(window->kept, &window->holds[i]);
    window->job_count = 0;
}

void h5fast_window_next(h5fast_window *window)
{
    const h5fast_plan *plan = window->plan;
    uint64_t coordinates[H5FAST_MAX_RANK], previous = 0;
    int ascending = 1;
    window->job_count = 0;
    while (window->next_job < plan->job_count && window->job_count < WINDOW_JOBS) {
        uint64_t number = h5fast_plan_locate(plan, window->next_job, coordinates);
        if (!is_skipped(plan, coordinates)) {
            h5fast_chunk chunk = h5fast_index_find(plan->storage, window->index, number, coordinates);
            window->jobs[window->job_count++] = (h5fast_job){chunk, window->next_job, number};
            ascending &= chunk.address >= previous;
            previous = chunk.address;
        }
        window->next_job++;
    }
    if (!ascending)
        qsort(window->jobs, window->job_count, sizeof *window->jobs, compare_jobs);
    take_hold(window);
    make_units(window);
    atomic_store(&window->advised, window->unit_count < 2);
}

int h5fast_window_is_last(const h5fast_window *window)
{
    return window->next_job >= window->plan->job_count;
}

uint64_t h5fast_window_work(const h5fast_window *window)
{
    const h5fast_storage *storage = window->plan->storage;
    const h5fast_selection *selection = window->plan->selection;
    if (storage->filter_count > 0)
        return (9 * window->decode_count + window->job_count) * storage->chunk_bytes;
    uint64_t row = storage->itemsize;
    for (int axis = 0; axis < storage->rank; axis++)
        if (selection->coords[axis] == NULL)
            row *= (uint64_t)selection->count[axis];
    uint64_t whole = window->job_count * storage->chunk_bytes;
    uint64_t asked = row * (uint64_t)selection->point_count;
    return (asked < whole ? asked : whole) + JOB_WORK * window->job_count;
}
