/* Which positions of an epoch this process takes, batch by batch, and where it takes an item next.
 *
 * Several processes (`world` of them) share an epoch: each takes as many positions as the others, and every position is
 * taken by one of them. The workers of a process share its batches, in turn. Positions of all epochs are numbered through, so that "next" crosses from one epoch to the other.
 */
#ifndef H5FAST_SCHEDULE_H
#define H5FAST_SCHEDULE_H

#include "order.h"

typedef struct {
    h5fast_order order;    /* count, and everything that depends on the kind, set by the caller; length is derived */
    uint64_t batch;        /* positions of one process's batch, >= 1 */
    uint64_t rank, world;
    uint64_t worker, workers; /* which of the process's workers, worker < workers; 0 workers are one */
    int drop_last;         /* batches that are not full, and positions that do not divide evenly, are left out; else the
                            * latter are made up from the start of the order */
    uint64_t epoch;
    uint64_t begun;        /* positions that were taken before, by all processes together, or that this worker counts as
                            * such; where each process takes a run of the epoch (blocks), a multiple of world */

    uint64_t stride;       /* positions from one epoch's start to the next one's, as schedule_time counts */
    uint64_t run;          /* of blocks: positions of each process */
    uint64_t steps;        /* batches from there on, of this worker */
    uint64_t full;         /* of them, those of `batch` positions */
    uint64_t share;        /* positions of the last batch where it is not full; else 0 */
    uint64_t process_full, process_share; /* full and share of the process, all its workers together */
} h5fast_schedule;

/* Derives all that stands below begun, and length, and makes the order. H5FAST_MEMORY; free with h5fast_schedule_free in
 * any case. */
h5fast_status h5fast_schedule_make(h5fast_schedule *schedule) H5FAST_CHECKED;
void h5fast_schedule_free(h5fast_schedule *schedule);

/* The positions [first, first + count) of step k < steps, which are this worker's k-th batch. */
uint64_t h5fast_schedule_first(const h5fast_schedule *schedule, uint64_t step, uint64_t *count);

/* The first position >= from that this worker takes and where the item stands; H5FAST_NEVER. */
uint64_t h5fast_schedule_next(const h5fast_schedule *schedule, uint64_t item, uint64_t from);

/* The position among those of all epochs. */
static inline uint64_t h5fast_schedule_time(const h5fast_schedule *schedule, uint64_t position)
{
    return schedule->epoch * schedule->stride + position;
}

/* When this worker takes the item next, counted over all epochs: from this position of `now`'s epoch on, else in that of
 * `next`, which follows it; H5FAST_NEVER. */
uint64_t h5fast_schedule_next_time(const h5fast_schedule *now, const h5fast_schedule *next, uint64_t item, uint64_t from);

#endif
