/* The gather plan: which chunks a selection touches, and which part of each, in pure arithmetic.
 *
 * A selection drives every axis either by a range or, together with the other point axes, by a list of points. Points
 * are grouped by the chunk they fall into, so that a chunk is read and decoded once however often and in whatever order
 * its rows are asked for. Nothing here reads a file.
 *
 * A plan that is made does not change, so any thread may read it; it borrows storage and selection, which outlive it. No
 * pointer may be NULL.
 */
#ifndef H5FAST_PLAN_H
#define H5FAST_PLAN_H

#include "storage.h"

typedef struct {
    /* Range axes: elements start, start + step, … (count of them, step >= 1). For point axes only coords is used. */
    int64_t start[H5FAST_MAX_RANK];
    int64_t count[H5FAST_MAX_RANK];
    int64_t step[H5FAST_MAX_RANK];
    int64_t out_stride[H5FAST_MAX_RANK];      /* bytes of the output moved per element of a range axis */
    const int64_t *coords[H5FAST_MAX_RANK];   /* point axes: one coordinate a point, within the extent; else NULL */
    int64_t point_count;                      /* 1 where there is no point axis */
    int64_t point_stride;                     /* bytes of the output moved per point */
    uint8_t *const *targets;                  /* or where each point's share goes, instead; NULL: it goes to the output */
    const uint8_t *uncast;                    /* with targets and a cast: 1 for points moved as they are; NULL: none is */
} h5fast_selection;

/* Points that share their chunk coordinates on all point axes. */
typedef struct {
    uint64_t first; /* position in order[] */
    uint64_t count;
    uint64_t key;   /* row-major number of those chunk coordinates on the grid of the point axes */
} h5fast_group;

/* The part of a selection that lies in one chunk, along one range axis. */
typedef struct {
    uint64_t low;      /* first element, relative to the chunk */
    uint64_t count;    /* elements, selection's step apart; 0 where the step jumps over the chunk */
    int64_t out_first; /* index of the first one along the selection's axis */
} h5fast_span;

typedef struct {
    const h5fast_storage *storage;
    const h5fast_selection *selection;
    int64_t *order;        /* points, sorted by group; NULL where they are already in order */
    h5fast_group *groups;
    uint64_t group_count;
    uint64_t range_first[H5FAST_MAX_RANK]; /* first chunk coordinate touched on a range axis */
    uint64_t range_chunks[H5FAST_MAX_RANK];/* chunk coordinates touched there; 1 on point axes */
    uint64_t chunks_per_group;             /* product of range_chunks */
    uint64_t job_count;                    /* group_count * chunks_per_group */
} h5fast_plan;

/* Makes the plan. H5FAST_MEMORY if it does not fit. Free with h5fast_plan_free, also after a failure. */
h5fast_status h5fast_plan_make(h5fast_plan *plan, const h5fast_storage *storage, const h5fast_selection *selection)
    H5FAST_CHECKED;
void h5fast_plan_free(h5fast_plan *plan);

/* Grid coordinates of the chunk of a job; returns its number. */
uint64_t h5fast_plan_locate(const h5fast_plan *plan, uint64_t job, uint64_t *coordinates);

/* What the selection takes of the chunk at `coordinate` along a range axis. */
h5fast_span h5fast_plan_span(const h5fast_plan *plan, int axis, uint64_t coordinate);

#endif
