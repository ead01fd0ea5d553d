/* The engine among other threads, in forked children, and while a file shrinks under its mapping.
 *
 * Prevents: wrong bytes or a hang when gathers overlap, are cancelled, or their process forks; a crash when the file
 * shrinks under its mapping; a fault of somebody else that does not reach its handler.
 */
#include "dataset.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "../../src/decode.h"

static size_t failures; /* gathers that failed as they had to */

/* --- several gathers at once, cancelled ones, forks -------------------------------------------------------------------- */

enum { READERS = 4 };
static _Atomic int stop;

typedef struct {
    dataset *d;
    how h;
} reader;

static void *read_until_stopped(void *context)
{
    const reader *r = context;
    while (!atomic_load(&stop)) {
        h5fast_error e = gather_afresh(r->d, r->h);
        CHECK(e.status == H5FAST_OK, "status %d", e.status);
        CHECK(memcmp(r->h.out, expected, r->d->m.out_bytes) == 0, "output differs");
    }
    return NULL;
}

static void fork_and_read(reader *r)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        if (UNDER_SANITIZER)
            _exit(0);
        for (int i = 0; i < 3; i++)
            check_gather(r->d, r->h);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child: 0x%x", (unsigned)status);
}

/* Readers share a source, its mapping and the pool; meanwhile this thread forks, or cancels gathers of its own. */
static void test_together(void)
{
    static dataset d;
    static uint8_t outs[READERS][1 << 18];
    for (int round = 0, end = rounds(60); round < end; round++) {
        h5fast_source source;
        pthread_t threads[READERS];
        reader readers[READERS];
        do {
            random_dataset(&d);
            select_some(&d);
        } while (d.m.out_bytes > sizeof outs[0] || d.m.out_bytes < 1000);
        CHECK(h5fast_source_open(&source, descriptor, chance(70)) == H5FAST_OK, "open");
        atomic_store(&stop, 0);
        for (int i = 0; i < READERS; i++) {
            readers[i] = (reader){&d, {&source, NULL, outs[i], 1 + (int)random_below(4), 1e-3}};
            CHECK(pthread_create(&threads[i], NULL, read_until_stopped, &readers[i]) == 0, "thread");
        }
        reader mine = {&d, {&source, NULL, out, 4, 1}};
        for (int i = 0; i < 5; i++)
            fork_and_read(&mine);
        atomic_store(&stop, 1);
        for (int i = 0; i < READERS; i++)
            pthread_join(threads[i], NULL);
        h5fast_source_close(&source);
    }
}

static void test_cancel(void)
{
    static dataset d;
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        h5fast_gather g;
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        set_gather(&g, &d, (how){&source, NULL, out, 1 + (int)random_below(4), 0});
        CHECK(h5fast_gather_begin(&g) == H5FAST_OK, "begin");
        int done = chance(80) && h5fast_gather_run(&g, 1e-6);
        h5fast_gather_cancel(&g);
        while (!done)
            done = h5fast_gather_run(&g, 1);
        CHECK(g.error.status == H5FAST_CANCELLED, "status %d", g.error.status);
        h5fast_gather_end(&g);
        check_gather(&d, some_way(&source));
        h5fast_source_close(&source);
    }
}

/* --- a file that shrinks under its mapping ------------------------------------------------------------------------------ */

static _Thread_local sigjmp_buf foreign_place;
static _Atomic int foreign_seen;

static void on_foreign(int number)
{
    (void)number;
    atomic_fetch_add(&foreign_seen, 1);
    siglongjmp(foreign_place, 1);
}

static void on_foreign_info(int number, siginfo_t *info, void *context)
{
    (void)context;
    CHECK(info->si_addr != NULL, "no address");
    on_foreign(number);
}

static void install_foreign(int with_info)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = with_info ? SA_SIGINFO : 0;
    if (with_info)
        action.sa_sigaction = on_foreign_info;
    else
        action.sa_handler = on_foreign;
    CHECK(sigaction(SIGBUS, &action, NULL) == 0, "sigaction");
}

static void check_foreign_installed(int with_info)
{
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now);
    CHECK(with_info ? now.sa_sigaction == on_foreign_info : now.sa_handler == on_foreign, "our handler stays installed");
}

static const volatile uint8_t *page_without_file; /* touching it raises SIGBUS */
static volatile uint8_t touched;                  /* what is read is used: valgrind drops other loads */

static void make_page_without_file(void)
{
    FILE *empty = tmpfile();
    CHECK(empty != NULL, "tmpfile");
    page_without_file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(empty), 0);
    CHECK(page_without_file != MAP_FAILED, "mmap");
    fclose(empty);
}

/* Returns 1 where the fault came to the handler that was there before ours. */
static int foreign_fault(void)
{
    int before = atomic_load(&foreign_seen);
    if (sigsetjmp(foreign_place, 1) == 0)
        touched = *page_without_file;
    return atomic_load(&foreign_seen) == before + 1;
}

static void *foreign_faults(void *unused)
{
    while (!atomic_load(&stop)) {
        CHECK(foreign_fault(), "a SIGBUS that is not ours did not reach its handler");
        usleep(10); /* under valgrind threads run one at a time, and this one would be it */
    }
    return unused;
}

static struct {
    _Atomic int armed;
    size_t new_size;
    int delay; /* loops between the start of the gather and the truncation */
} truncation;

static void *truncate_when_armed(void *unused)
{
    while (!atomic_load(&stop)) {
        if (!atomic_load(&truncation.armed))
            continue;
        for (volatile int i = 0; i < truncation.delay; i = i + 1)
            ;
        CHECK(ftruncate(descriptor, (off_t)truncation.new_size) == 0, "ftruncate");
        atomic_store(&truncation.armed, 0);
    }
    return unused;
}

static _Atomic int reads; /* by pread, not from the mapping */

static ssize_t counting_pread(int fd, void *buffer, size_t count, off_t offset)
{
    atomic_fetch_add(&reads, 1);
    return pread(fd, buffer, count, offset);
}

/* Counts, in caught, gathers that met the end of the file in the mapping: no read of theirs could have told. */
static void truncate_once(const dataset *d, size_t *caught)
{
    h5fast_source source;
    write_file(d);
    CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
    how h = {&source, NULL, out, 1 + (int)random_below(4), 1};
    check_gather(d, h);
    for (int visit = 0; visit < 3; visit++) /* from here on all of the file, being one window, counts as resident */
        (void)h5fast_source_resident(&source, 0, 1);
    truncation.new_size = random_below(d->file_bytes);
    truncation.delay = (int)random_below(1 << random_below(18));
    atomic_store(&reads, 0);
    atomic_store(&truncation.armed, 1);
    h5fast_error e = gather_afresh(d, h);
    while (atomic_load(&truncation.armed))
        sched_yield();
    CHECK(e.status == H5FAST_OK || e.status == H5FAST_TRUNCATED || e.status == H5FAST_CORRUPT, "status %d", e.status);
    CHECK(h5fast_source_changed(&source) == (int64_t)truncation.new_size, "the change is not noticed");
    *caught += e.status == H5FAST_TRUNCATED && atomic_load(&reads) == 0;
    failures += e.status != H5FAST_OK;
    h5fast_source_close(&source);
}

/* The file is bytes without filters, so a page of zeros behind its end passes: the caller asks h5fast_source_changed. */
static size_t truncate_often(int filtered, int times)
{
    static dataset d;
    static unsigned size = 4;
    size_t caught = 0;
    memset(&d, 0, sizeof d);
    d.present = 100;
    d.m.storage.rank = 2;
    d.m.storage.itemsize = 4;
    d.m.storage.shape[0] = 64, d.m.storage.shape[1] = 1024;
    d.m.storage.chunk[0] = 2, d.m.storage.chunk[1] = 1024;
    d.m.storage.filter_count = filtered;
    d.m.storage.filters[0] = (h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &size};
    complete_storage(&d.m);
    store(&d, 0);
    d.m.selection = (h5fast_selection){.count = {64, 1024}, .step = {1, 1}, .point_count = 1};
    lay_out(&d.m);
    expect(&d);
    for (int i = 0; i < times; i++)
        truncate_once(&d, &caught);
    return caught;
}

static void test_truncation(void)
{
    pthread_t truncator, faulter;
    size_t caught = 0;
    h5fast_pread = counting_pread;
    for (int with_info = 0; with_info < 2; with_info++) {
        install_foreign(with_info);
        atomic_store(&stop, 0);
        CHECK(pthread_create(&truncator, NULL, truncate_when_armed, NULL) == 0, "thread");
        caught += truncate_often(with_info, rounds(1500));
        int seen = atomic_load(&foreign_seen);
        CHECK(seen == 0 || with_info, "%d faults of ours reached another handler", seen);
        CHECK(pthread_create(&faulter, NULL, foreign_faults, NULL) == 0, "thread");
        truncate_often(!with_info, rounds(300));
        atomic_store(&stop, 1);
        pthread_join(truncator, NULL);
        pthread_join(faulter, NULL);
        check_foreign_installed(with_info);
    }
    h5fast_pread = pread;
    printf("gather, threads: %zu mappings lost their pages in mid-gather; %d faults of others passed on\n", caught,
           atomic_load(&foreign_seen));
}

/* A gather is under way and this thread is not inside it: its faults go where they went before. */
static void test_fault_between_slices(void)
{
    for (int with_info = 0; with_info < 2; with_info++) {
        static dataset d;
        h5fast_source source;
        h5fast_gather g;
        install_foreign(with_info);
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
        set_gather(&g, &d, (how){&source, NULL, out, 2, 0});
        alarm(30); /* a handler that returns from a fault meets it again, for ever */
        CHECK(h5fast_gather_begin(&g) == H5FAST_OK && foreign_fault(), "the fault did not reach its handler");
        while (!h5fast_gather_run(&g, 10))
            ;
        CHECK(foreign_fault(), "the fault did not reach its handler");
        h5fast_gather_end(&g);
        alarm(0);
        check_foreign_installed(with_info);
        h5fast_source_close(&source);
    }
}

/* With a gather begun and nobody else to take the signal, a fault that is not ours ends the process, as without us. */
static void test_fault_without_handler(void)
{
    void (*const before[])(int) = {SIG_DFL, SIG_IGN};
    for (int i = 0; i < 2; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            static dataset d;
            h5fast_source source;
            h5fast_gather g;
            signal(SIGBUS, before[i]);
            signal(SIGALRM, SIG_DFL);
            alarm(5);
            random_dataset(&d);
            CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
            set_gather(&g, &d, (how){&source, NULL, out, 1, 0});
            CHECK(h5fast_gather_begin(&g) == H5FAST_OK, "begin");
            _exit(*page_without_file);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%s: status 0x%x", i ? "ignored" : "default",
              (unsigned)status);
    }
}

int main(void)
{
    const char *deflate = find_deflate();
    open_test_file(deflate);
    make_page_without_file();
    test_together();
    test_cancel();
    if (!UNDER_THREAD_SANITIZER) {
        test_truncation();
        test_fault_between_slices();
        test_fault_without_handler();
    }
    h5fast_scratch_trim();
    printf("gather, threads: deflate by %s; %zu gathers right, %zu failed as they had to: ok\n",
           deflate != NULL ? deflate : "nobody", gathers, failures);
}
