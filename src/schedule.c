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
    s->full = left / s->world / s->batch;
    s->share = left / s->world % s->batch;
    s->steps = s->full + (s->share > 0);
    return h5fast_order_make(&s->order);
}

void h5fast_schedule_free(h5fast_schedule *s)
{
    h5fast_order_free(&s->order);
}

uint64_t h5fast_schedule_first(const h5fast_schedule *s, uint64_t step, uint64_t *count)
{
    *count = step < s->full ? s->batch : s->share;
    if (takes_runs(s))
        return s->rank * s->run + s->begun / s->world + step * s->batch;
    return s->begun + step * s->batch * s->world + s->rank * *count;
}

static int is_mine(const h5fast_schedule *s, uint64_t position)
{
    if (takes_runs(s))
        return position / s->run == s->rank && position % s->run >= s->begun / s->world;
    if (position < s->begun)
        return 0;
    uint64_t at = position - s->begun, whole = s->full * s->batch * s->world;
    return at < whole ? at / s->batch % s->world == s->rank : (at - whole) / s->share == s->rank;
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
