#include "schedule.h"

/* Blocks are decoded once if each process has its own; so there each takes a run of the epoch. All other orders are shared
 * out batch by batch, which keeps the batches of all processes together the same for any number of them. */
static int takes_runs(const h5fast_schedule *s)
{
    return s->order.kind == H5FAST_ORDER_BLOCKS;
}

/* The list of a drawn order has its own length; elsewhere the items give it. */
static uint64_t positions(const h5fast_schedule *s)
{
    return s->order.kind == H5FAST_ORDER_DRAWN ? s->order.listed : s->order.count;
}

/* Of `left` positions, those that come: none over, or some repeated so that they divide evenly. */
static uint64_t divisible(const h5fast_schedule *s, uint64_t left)
{
    if (s->drop_last)
        return left - left % (s->batch * s->world);
    if (s->order.kind == H5FAST_ORDER_DRAWN) /* one more or less of what chance drew is no row missed */
        return left - left % s->world;
    return left + (s->world - left % s->world) % s->world;
}

static void share_among_workers(h5fast_schedule *s)
{
    uint64_t all = s->process_full + (s->process_share > 0);
    s->workers += s->workers == 0;
    s->steps = all / s->workers + (s->worker < all % s->workers);
    s->share = s->steps > 0 && (all - 1) % s->workers == s->worker ? s->process_share : 0;
    s->full = s->steps - (s->share > 0);
}

h5fast_status h5fast_schedule_make(h5fast_schedule *s)
{
    uint64_t all = positions(s), left;
    s->stride = all + s->world;
    if (takes_runs(s)) {
        s->run = divisible(s, all) / s->world;
        s->order.length = s->run * s->world;
        left = s->begun < s->order.length ? s->order.length - s->begun : 0;
    } else {
        left = s->begun < all ? divisible(s, all - s->begun) : 0;
        s->order.length = s->begun + left;
    }
    s->process_full = left / s->world / s->batch;
    s->process_share = left / s->world % s->batch;
    share_among_workers(s);
    return h5fast_order_make(&s->order);
}

void h5fast_schedule_free(h5fast_schedule *s)
{
    h5fast_order_free(&s->order);
}

uint64_t h5fast_schedule_first(const h5fast_schedule *s, uint64_t step, uint64_t *count)
{
    uint64_t number = step * s->workers + s->worker; /* of the process's batch */
    *count = number < s->process_full ? s->batch : s->process_share;
    if (takes_runs(s))
        return s->rank * s->run + s->begun / s->world + number * s->batch;
    return s->begun + number * s->batch * s->world + s->rank * *count;
}

static int is_mine(const h5fast_schedule *s, uint64_t position)
{
    uint64_t rank, number; /* of the process, and which of its batches */
    if (takes_runs(s)) {
        uint64_t at = position % s->run, begun = s->begun / s->world;
        if (at < begun)
            return 0;
        rank = position / s->run;
        number = (at - begun) / s->batch;
    } else {
        if (position < s->begun)
            return 0;
        uint64_t at = position - s->begun, whole = s->process_full * s->batch * s->world;
        rank = at < whole ? at / s->batch % s->world : (at - whole) / s->process_share;
        number = at < whole ? at / s->batch / s->world : s->process_full;
    }
    return rank == s->rank && number % s->workers == s->worker;
}

uint64_t h5fast_schedule_next(const h5fast_schedule *s, uint64_t item, uint64_t from)
{
    uint64_t position = h5fast_order_next(&s->order, item, from);
    while (position != H5FAST_NEVER && !is_mine(s, position))
        position = h5fast_order_next(&s->order, item, position + 1);
    return position;
}

uint64_t h5fast_schedule_next_time(const h5fast_schedule *now, const h5fast_schedule *next, uint64_t item, uint64_t from)
{
    uint64_t position = h5fast_schedule_next(now, item, from);
    if (position != H5FAST_NEVER)
        return h5fast_schedule_time(now, position);
    position = h5fast_schedule_next(next, item, 0);
    return position != H5FAST_NEVER ? h5fast_schedule_time(next, position) : H5FAST_NEVER;
}
