/* A pool of native threads that runs the items of a task; it knows nothing of HDF5 or Python.
 *
 * The thread that submits a task works on it too. Several threads may submit at once. After fork() the child starts
 * with an empty pool and grows its own.
 */
#ifndef H5FAST_POOL_H
#define H5FAST_POOL_H

#include <stdatomic.h>
#include "status.h"

typedef struct h5fast_task h5fast_task;

/* What one thread does for a task: take ranges with h5fast_task_next until there are none, then return. */
typedef void (*h5fast_work)(h5fast_task *task, void *context);

struct h5fast_task {
    h5fast_work work;
    void *context;
    uint64_t count;          /* items 0 … count - 1 */
    uint64_t grain;          /* items handed out at a time, >= 1 */
    int max_threads;         /* threads that may work on it at once, the submitting one included, >= 1 */
    /* The rest belongs to the pool. */
    _Atomic uint64_t next;   /* first item not handed out; may run past count */
    _Atomic int cancelled;
    double deadline;         /* seconds, monotonic: the submitting thread looks up at this time */
    int helpers;             /* pool threads inside work(); guarded by the pool's mutex */
    int generation;          /* of the pool that it was submitted to; -1: it never entered the pool */
    h5fast_task *after;      /* the pool's list of open tasks */
};

/* Publishes the task and wakes helpers. The task must stay where it is until h5fast_pool_help has returned 1. */
void h5fast_pool_submit(h5fast_task *task);

/* Works on the submitted task for about `seconds`. 1: every item is done and no helper is inside work() any more, so the
 * task may be freed; or the process was forked meanwhile, and the task is cancelled. 0: time is up, call again. Only the
 * submitting thread calls this. */
int h5fast_pool_help(h5fast_task *task, double seconds) H5FAST_CHECKED;

/* No further items are handed out; h5fast_pool_help must still be called until it returns 1. */
void h5fast_pool_cancel(h5fast_task *task);

/* Inside work(): the next range [*begin, *end). 0 when there is none, or when this thread should look up. */
int h5fast_task_next(h5fast_task *task, int submitter, uint64_t *begin, uint64_t *end) H5FAST_CHECKED;

/* 1 where the calling work() runs in the submitting thread. */
int h5fast_task_is_submitter(const h5fast_task *task);

/* Pool threads alive in this process; for tests. */
int h5fast_pool_size(void);

#endif
