/* The thread pool alone: many tasks from many threads at once, stopped, sliced, forked in the middle.
 *
 * Prevents: an item that runs twice or never, a helper that is still inside work() when the task is freed, more threads
 * than allowed, a child of fork() that waits for threads it does not have.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "engine.h"

#include "../../src/pool.h"

enum { MOST_ITEMS = 3000, SUBMITTERS = 8 };

typedef struct {
    h5fast_task task;
    _Atomic uint8_t *runs;     /* of each item */
    _Atomic int inside, most;  /* threads in work(), now and at most */
    _Atomic int calls_here;    /* of work() that were told to be the submitter's */
    uint64_t cancel_at;        /* item whose run cancels the task; UINT64_MAX: none does */
    int busy;                  /* idle loops that an item costs */
    pthread_t submitter;
} job;

/* A source of random numbers of one's own: submitting threads share none. */
static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void run_item(job *j, uint64_t item)
{
    for (volatile int idle = 0; idle < j->busy; idle = idle + 1)
        ;
    atomic_fetch_add(&j->runs[item], 1);
    if (item == j->cancel_at)
        h5fast_pool_cancel(&j->task);
}

/* Helpers leave signals to the threads of the program, but for those that a fault raises in the helper itself. */
static void check_thread(const job *j, int submitter)
{
    sigset_t blocked;
    CHECK(submitter == pthread_equal(pthread_self(), j->submitter), "is_submitter says %d", submitter);
    if (submitter)
        return;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    CHECK(sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGALRM), "a helper takes signals");
    CHECK(!sigismember(&blocked, SIGBUS) && !sigismember(&blocked, SIGSEGV), "a helper blocks faults");
}

static void work(h5fast_task *task, void *context)
{
    job *j = context;
    uint64_t begin, end;
    int now = atomic_fetch_add(&j->inside, 1) + 1, most = atomic_load(&j->most);
    while (now > most && !atomic_compare_exchange_weak(&j->most, &most, now))
        ;
    int submitter = h5fast_task_is_submitter(task);
    check_thread(j, submitter);
    while (h5fast_task_next(task, submitter, &begin, &end)) {
        CHECK(begin < end && end <= task->count && end - begin <= task->grain, "%llu to %llu",
              (unsigned long long)begin, (unsigned long long)end);
        for (uint64_t item = begin; item < end; item++)
            run_item(j, item);
    }
    atomic_fetch_sub(&j->inside, 1);
}

static job *make_job(uint64_t count, uint64_t grain, int threads)
{
    job *j = calloc(1, sizeof *j);
    CHECK(j != NULL, "memory");
    j->runs = calloc(count + 1, 1);
    CHECK(j->runs != NULL, "memory");
    j->cancel_at = UINT64_MAX;
    j->submitter = pthread_self();
    j->task.work = work;
    j->task.context = j;
    j->task.count = count;
    j->task.grain = grain;
    j->task.max_threads = threads;
    return j;
}

/* Helps in slices; each is twice as long as the one before, so that even a slow machine gets somewhere. */
static void finish(job *j, double seconds)
{
    while (!h5fast_pool_help(&j->task, seconds))
        seconds *= 2;
}

static void check_and_free(job *j)
{
    CHECK(atomic_load(&j->inside) == 0, "a thread is still inside");
    CHECK(atomic_load(&j->most) <= j->task.max_threads, "%d threads, %d allowed", j->most, j->task.max_threads);
    for (uint64_t item = 0; item < j->task.count; item++) {
        int runs = atomic_load(&j->runs[item]);
        CHECK(runs == 1 || (runs == 0 && j->task.cancelled), "item %llu ran %d times", (unsigned long long)item, runs);
    }
    memset((void *)j->runs, 0xee, j->task.count);
    free((void *)j->runs);
    memset(j, 0xee, sizeof *j); /* a helper that still looks at it finds a wild pointer */
    free(j);
}

static void one_task(uint64_t *state)
{
    static const uint64_t counts[] = {0, 1, 2, 3, 17, MOST_ITEMS};
    static const double slices[] = {1e-7, 2e-6, 1e-4, 10};
    uint64_t count = draw(state) % 3 ? draw(state) % 200 : counts[draw(state) % 6];
    job *j = make_job(count, 1 + draw(state) % (draw(state) % 2 ? 4 : 100), 1 + (int)(draw(state) % 8));
    j->busy = (int)(draw(state) % 300);
    if (draw(state) % 4 == 0)
        j->cancel_at = draw(state) % (count + 1);
    h5fast_pool_submit(&j->task);
    if (draw(state) % 16 == 0)
        h5fast_pool_cancel(&j->task);
    finish(j, slices[draw(state) % 4]);
    check_and_free(j);
}

static _Atomic int stop;

static void *submit_many(void *seed)
{
    uint64_t state = (uint64_t)(uintptr_t)seed;
    for (int round = 0, end = rounds(4000); round < end; round++)
        one_task(&state);
    return NULL;
}

static void *submit_until_stopped(void *seed)
{
    uint64_t state = (uint64_t)(uintptr_t)seed;
    while (!atomic_load(&stop))
        one_task(&state);
    return NULL;
}

static void test_small_tasks(void)
{
    for (uint64_t count = 0; count < 20; count++)
        for (uint64_t grain = 1; grain < 22; grain += 3)
            for (int threads = 1; threads <= 4; threads++) {
                job *j = make_job(count, grain, threads);
                h5fast_pool_submit(&j->task);
                finish(j, 10);
                check_and_free(j);
            }
}

static void test_many_submitters(void)
{
    pthread_t threads[SUBMITTERS];
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        CHECK(pthread_create(&threads[i], NULL, submit_many, (void *)(i + 1)) == 0, "thread");
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(h5fast_pool_size() <= 7, "%d threads for tasks of at most 8", h5fast_pool_size());
}

/* Another thread cancels, at any time between submit and the end. */
static void *cancel_soon(void *task)
{
    struct timespec pause = {0, 20000};
    nanosleep(&pause, NULL);
    h5fast_pool_cancel(task);
    return NULL;
}

static void test_cancel_from_outside(void)
{
    for (int round = 0, end = rounds(500); round < end; round++) {
        pthread_t canceller;
        job *j = make_job(MOST_ITEMS, 1, 4);
        j->busy = round;
        h5fast_pool_submit(&j->task);
        CHECK(pthread_create(&canceller, NULL, cancel_soon, &j->task) == 0, "thread");
        finish(j, round % 2 ? 1e-5 : 10);
        pthread_join(canceller, NULL);
        check_and_free(j);
    }
}

/* In the child: nobody helps yet, tasks work, helpers appear. */
static void use_pool_in_child(uint64_t seed)
{
    CHECK(h5fast_pool_size() == 0, "%d threads after fork", h5fast_pool_size());
    if (UNDER_SANITIZER)
        _exit(0);
    for (int round = 0; round < 5; round++)
        one_task(&seed);
    job *j = make_job(100, 1, 3);
    h5fast_pool_submit(&j->task);
    finish(j, 10);
    check_and_free(j);
    CHECK(h5fast_pool_size() >= 2, "%d threads", h5fast_pool_size());
    _exit(0);
}

static void test_fork(void)
{
    pthread_t threads[SUBMITTERS];
    atomic_store(&stop, 0);
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        CHECK(pthread_create(&threads[i], NULL, submit_until_stopped, (void *)(i + 100)) == 0, "thread");
    for (int round = 0, end = rounds(200); round < end; round++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            alarm(60); /* a child that waits for threads it does not have ends here */
            use_pool_in_child((uint64_t)round);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
        CHECK(status == 0, "child %d ended with status 0x%x", round, (unsigned)status);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(threads[i], NULL);
}

/* The child cannot finish what its parent's helpers had taken: the task ends there as cancelled, in the parent as ever. */
static void test_fork_between_slices(void)
{
    for (int round = 0, end = rounds(50); round < end; round++) {
        int status = 0;
        job *j = make_job(MOST_ITEMS, 1, 4);
        j->busy = 2000;
        h5fast_pool_submit(&j->task);
        int done = h5fast_pool_help(&j->task, 1e-4);
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            while (!done)
                done = h5fast_pool_help(&j->task, 1);
            _exit(0);
        }
        if (!done)
            finish(j, 10);
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child: 0x%x", (unsigned)status);
        check_and_free(j);
    }
}

int main(void)
{
    test_small_tasks();
    test_many_submitters();
    test_cancel_from_outside();
    test_fork();
    test_fork_between_slices();
    printf("pool: %d helpers at the end: ok\n", h5fast_pool_size());
}
