#include "gather.h"

#include <stdlib.h>
#include <string.h>

#include "ahead.h"
#include "worker.h"

/* Waking a helper costs 10 to 100 µs; below this much work, in bytes copied, the caller is done sooner alone. */
static const uint64_t INLINE_WORK = 768u << 10;
/* What a thread takes on at a time. */
static const uint64_t HELPING_BYTES = 1u << 20;
/* How many units ahead the processor's caches are told of; measured with the constants in ahead.c. */
enum { PREFETCH_AHEAD = 4 };
static const uint64_t NO_ERROR = UINT64_MAX;

static void fail(h5fast_gather *g, h5fast_error error)
{
    pthread_mutex_lock(&g->error_lock);
    uint64_t at = atomic_load(&g->error_at);
    /* A damaged index may have several chunks at one place. */
    if (error.address < at || (error.address == at && error.number < g->error.number) || g->error.status == H5FAST_OK) {
        g->error = error;
        atomic_store(&g->error_at, error.address);
    }
    pthread_mutex_unlock(&g->error_lock);
}

static void record(h5fast_gather *g, const h5fast_worker *w, h5fast_status status)
{
    const h5fast_chunk *chunk = &w->job->chunk;
    fail(g, (h5fast_error){status, w->sys_errno, w->filter, w->job->number, chunk->address, chunk->size});
}

static void run_unit(h5fast_gather *g, h5fast_worker *w, const h5fast_unit *unit)
{
    const h5fast_job *jobs = g->window.jobs + unit->first;
    if (jobs[0].chunk.address > atomic_load_explicit(&g->error_at, memory_order_relaxed))
        return;
    w->job = jobs;
    w->hold = NULL;
    const uint8_t *together = h5fast_worker_read_unit(w, jobs, unit->count);
    for (uint32_t i = 0; i < unit->count; i++) {
        h5fast_worker_begin(w, &jobs[i]);
        w->hold = g->window.holds != NULL ? &g->window.holds[unit->first + i] : NULL;
        h5fast_status status =
            together != NULL ? h5fast_worker_decode(w, together + (jobs[i].chunk.address - jobs[0].chunk.address))
                             : h5fast_worker_run(w);
        if (status != H5FAST_OK)
            record(g, w, status);
    }
}

/* What each thread does. A page that vanishes under the mapping lands at the sigsetjmp. What must survive the jump is
 * volatile, or in w, whose address is known outside and which therefore lies in memory. */
static void work(h5fast_task *task, void *context)
{
    h5fast_gather *g = context;
    h5fast_window *window = &g->window;
    h5fast_worker w = {.plan = &g->plan, .source = g->source, .cast = g->cast, .out = g->out, .kind = g->index->kind};
    w.scratch = h5fast_scratch_take();
    if (w.scratch == NULL) {
        fail(g, (h5fast_error){H5FAST_MEMORY, 0, 0, 0, 0, 0});
        h5fast_pool_cancel(task);
        return;
    }
    h5fast_chunk_strides(g->storage, w.strides);
    int submitter = h5fast_task_is_submitter(task);
    int prefetching = g->source->map != NULL && g->storage->filter_count == 0;
    volatile uint64_t at = 0, end = 0;
    h5fast_guard guard;
    guard.begin = g->source->map;
    guard.end = g->source->map != NULL ? g->source->map + g->source->size : NULL;
    if (sigsetjmp(guard.place, 0) != 0) {
        record(g, &w, H5FAST_TRUNCATED);
        at++;
    }
    h5fast_guard_arm(&guard);
    for (;;) {
        if (at >= end) {
            uint64_t first, last;
            if (!h5fast_task_next(task, submitter, &first, &last))
                break;
            at = first;
            end = last;
            h5fast_advise_window(&w, window, first);
        }
        if (prefetching && at + PREFETCH_AHEAD < window->unit_count)
            h5fast_prefetch_job(&w, &window->jobs[window->units[at + PREFETCH_AHEAD].first]);
        run_unit(g, &w, &window->units[at]);
        at++;
    }
    h5fast_guard_disarm();
    h5fast_scratch_return(w.scratch);
}

static void submit_window(h5fast_gather *g)
{
    memset(&g->task, 0, sizeof g->task);
    g->task.work = work;
    g->task.context = g;
    g->task.count = g->window.unit_count;
    g->task.max_threads = h5fast_window_work(&g->window) <= INLINE_WORK ? 1 : g->threads;
    /* Eight helpings a thread keep the last one busy with less than an eighth of its share; a helping of some MiB is done
     * in milliseconds, before Ctrl-C is felt to be late. */
    uint64_t grain = g->window.unit_count / ((uint64_t)g->task.max_threads * 8);
    uint64_t most = HELPING_BYTES / g->storage->chunk_bytes;
    grain = grain < most ? grain : most;
    g->task.grain = grain < 1 ? 1 : grain;
    h5fast_pool_submit(&g->task);
    g->running = 1;
}

h5fast_status h5fast_gather_begin(h5fast_gather *g)
{
    g->running = 0;
    g->decodes = g->stored_bytes = 0;
    memset(&g->window, 0, sizeof g->window);
    g->error = (h5fast_error){H5FAST_OK, 0, 0, 0, 0, 0};
    atomic_init(&g->error_at, NO_ERROR);
    pthread_mutex_init(&g->error_lock, NULL);
    if (g->source->windows != NULL)
        h5fast_guard_install();
    h5fast_status status = h5fast_plan_make(&g->plan, g->storage, g->selection);
    return status == H5FAST_OK ? h5fast_window_make(&g->window, &g->plan, g->index, g->source, g->kept) : status;
}

static int stopped(const h5fast_gather *g)
{
    return g->error.status != H5FAST_OK || h5fast_window_is_last(&g->window);
}

int h5fast_gather_run(h5fast_gather *g, double seconds)
{
    if (!g->running) {
        if (stopped(g))
            return 1;
        h5fast_window_next(&g->window);
        g->decodes += g->window.decode_count;
        g->stored_bytes += g->window.stored_bytes;
        submit_window(g);
    }
    int done = h5fast_pool_help(&g->task, seconds);
    if (!done)
        return 0;
    g->running = 0;
    h5fast_window_release(&g->window);
    if (atomic_load(&g->task.cancelled))
        h5fast_gather_cancel(g); /* the pool was lost in a fork */
    return stopped(g);
}

void h5fast_gather_cancel(h5fast_gather *g)
{
    pthread_mutex_lock(&g->error_lock);
    if (g->error.status == H5FAST_OK)
        g->error.status = H5FAST_CANCELLED;
    pthread_mutex_unlock(&g->error_lock);
    if (g->running)
        h5fast_pool_cancel(&g->task);
}

void h5fast_gather_end(h5fast_gather *g)
{
    if (g->source->windows != NULL)
        h5fast_guard_remove();
    pthread_mutex_destroy(&g->error_lock);
    h5fast_window_free(&g->window);
    h5fast_plan_free(&g->plan);
}

int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection)
{
    int64_t row = (int64_t)storage->itemsize;
    for (int axis = storage->rank - 1; axis > 0; axis--) {
        if (selection->coords[axis] != NULL || selection->start[axis] != 0 || selection->step[axis] != 1 ||
            (uint64_t)selection->count[axis] != storage->shape[axis] || storage->chunk[axis] != storage->shape[axis])
            return 0;
        row *= selection->count[axis];
    }
    return row > 0;
}
