/* The feed: batches of a schedule, filled ahead of whoever takes them.
 *
 * One thread fills, another takes; between them lies a ring of batches, whose memory the taker provides. Neither needs
 * Python. Whoever waits is woken by a stop, from any thread.
 *
 * In a process that was forked from the one it was made in, a feed is over: its filling thread stayed behind, perhaps with
 * the lock. There it may be asked about, stopped and freed, and nothing else. No pointer may be NULL but that to free.
 */
#ifndef H5FAST_FEED_H
#define H5FAST_FEED_H

#include "fill.h"

typedef struct h5fast_feed h5fast_feed;

/* NULL: no memory. The filler and the ring's `depth` (>= 1) places outlive it. Free when no thread is in it. */
h5fast_feed *h5fast_feed_make(h5fast_filler *filler, uint64_t steps, h5fast_batch *ring, uint32_t depth);
void h5fast_feed_free(h5fast_feed *feed); /* NULL is ignored */

/* Waits for a free place in the ring and fills it with the next batch; returns the place. -1: there is no batch left, the
 * feed was stopped or it failed. The batch is not to be had until it is published. Both: the filling thread's. */
int h5fast_feed_fill(h5fast_feed *feed) H5FAST_CHECKED;
void h5fast_feed_publish(h5fast_feed *feed);

/* Fills and publishes until there is nothing left to do. The filling thread's. */
void h5fast_feed_run(h5fast_feed *feed);

/* Nothing more will be published; the taker still gets what was. The filling thread's last call. */
void h5fast_feed_end(h5fast_feed *feed);

/* The place of the next batch, once it is published: waits up to `seconds`. -1: not yet. -2: there is none any more. */
int h5fast_feed_take(h5fast_feed *feed, double seconds) H5FAST_CHECKED;

/* The place taken longest ago may be filled again. Taker's thread, like h5fast_feed_take. */
void h5fast_feed_release(h5fast_feed *feed);

/* Ends the feed as soon as it can, with what was published lost. Any thread, any number of times. */
void h5fast_feed_stop(h5fast_feed *feed);

/* 1 where it was stopped, or ended by itself. Any thread. */
int h5fast_feed_is_over(h5fast_feed *feed);

/* 1 where all batches that there are were published. Any thread. */
int h5fast_feed_is_complete(h5fast_feed *feed);

/* Why it ended early; status H5FAST_OK: it did not. After h5fast_feed_take returned -2. */
h5fast_fill_error h5fast_feed_failure(const h5fast_feed *feed);

/* Seconds that the filling thread and the taker waited for each other so far. Any thread. */
void h5fast_feed_waits(h5fast_feed *feed, double *filler, double *taker);

#endif
