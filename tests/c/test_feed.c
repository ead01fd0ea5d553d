/* The feed between its threads: taken by one, filled by another, stopped by a third at any moment, and forked.
 *
 * Prevents: a batch that is taken before it is whole, or overwritten while it is read; a taker or filler that waits for
 * ever; a child that waits for a lock of its parent.
 */
#include "filling.h"

#include <pthread.h>
#include <sys/wait.h>

#include "../../src/decode.h"

static size_t taken, ended_early;

/* What the threads do; drawn before they start, for random numbers are one thread's. */
static int fills_by_hand;
static useconds_t stops_after;

static void *fill_all(void *context)
{
    h5fast_feed *feed = context;
    if (!fills_by_hand) {
        h5fast_feed_run(feed);
    } else {
        while (h5fast_feed_fill(feed) >= 0)
            h5fast_feed_publish(feed);
    }
    h5fast_feed_end(feed);
    return NULL;
}

static void *stop_soon(void *context)
{
    usleep(stops_after);
    h5fast_feed_stop(context);
    return NULL;
}

static void look_from_child(h5fast_feed *feed)
{
    int status = 0;
    double a, b;
    pid_t child = fork();
    if (child == 0) {
        if (UNDER_SANITIZER)
            _exit(0);
        alarm(20);
        h5fast_feed_stop(feed);
        h5fast_feed_waits(feed, &a, &b);
        int over = h5fast_feed_is_over(feed);
        h5fast_feed_free(feed);
        _exit(!over);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child: 0x%x", (unsigned)status);
}

/* Takes all there is; the batch at hand must stay as it is until it is given back. Returns how many there were. */
static uint64_t take_all(scene *s, ring *r, h5fast_feed *feed, const h5fast_schedule *now, int forks)
{
    uint64_t count = 0;
    int holds = 0;
    for (;;) {
        if (holds && (holds = 0, 1))
            h5fast_feed_release(feed);
        int place = h5fast_feed_take(feed, 0.01);
        if (place == -2)
            return count;
        if (forks && chance(5))
            look_from_child(feed);
        if (place < 0)
            continue;
        CHECK(r->batches[place].step == count, "step %llu comes as number %llu", (unsigned long long)r->batches[place].step,
              (unsigned long long)count);
        scene_check(s, now, &r->batches[place]);
        count++;
        holds = 1;
    }
}

static void feed_epoch(scene *s, ring *r, uint64_t epoch, int skip)
{
    h5fast_filling filling = scene_filling(s, epoch, scene_begun(s), skip);
    h5fast_filler *filler = h5fast_filler_make(&filling);
    uint64_t steps = filling.now->steps;
    h5fast_feed *feed = h5fast_feed_make(filler, steps, r->batches, 1 + (uint32_t)random_below(MOST_DEPTH));
    pthread_t thread, stopper;
    int stops = chance(40);
    double waits[2];
    fills_by_hand = chance(50);
    stops_after = (useconds_t)random_below(3000);
    CHECK(filler != NULL && feed != NULL, "no memory");
    h5fast_filler_settle(filler);
    CHECK(pthread_create(&thread, NULL, fill_all, feed) == 0, "thread");
    if (stops)
        CHECK(pthread_create(&stopper, NULL, stop_soon, feed) == 0, "thread");
    uint64_t count = take_all(s, r, feed, filling.now, chance(20));
    h5fast_feed_waits(feed, &waits[0], &waits[1]);
    CHECK(h5fast_feed_is_over(feed) && waits[0] >= 0 && waits[1] >= 0, "not over");
    pthread_join(thread, NULL);
    if (stops)
        pthread_join(stopper, NULL);
    h5fast_fill_error error = h5fast_feed_failure(feed);
    CHECK(count <= steps && h5fast_feed_take(feed, 0) == -2 && h5fast_feed_fill(feed) == -1, "it goes on");
    CHECK(count == steps || stops || error.what.status == H5FAST_CHECKSUM, "%llu of %llu, status %d",
          (unsigned long long)count, (unsigned long long)steps, error.what.status);
    CHECK(count < steps || h5fast_feed_is_complete(feed), "not complete");
    CHECK(error.what.status != H5FAST_CHECKSUM || (!skip && !h5fast_feed_is_complete(feed)), "damage was not left out");
    taken += count;
    ended_early += count < steps;
    h5fast_feed_free(feed);
    h5fast_filler_free(filler);
    scene_end_epoch(s);
}

int main(void)
{
    static scene s;
    static ring r;
    open_test_file(find_deflate());
    for (int round = 0, end = rounds(400); round < end; round++) {
        scene_make(&s);
        if (chance(30))
            scene_damage(&s);
        ring_make(&r, &s);
        int skip = chance(50);
        for (uint64_t epoch = 0; epoch < 4; epoch++)
            feed_epoch(&s, &r, epoch, skip);
        ring_free(&r);
        scene_free(&s);
    }
    h5fast_scratch_trim();
    printf("feed: %zu batches taken, %zu feeds ended early: ok\n", taken, ended_early);
}
