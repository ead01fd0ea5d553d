#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "locks.h"

/* Enough for any machine that trains; a task asks for what h5fast.set_num_threads says. */
enum { MAX_WORKERS = 512 };

static pthread_cond_t work_ready = PTHREAD_COND_INITIALIZER;
static pthread_cond_t helper_left = PTHREAD_COND_INITIALIZER;
static h5fast_task *open_tasks; /* tasks that may have items left; guarded by `pool` */
static int workers;             /* threads started; guarded by `pool` */
static int generation;          /* forks that this process descends from; guarded by `pool` */

/* Threads do not survive fork: the child forgets them and the tasks of other threads, and starts afresh. */
static void start_afresh(void)
{
    pthread_cond_init(&work_ready, NULL);
    pthread_cond_init(&helper_left, NULL);
    open_tasks = NULL;
    workers = 0;
    generation++;
}

H5FAST_FORK_SAFE_LOCK(pool, start_afresh())

/* The task whose submitting thread this is, while it works on it. */
static _Thread_local const h5fast_task *submitted;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int has_items(h5fast_task *task)
{
    return atomic_load_explicit(&task->next, memory_order_relaxed) < task->count &&
           !atomic_load_explicit(&task->cancelled, memory_order_relaxed);
}

static h5fast_task *task_for_helper(void)
{
    for (h5fast_task *task = open_tasks; task != NULL; task = task->after)
        if (task->helpers + 1 < task->max_threads && has_items(task))
            return task;
    return NULL;
}

static void *worker(void *unused)
{
    (void)unused;
    lock_pool();
    for (;;) {
        h5fast_task *task = task_for_helper();
        if (task == NULL) {
            pthread_cond_wait(&work_ready, &pool);
            continue;
        }
        task->helpers++;
        pthread_mutex_unlock(&pool);
        task->work(task, task->context);
        lock_pool();
        if (--task->helpers == 0)
            pthread_cond_broadcast(&helper_left);
    }
    return NULL;
}

/* Starts threads until `wanted` run; fewer is no error, the submitter does the work. Called with the lock held. */
static void grow(int wanted)
{
    if (wanted > MAX_WORKERS)
        wanted = MAX_WORKERS;
    if (workers >= wanted)
        return;
    /* Signals are for Python's main thread: helpers block all but the ones a fault raises in its own thread. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (workers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL) != 0)
            break;
        pthread_detach(thread);
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void h5fast_pool_submit(h5fast_task *task)
{
    atomic_init(&task->next, 0);
    atomic_init(&task->cancelled, 0);
    task->helpers = 0;
    task->after = NULL;
    task->generation = -1;
    uint64_t shares = (task->count + task->grain - 1) / task->grain;
    int wanted = task->max_threads - 1;
    if (shares <= (uint64_t)wanted)
        wanted = shares > 0 ? (int)shares - 1 : 0;
    if (wanted < 1)
        return; /* a task for one thread never enters the list */
    lock_pool();
    task->generation = generation;
    grow(wanted);
    task->after = open_tasks;
    open_tasks = task;
    if (wanted == 1)
        pthread_cond_signal(&work_ready);
    else
        pthread_cond_broadcast(&work_ready);
    pthread_mutex_unlock(&pool);
}

static void close_task(h5fast_task *task)
{
    for (h5fast_task **link = &open_tasks; *link != NULL; link = &(*link)->after)
        if (*link == task) {
            *link = task->after;
            return;
        }
}

int h5fast_pool_help(h5fast_task *task, double seconds)
{
    task->deadline = now() + seconds;
    submitted = task;
    task->work(task, task->context);
    submitted = NULL;
    if (has_items(task))
        return 0;
    if (task->generation < 0)
        return 1;
    lock_pool();
    if (task->generation != generation) { /* forked in the middle: the helpers, and what they had taken, are gone */
        pthread_mutex_unlock(&pool);
        h5fast_pool_cancel(task);
        return 1;
    }
    close_task(task); /* no helper can join from here on */
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    int timed_out = 0;
    while (task->helpers > 0 && !timed_out)
        timed_out = pthread_cond_timedwait(&helper_left, &pool, &until) != 0;
    int done = task->helpers == 0;
    pthread_mutex_unlock(&pool);
    return done;
}

void h5fast_pool_cancel(h5fast_task *task)
{
    atomic_store(&task->cancelled, 1);
}

int h5fast_task_next(h5fast_task *task, int submitter, uint64_t *begin, uint64_t *end)
{
    if (atomic_load_explicit(&task->cancelled, memory_order_relaxed))
        return 0;
    if (submitter && now() > task->deadline)
        return 0;
    uint64_t first = atomic_fetch_add_explicit(&task->next, task->grain, memory_order_relaxed);
    if (first >= task->count)
        return 0;
    *begin = first;
    *end = task->count - first < task->grain ? task->count : first + task->grain;
    return 1;
}

int h5fast_task_is_submitter(const h5fast_task *task)
{
    return submitted == task;
}

int h5fast_pool_size(void)
{
    lock_pool();
    int size = workers;
    pthread_mutex_unlock(&pool);
    return size;
}
