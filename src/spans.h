/* Spans of bytes, from chunks of many datasets of one file, each to a place of its own: what files in a file are read by.
 *
 * Chunks are read in file order, on the calling thread and the pool's; a filtered one that several spans lie in is decoded
 * once. It calls neither HDF5 nor Python. Of several errors the one of the lowest file offset is kept.
 */
#ifndef H5FAST_SPANS_H
#define H5FAST_SPANS_H

#include <pthread.h>

#include "pool.h"
#include "source.h"
#include "storage.h"

typedef struct {
    uint64_t address;     /* file offset of the chunk's stored bytes; 0: nothing is stored, and zeros are meant */
    uint64_t stored;      /* how many they are */
    uint64_t chunk_bytes; /* and of the chunk as it was, at least 1 */
    uint64_t first;       /* where in that the span begins */
    uint64_t length;      /* bytes of the span; first + length <= chunk_bytes */
    uint32_t mask;        /* the chunk's filter mask */
    uint32_t pipeline;    /* which of the storages says how it is filtered */
} h5fast_slice;

typedef struct {
    /* What to do; set by the caller. Everything outlives the read. */
    const h5fast_slice *spans;
    uint8_t **targets;                     /* for each span, where its bytes go; or NULL: they are only looked at, and */
    uint8_t *outcomes;                     /* here stands for each span what came of it, and no failure ends the read */
    uint64_t count;
    const h5fast_storage **storages;       /* of which only filters and item size matter */
    h5fast_source *source;
    int threads;

    /* The reader's own. */
    uint64_t *order;          /* spans by address */
    int running;
    h5fast_task task;
    pthread_mutex_t error_lock;
    h5fast_status status;     /* of the failed span with the lowest address */
    int sys_errno, filter;
    uint64_t failed;          /* that span */
    _Atomic uint64_t error_at; /* its address; spans behind it are not worth reading */
} h5fast_spans;

/* Orders the spans. Whatever it returns, h5fast_spans_end must follow; on failure nothing else may. The struct stays where it
 * is until then. One thread's, but any number of reads may be under way at once. */
h5fast_status h5fast_spans_begin(h5fast_spans *read) H5FAST_CHECKED;

/* Works for about `seconds`. 1: finished, read->status tells how. 0: call again. */
int h5fast_spans_run(h5fast_spans *read, double seconds) H5FAST_CHECKED;

/* Stops early; h5fast_spans_run must still be called until it returns 1. */
void h5fast_spans_cancel(h5fast_spans *read);

void h5fast_spans_end(h5fast_spans *read);

#endif
