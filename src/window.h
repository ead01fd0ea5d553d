/* Windows of a plan: its jobs in portions, with their chunks found, in file order, and neighbours joined into one read.
 *
 * A dataset of a hundred million chunks then needs no table of jobs. Nothing here reads a file, and sizes and addresses,
 * which come from one, are trusted in nothing but arithmetic that cannot wrap. A window is changed by one thread only, the
 * gather's; others read it meanwhile, and set `advised`. No pointer may be NULL.
 */
#ifndef H5FAST_WINDOW_H
#define H5FAST_WINDOW_H

#include "kept.h"
#include "plan.h"
#include "source.h"

/* One chunk, and what the plan wants of it. */
typedef struct {
    h5fast_chunk chunk;
    uint64_t job;    /* number in the plan */
    uint64_t number; /* of the chunk */
} h5fast_job;

/* Jobs that one read serves: [first, first + count) of the window's jobs. */
typedef struct {
    uint32_t first, count;
} h5fast_unit;

typedef struct {
    const h5fast_plan *plan; /* these three outlive the window */
    const h5fast_index *index;
    const h5fast_source *source;
    h5fast_kept *kept;       /* decoded chunks of the dataset, or NULL */
    uint64_t next_job;       /* first job of the plan not in a window yet */
    h5fast_job *jobs;        /* owned, as the units are */
    h5fast_unit *units;
    h5fast_hold *holds;      /* what `kept` has of each job's chunk; NULL: nothing is asked of it. Owned */
    uint32_t job_count, unit_count;
    uint32_t decode_count;   /* jobs that decode a chunk, and bytes that their chunks have in the file */
    uint64_t stored_bytes;
    _Atomic int advised;     /* the window's reads were announced to the kernel, or found not to need it */
} h5fast_window;

/* Allocates; the window stays empty until h5fast_window_next. H5FAST_MEMORY if it does not fit. Free with
 * h5fast_window_free, also after a failure. */
h5fast_status h5fast_window_make(h5fast_window *window, const h5fast_plan *plan, const h5fast_index *index,
                                 const h5fast_source *source, h5fast_kept *kept) H5FAST_CHECKED;

/* A window of zeros may be freed too. */
void h5fast_window_free(h5fast_window *window);

/* Puts the plan's next jobs into the window, and takes hold of what is kept of their chunks until h5fast_window_release.
 * Neither while a thread is at work on the window. */
void h5fast_window_next(h5fast_window *window);
void h5fast_window_release(h5fast_window *window);

/* 1 where no job of the plan is left for a next window. */
int h5fast_window_is_last(const h5fast_window *window);

/* Bytes that the window's jobs decode or move: decoding costs about ten times a copy. */
uint64_t h5fast_window_work(const h5fast_window *window);

#endif
