#include "feed.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct h5fast_feed {
    h5fast_filler *filler;
    h5fast_batch *ring;
    uint32_t depth;
    uint64_t steps;
    uint64_t step;             /* the filling thread's: the next to be filled */
    h5fast_fill_error failure; /* written before `ended` */
    _Atomic int stopped;
    pthread_mutex_t lock;      /* guards what follows */
    pthread_cond_t moved;      /* any of it changed */
    uint64_t published, taken, released;
    int ended;
    pid_t process;             /* that it was made in */
    double filler_waited, taker_waited;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

h5fast_feed *h5fast_feed_make(h5fast_filler *filler, uint64_t steps, h5fast_batch *ring, uint32_t depth)
{
    h5fast_feed *feed = calloc(1, sizeof *feed);
    if (feed == NULL)
        return NULL;
    feed->filler = filler;
    feed->steps = steps;
    feed->ring = ring;
    feed->depth = depth;
    feed->process = getpid();
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->moved, NULL);
    return feed;
}

static int is_forked(const h5fast_feed *feed)
{
    return feed->process != getpid();
}

void h5fast_feed_free(h5fast_feed *feed)
{
    if (feed == NULL)
        return;
    if (!is_forked(feed)) { /* destroying a condition that threads of the other process wait for would wait for them */
        pthread_mutex_destroy(&feed->lock);
        pthread_cond_destroy(&feed->moved);
    }
    free(feed);
}

/* Waits until the taker has left a place free; 0 where the feed was stopped. */
static int wait_for_place(h5fast_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    if (feed->published - feed->released >= feed->depth && !atomic_load(&feed->stopped)) {
        double since = now();
        while (feed->published - feed->released >= feed->depth && !atomic_load(&feed->stopped))
            pthread_cond_wait(&feed->moved, &feed->lock);
        feed->filler_waited += now() - since;
    }
    pthread_mutex_unlock(&feed->lock);
    return !atomic_load(&feed->stopped);
}

int h5fast_feed_fill(h5fast_feed *feed)
{
    if (feed->step >= feed->steps || feed->failure.what.status != H5FAST_OK || !wait_for_place(feed))
        return -1;
    int place = (int)(feed->step % feed->depth);
    if (h5fast_filler_fill(feed->filler, feed->step, &feed->ring[place], &feed->stopped, &feed->failure) != H5FAST_OK)
        return -1;
    feed->step++;
    return place;
}

void h5fast_feed_publish(h5fast_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->published++;
    pthread_cond_signal(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

void h5fast_feed_run(h5fast_feed *feed)
{
    while (h5fast_feed_fill(feed) >= 0)
        h5fast_feed_publish(feed);
}

void h5fast_feed_end(h5fast_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->ended = 1;
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

static struct timespec in_seconds(double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    double whole = (double)until.tv_nsec * 1e-9 + seconds;
    until.tv_sec += (time_t)whole;
    until.tv_nsec = (long)((whole - (double)(time_t)whole) * 1e9);
    return until;
}

int h5fast_feed_take(h5fast_feed *feed, double seconds)
{
    int place = -1;
    pthread_mutex_lock(&feed->lock);
    if (feed->taken == feed->published && !feed->ended && !atomic_load(&feed->stopped)) {
        double since = now();
        struct timespec until = in_seconds(seconds);
        int timed_out = 0;
        while (feed->taken == feed->published && !feed->ended && !atomic_load(&feed->stopped) && !timed_out)
            timed_out = pthread_cond_timedwait(&feed->moved, &feed->lock, &until) != 0;
        feed->taker_waited += now() - since;
    }
    if (atomic_load(&feed->stopped))
        place = -2;
    else if (feed->taken < feed->published)
        place = (int)(feed->taken++ % feed->depth);
    else if (feed->ended)
        place = -2;
    pthread_mutex_unlock(&feed->lock);
    return place;
}

void h5fast_feed_release(h5fast_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->released++;
    pthread_cond_signal(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

void h5fast_feed_stop(h5fast_feed *feed)
{
    if (is_forked(feed))
        return;
    pthread_mutex_lock(&feed->lock);
    atomic_store(&feed->stopped, 1);
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

int h5fast_feed_is_over(h5fast_feed *feed)
{
    if (is_forked(feed))
        return 1;
    pthread_mutex_lock(&feed->lock);
    int over = feed->ended || atomic_load(&feed->stopped);
    pthread_mutex_unlock(&feed->lock);
    return over;
}

int h5fast_feed_is_complete(h5fast_feed *feed)
{
    if (is_forked(feed))
        return feed->published == feed->steps;
    pthread_mutex_lock(&feed->lock);
    int complete = feed->published == feed->steps;
    pthread_mutex_unlock(&feed->lock);
    return complete;
}

h5fast_fill_error h5fast_feed_failure(const h5fast_feed *feed)
{
    return feed->failure;
}

void h5fast_feed_waits(h5fast_feed *feed, double *filler, double *taker)
{
    int forked = is_forked(feed);
    if (!forked)
        pthread_mutex_lock(&feed->lock);
    *filler = feed->filler_waited;
    *taker = feed->taker_waited;
    if (!forked)
        pthread_mutex_unlock(&feed->lock);
}
