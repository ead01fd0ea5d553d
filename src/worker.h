/* One thread at work on the jobs of a gather: it reads one chunk at a time, decodes it, and scatters what is wanted.
 *
 * A worker belongs to the thread that made it and to no other. What its first part points to is shared by all threads of
 * the gather, outlives them and does not change meanwhile, but for what the source keeps about residency, which is atomic;
 * `out` is written at the places of the worker's own jobs only, and no two jobs share one. No pointer may be NULL but `cast`.
 */
#ifndef H5FAST_WORKER_H
#define H5FAST_WORKER_H

#include "box.h"
#include "cast.h"
#include "decode.h"
#include "plan.h"
#include "source.h"
#include "window.h"

typedef struct {
    const h5fast_plan *plan;
    h5fast_source *source;
    const h5fast_cast *cast;               /* NULL: elements are moved as they are */
    uint8_t *out;
    h5fast_index_kind kind;                /* of the index that the jobs' chunks were found in */
    uint64_t strides[H5FAST_MAX_RANK];     /* of a chunk's axes, in bytes */

    h5fast_scratch *scratch;               /* this thread's own */
    const h5fast_job *job;                 /* the job it is at, and what follows from it */
    const h5fast_group *group;
    uint64_t coordinates[H5FAST_MAX_RANK]; /* of the job's chunk */
    h5fast_box box;
    h5fast_hold *hold;                     /* what is kept of its chunk, or NULL; is_filled once it was decoded there */
    int sys_errno;                         /* why the job failed: what the operating system said, 0 if nothing */
    int filter;                            /* likewise: the id of the filter that refused, 0 if none did */
} h5fast_worker;

/* Turns to a job, which must stay where it is until the next one is begun. Reads nothing and cannot fail. */
static inline void h5fast_worker_begin(h5fast_worker *w, const h5fast_job *job)
{
    const h5fast_plan *plan = w->plan;
    w->job = job;
    w->group = &plan->groups[job->job / plan->chunks_per_group];
    w->filter = 0;
    w->sys_errno = 0;
    h5fast_plan_locate(plan, job->job, w->coordinates);
    h5fast_box_make(&w->box, plan, w->coordinates);
}

/* The i-th point of the job's group. */
static inline int64_t h5fast_worker_point(const h5fast_worker *w, uint64_t i)
{
    const int64_t *order = w->plan->order;
    uint64_t at = w->group->first + i;
    return order != NULL ? order[at] : (int64_t)at;
}

/* Byte offset, within its chunk, that a point adds to the box. */
static inline uint64_t h5fast_worker_offset(const h5fast_worker *w, int64_t point)
{
    const h5fast_storage *storage = w->plan->storage;
    uint64_t offset = 0;
    for (int axis = 0; axis < storage->rank; axis++) {
        const int64_t *coords = w->plan->selection->coords[axis];
        if (coords != NULL)
            offset += ((uint64_t)coords[point] - w->coordinates[axis] * storage->chunk[axis]) * w->strides[axis];
    }
    return offset;
}

/* The smallest range of the chunk that holds every point's share. */
static inline h5fast_want h5fast_worker_wanted(const h5fast_worker *w)
{
    h5fast_want want = {UINT64_MAX, 0};
    for (uint64_t i = 0; i < w->group->count; i++) {
        uint64_t offset = h5fast_worker_offset(w, h5fast_worker_point(w, i)) + w->box.from;
        want.first = offset < want.first ? offset : want.first;
        want.end = offset > want.end ? offset : want.end;
    }
    want.end += w->box.extent;
    return want;
}

/* Does the job that was begun. On failure sys_errno and filter say more, and the job's part of the output is undefined. */
h5fast_status h5fast_worker_run(h5fast_worker *w) H5FAST_CHECKED;

/* Does the job that was begun from its chunk's stored bytes, job->chunk.size of them, which are only read. */
h5fast_status h5fast_worker_decode(h5fast_worker *w, const uint8_t *stored) H5FAST_CHECKED;

/* Reads the chunks of `count` neighbouring jobs at once: returns the bytes from the first one's address on, which live in
 * the scratch until its next read. NULL for a single job, and where it fails: each is then tried alone, so that the error
 * names the right one. */
const uint8_t *h5fast_worker_read_unit(h5fast_worker *w, const h5fast_job *jobs, uint32_t count);

#endif
