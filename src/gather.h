/* The engine: runs a plan. Reads chunks in file order, decodes them, and scatters the wanted elements into the output,
 * on the calling thread and the pool's.
 *
 * It calls neither HDF5 nor Python. Errors are recorded by whichever thread meets them; the one of the lowest file
 * offset is kept, so that the outcome does not depend on the number of threads.
 */
#ifndef H5FAST_GATHER_H
#define H5FAST_GATHER_H

#include <pthread.h>

#include "cast.h"
#include "decode.h"
#include "plan.h"
#include "pool.h"
#include "source.h"

typedef struct {
    h5fast_status status;
    int sys_errno;
    int filter;        /* id of the filter that refused; 0: none did */
    uint64_t number;   /* the chunk */
    uint64_t address;  /* its file offset */
    uint64_t size;     /* its stored bytes */
} h5fast_error;

typedef struct {
    h5fast_chunk chunk;
    uint64_t job;
    uint64_t number;
} h5fast_job;

/* Jobs that one read serves: [first, first + count) of the window's jobs. */
typedef struct {
    uint32_t first, count;
} h5fast_unit;

typedef struct {
    /* What to do; set by the caller. Everything outlives the gather. */
    const h5fast_storage *storage;
    const h5fast_index *index;
    const h5fast_selection *selection;
    h5fast_source *source;
    const h5fast_cast *cast; /* or NULL. Needs every row contiguous in its chunk: see h5fast_gather_can_cast */
    uint8_t *out;
    int threads;

    /* The engine's own. */
    h5fast_plan plan;
    uint64_t next_job;       /* first job not in a window yet */
    h5fast_job *jobs;
    h5fast_unit *units;
    uint32_t job_count, unit_count;
    _Atomic int advised;     /* the window's reads were announced to the kernel, or found not to need it */
    int running;             /* a window is with the pool */
    h5fast_task task;
    pthread_mutex_t error_lock;
    h5fast_error error;
    _Atomic uint64_t error_at; /* address of the recorded error; jobs behind it are not worth doing */
} h5fast_gather;

/* Plans. On failure nothing needs to be freed but with h5fast_gather_end. */
h5fast_status h5fast_gather_begin(h5fast_gather *gather) H5FAST_CHECKED;

/* Works for about `seconds`. 1: finished, gather->error tells how. 0: call again. */
int h5fast_gather_run(h5fast_gather *gather, double seconds) H5FAST_CHECKED;

/* Stops early; h5fast_gather_run must still be called until it returns 1. */
void h5fast_gather_cancel(h5fast_gather *gather);

void h5fast_gather_end(h5fast_gather *gather);

/* 1 where rows lie whole and contiguous in their chunks and in the output, as a fused cast needs them. */
int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection);

#endif
