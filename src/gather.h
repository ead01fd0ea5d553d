/* The engine: runs a plan. Reads chunks in file order, decodes them, and scatters the wanted elements into the output,
 * on the calling thread and the pool's.
 *
 * It calls neither HDF5 nor Python. Errors are recorded by whichever thread meets them; the one of the lowest file
 * offset is kept, so that the outcome does not depend on the number of threads. No pointer may be NULL but `cast`.
 */
#ifndef H5FAST_GATHER_H
#define H5FAST_GATHER_H

#include <pthread.h>

#include "cast.h"
#include "plan.h"
#include "pool.h"
#include "source.h"
#include "window.h"

typedef struct {
    h5fast_status status;
    int sys_errno;
    int filter;        /* id of the filter that refused; 0: none did */
    uint64_t number;   /* the chunk */
    uint64_t address;  /* its file offset */
    uint64_t size;     /* its stored bytes */
} h5fast_error;

typedef struct {
    /* What to do; set by the caller. Everything outlives the gather. */
    const h5fast_storage *storage;
    const h5fast_index *index;
    const h5fast_selection *selection;
    h5fast_source *source;
    const h5fast_cast *cast; /* or NULL. Needs every row contiguous in its chunk: see h5fast_gather_can_cast */
    h5fast_kept *kept;       /* decoded chunks of the dataset, or NULL */
    uint8_t *out;
    int threads;

    /* The engine's own. */
    h5fast_plan plan;
    h5fast_window window;
    int running;             /* a window is with the pool */
    h5fast_task task;
    pthread_mutex_t error_lock;
    h5fast_error error;
    uint64_t decodes;        /* chunks decoded, and bytes of theirs in the file */
    uint64_t stored_bytes;
    _Atomic uint64_t error_at; /* address of the recorded error; jobs behind it are not worth doing */
} h5fast_gather;

/* Plans. Whatever it returns, h5fast_gather_end must follow; on failure nothing else may. The gather stays where it is until
 * then: its threads know it by address. begin, run, cancel and end are one thread's; any number of gathers may be under way
 * at once, sharing storage, index, selection, cast and source, in as many threads. */
h5fast_status h5fast_gather_begin(h5fast_gather *gather) H5FAST_CHECKED;

/* Works for about `seconds`. 1: finished, gather->error tells how. 0: call again; the pool's threads go on meanwhile. */
int h5fast_gather_run(h5fast_gather *gather, double seconds) H5FAST_CHECKED;

/* Stops early; h5fast_gather_run must still be called until it returns 1. */
void h5fast_gather_cancel(h5fast_gather *gather);

/* Frees what the engine made, and none of what the caller set. Not between a run that returned 0 and one that returns 1. */
void h5fast_gather_end(h5fast_gather *gather);

/* 1 where rows lie whole and contiguous in their chunks and in the output, as a fused cast needs them. */
int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection);

#endif
