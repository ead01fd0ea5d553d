#define _GNU_SOURCE
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "locks.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; older kernels answer EINVAL and pages are mapped one by one */
#endif

/* Large enough that a file of 100 GB needs 50,000 states, small enough that populating one (512 pages, about 30 µs) is
 * repaid by a few rows. */
static const uint64_t WINDOW = 2u << 20;
enum { WINDOW_PAGES = 512 }; /* of 4 KiB */
/* A window is populated at its third visit: one that is never seen again costs one look at its own pages a row. */
enum { VISITS_TO_POPULATE = 3, POPULATED = 255 };
/* A longer run is copied by pread in less time than its page faults take, unless its window is populated already. */
static const uint64_t FAULT_BYTES = 64u << 10;
/* The kernel may take pages back; a populated window is trusted for this long. */
enum { TRUST_MS = 1000 };
/* Linux reads at most 0x7ffff000 bytes at a time, other systems refuse more than INT_MAX. */
static const uint64_t LONGEST_READ = 1u << 30;

h5fast_pread_function h5fast_pread = pread;

/* The kernel tells which pages of a file are resident only to those who may write it or own it, and claims "all" to
 * everybody else; a cold file would then be mapped, which is the one thing to avoid. */
static int residency_is_told(const struct stat *info)
{
    uid_t user = geteuid();
    if (user == 0 || user == info->st_uid)
        return 1;
    if (info->st_mode & S_IWOTH)
        return 1;
    return getegid() == info->st_gid && info->st_mode & S_IWGRP;
}

static void try_map(h5fast_source *source, const struct stat *info)
{
    if (sysconf(_SC_PAGESIZE) != 4096 || !residency_is_told(info))
        return;
    uint64_t windows = (source->size + WINDOW - 1) / WINDOW;
    void *map = mmap(NULL, source->size, PROT_READ, MAP_SHARED, source->fd, 0);
    if (map == MAP_FAILED)
        return;
    madvise(map, source->size, MADV_RANDOM);
    source->windows = calloc(windows, sizeof *source->windows);
    source->checked = calloc(windows, sizeof *source->checked);
    if (source->windows == NULL || source->checked == NULL) {
        munmap(map, source->size);
        return;
    }
    source->window_count = windows;
    source->map = map;
}

static int64_t modified_ns(const struct stat *info)
{
#ifdef __APPLE__
    return (int64_t)info->st_mtimespec.tv_sec * 1000000000 + info->st_mtimespec.tv_nsec;
#else
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
#endif
}

h5fast_status h5fast_source_open(h5fast_source *source, int fd, int map)
{
    struct stat info;
    memset(source, 0, sizeof *source);
    source->fd = fd;
    if (fstat(fd, &info) != 0)
        return H5FAST_READ;
    source->size = (uint64_t)info.st_size;
    source->device = (uint64_t)info.st_dev;
    source->inode = (uint64_t)info.st_ino;
    source->modified_ns = modified_ns(&info);
    if (map && source->size > 0)
        try_map(source, &info);
    return H5FAST_OK;
}

int64_t h5fast_source_changed(const h5fast_source *source)
{
    struct stat info;
    if (source->fd < 0)
        return -1;
    if (fstat(source->fd, &info) != 0)
        return 0;
    if ((uint64_t)info.st_size == source->size && modified_ns(&info) == source->modified_ns)
        return -1;
    return info.st_size;
}

void h5fast_source_of_memory(h5fast_source *source, const uint8_t *bytes, uint64_t size)
{
    memset(source, 0, sizeof *source);
    source->fd = -1;
    source->map = bytes;
    source->size = size;
}

void h5fast_source_close(h5fast_source *source)
{
    if (source->map != NULL)
        munmap((void *)source->map, source->size);
    free((void *)source->windows);
    free((void *)source->checked);
    memset(source, 0, sizeof *source);
    source->fd = -1;
}

static uint32_t coarse_ms(void)
{
    struct timespec t;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (uint32_t)((uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000);
}

/* Are all pages of [offset, offset + size), at most a window, in memory? */
static int pages_resident(const h5fast_source *source, uint64_t offset, uint64_t size)
{
    unsigned char pages[WINDOW_PAGES + 1];
    uint64_t begin = offset & ~(uint64_t)4095, end = offset + size;
    if (mincore((void *)(source->map + begin), end - begin, (void *)pages) != 0)
        return 0;
    uint64_t count = (end - begin + 4095) / 4096;
    unsigned char all = 1;
    for (uint64_t i = 0; i < count; i++)
        all &= pages[i];
    return all & 1;
}

static int populate(h5fast_source *source, uint64_t window, uint32_t time)
{
    uint64_t begin = window * WINDOW, size = source->size - begin < WINDOW ? source->size - begin : WINDOW;
    if (!pages_resident(source, begin, size))
        return 0;
    madvise((void *)(source->map + begin), size, MADV_POPULATE_READ); /* a refusal only costs page faults later */
    atomic_store_explicit(&source->checked[window], time, memory_order_relaxed);
    atomic_store_explicit(&source->windows[window], POPULATED, memory_order_relaxed);
    return 1;
}

/* Residency of a range within one window. States are hints shared by all threads: a lost update costs a look. */
static int window_resident(h5fast_source *source, uint64_t window, uint64_t offset, uint64_t size, uint32_t time)
{
    uint8_t visits = atomic_load_explicit(&source->windows[window], memory_order_relaxed);
    uint32_t checked = atomic_load_explicit(&source->checked[window], memory_order_relaxed);
    if (visits == POPULATED && time - checked < TRUST_MS)
        return 1;
    if (size > FAULT_BYTES)
        return 0;
    if (!pages_resident(source, offset, size)) {
        atomic_store_explicit(&source->windows[window], 0, memory_order_relaxed);
        return 0;
    }
    if (visits == POPULATED) { /* this much is still there: trust the rest again. Wrongly costs a wait, not an error. */
        atomic_store_explicit(&source->checked[window], time, memory_order_relaxed);
        return 1;
    }
    visits = visits + 1 < VISITS_TO_POPULATE ? visits + 1 : 0;
    if (visits == 0 && populate(source, window, time))
        return 1;
    atomic_store_explicit(&source->windows[window], visits, memory_order_relaxed);
    return 1;
}

const uint8_t *h5fast_source_resident(h5fast_source *source, uint64_t offset, uint64_t size)
{
    if (source->map == NULL || size == 0 || !h5fast_source_holds(source, offset, size))
        return NULL;
    if (source->fd < 0)
        return source->map + offset;
    uint32_t time = coarse_ms();
    uint64_t end = offset + size, at = offset;
    while (at < end) {
        uint64_t window = at / WINDOW, next = (window + 1) * WINDOW;
        uint64_t part = (next < end ? next : end) - at;
        if (!window_resident(source, window, at, part, time))
            return NULL;
        at += part;
    }
    return source->map + offset;
}

h5fast_status h5fast_source_read(const h5fast_source *source, uint64_t offset, uint64_t size, uint8_t *out,
                                 int *sys_errno)
{
    if (!h5fast_source_holds(source, offset, size))
        return H5FAST_TRUNCATED; /* beyond the end of the file as it was opened: never ask the kernel */
    if (size == 0) /* and then `out` may be nowhere */
        return H5FAST_OK;
    if (source->fd < 0) {
        memcpy(out, source->map + offset, size);
        return H5FAST_OK;
    }
    while (size > 0) {
        ssize_t got = h5fast_pread(source->fd, out, size < LONGEST_READ ? size : LONGEST_READ, (off_t)offset);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            *sys_errno = errno;
            return H5FAST_READ;
        }
        if (got == 0)
            return H5FAST_TRUNCATED;
        out += got;
        offset += (uint64_t)got;
        size -= (uint64_t)got;
    }
    return H5FAST_OK;
}

int h5fast_source_is_cold(h5fast_source *source, uint64_t offset)
{
    if (source->fd < 0)
        return 0;
#ifdef RWF_NOWAIT
    uint8_t byte;
    struct iovec piece = {&byte, 1};
    if (preadv2(source->fd, &piece, 1, (off_t)offset, RWF_NOWAIT) >= 0)
        return 0;
    if (errno == EAGAIN)
        return 1;
#endif
    return source->map != NULL && h5fast_source_resident(source, offset, 1) == NULL;
}

void h5fast_source_advise(const h5fast_source *source, uint64_t offset, uint64_t size)
{
#ifdef POSIX_FADV_WILLNEED
    posix_fadvise(source->fd, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
#else
    (void)source; (void)offset; (void)size;
#endif
}

H5FAST_FORK_SAFE_LOCK(guard_state, (void)0)
static int guard_count;
static struct sigaction previous;
static _Thread_local h5fast_guard *armed;

/* Stands in si_errno, which Linux leaves 0, of a signal that was handed on: a handler that was installed over ours calls ours
 * in its turn. Not in a variable: handlers may leave by a jump, and the kernel writes the next signal's own siginfo. */
enum { FORWARDED = 0x68356661 };

static void forward(int number, siginfo_t *info, void *context)
{
    int is_fault = info->si_code > 0; /* raised by an instruction, which faults again when the handler returns */
    if (info->si_errno == FORWARDED || previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && is_fault)) {
        signal(number, SIG_DFL);
        if (!is_fault)
            raise(number);
        return;
    }
    info->si_errno = FORWARDED;
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, context);
    else if (previous.sa_handler != SIG_IGN)
        previous.sa_handler(number);
    info->si_errno = 0;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    h5fast_guard *guard = armed;
    if (guard != NULL) {
        const uint8_t *address = info->si_addr;
        if (address >= guard->begin && address < guard->end)
            siglongjmp(guard->place, 1);
    }
    forward(number, info, context); /* not ours: what would have happened without us */
}

void h5fast_guard_install(void)
{
    lock_guard_state();
    if (guard_count++ == 0) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_sigaction = on_sigbus;
        /* NODEFER: the handler leaves by siglongjmp without restoring the mask. */
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        sigaction(SIGBUS, &action, &previous);
    }
    pthread_mutex_unlock(&guard_state);
}

void h5fast_guard_remove(void)
{
    lock_guard_state();
    if (--guard_count == 0) {
        struct sigaction current;
        sigaction(SIGBUS, NULL, &current);
        /* Somebody installed another handler meanwhile: it stays. */
        if (current.sa_flags & SA_SIGINFO && current.sa_sigaction == on_sigbus)
            sigaction(SIGBUS, &previous, NULL);
    }
    pthread_mutex_unlock(&guard_state);
}

void h5fast_guard_arm(h5fast_guard *guard)
{
    armed = guard;
}

void h5fast_guard_disarm(void)
{
    armed = NULL;
}
