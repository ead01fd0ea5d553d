/* Sharing out an epoch: the processes' batches are disjoint, as many for each, and cover it; "next" agrees with them.
 *
 * Prevents: a row that two processes or two workers train on or none, a process that runs out of batches before the others, an epoch that
 * goes on elsewhere after it was resumed.
 */
#include "guard.h"

#include "../../src/schedule.h"

enum { MOST = 600, MOST_WORLD = 7 };

static uint64_t groups[MOST + 1];
static int64_t drawn[MOST], by_item[MOST];

static h5fast_schedule made(h5fast_schedule s, uint64_t rank, uint64_t begun)
{
    s.rank = rank;
    s.begun = begun;
    CHECK(h5fast_schedule_make(&s) == H5FAST_OK, "memory");
    return s;
}

static h5fast_schedule random_schedule(h5fast_order_kind kind)
{
    h5fast_schedule s = {.batch = 1 + random_below(40), .world = 1 + random_below(MOST_WORLD), .drop_last = random_below(2)};
    s.order = (h5fast_order){.kind = kind, .count = 1 + random_below(MOST), .key = random32(), .groups = groups,
                             .window = 1 + random_below(9), .drawn = drawn, .by_item = by_item};
    s.order.run = s.batch;
    s.order.listed = s.order.count;
    uint64_t end = 0;
    for (s.order.group_count = 0; end < s.order.count; end += 1 + random_below(30))
        groups[s.order.group_count++] = end;
    groups[s.order.group_count] = s.order.count;
    if (kind == H5FAST_ORDER_DRAWN) { /* every item once, backwards: what is asked of it here holds for any list */
        for (uint64_t i = 0; i < s.order.count; i++) {
            drawn[i] = (int64_t)(s.order.count - 1 - i);
            by_item[i] = drawn[i];
        }
    }
    return s;
}

/* Notes who takes each position; returns how many one process takes. */
static uint64_t take(const h5fast_schedule *s, uint8_t *taken)
{
    uint64_t total = 0;
    for (uint64_t step = 0; step < s->steps; step++) {
        uint64_t count, first = h5fast_schedule_first(s, step, &count);
        CHECK(count == (step < s->full ? s->batch : s->share) && count > 0, "batch of %llu", (unsigned long long)count);
        for (uint64_t i = 0; i < count; i++) {
            CHECK(first + i < s->order.length && !taken[first + i], "position %llu", (unsigned long long)(first + i));
            taken[first + i] = (uint8_t)(s->rank + 1);
        }
        total += count;
    }
    return total;
}

static void check_next(const h5fast_schedule *s, const uint8_t *taken)
{
    int64_t item;
    uint64_t from = random_below((uint32_t)s->order.length + 1);
    for (uint64_t wanted = 0; wanted < s->order.count; wanted++) {
        uint64_t at = from;
        for (; at < s->order.length; at++) {
            h5fast_order_items(&s->order, at, 1, &item);
            if (taken[at] == s->rank + 1 && (uint64_t)item == wanted)
                break;
        }
        uint64_t next = h5fast_schedule_next(s, wanted, from);
        CHECK(next == (at < s->order.length ? at : H5FAST_NEVER), "kind %d: item %llu from %llu", s->order.kind,
              (unsigned long long)wanted, (unsigned long long)from);
    }
}

static void check_epoch(h5fast_schedule base)
{
    static uint8_t taken[MOST + 64];
    memset(taken, 0, sizeof taken);
    uint64_t each = 0, covered = 0;
    for (uint64_t rank = 0; rank < base.world; rank++) {
        h5fast_schedule s = made(base, rank, 0);
        uint64_t takes = take(&s, taken);
        CHECK(rank == 0 || takes == each, "as many for each process");
        each = takes;
        covered = s.order.length;
        if (base.drop_last)
            CHECK(s.share == 0, "full batches only");
        h5fast_schedule_free(&s);
    }
    for (uint64_t at = 0; at < covered; at++)
        CHECK(taken[at] != 0, "nobody takes %llu of %llu", (unsigned long long)at, (unsigned long long)covered);
    if (!base.drop_last && base.order.kind != H5FAST_ORDER_DRAWN)
        CHECK(covered >= base.order.count && covered < base.order.count + base.world, "all are covered");
    h5fast_schedule s = made(base, random_below((uint32_t)base.world), 0);
    check_next(&s, taken);
    h5fast_schedule_free(&s);
}

/* Going on after k steps gives the batches that were left. */
static void check_resumed(h5fast_schedule base)
{
    uint64_t rank = random_below((uint32_t)base.world);
    h5fast_schedule whole = made(base, rank, 0);
    uint64_t done = random_below((uint32_t)whole.full + 1);
    h5fast_schedule rest = made(base, rank, done * base.batch * base.world);
    CHECK(rest.steps == whole.steps - done, "steps left");
    for (uint64_t step = 0; step < rest.steps; step++) {
        uint64_t count, other, first = h5fast_schedule_first(&rest, step, &count);
        CHECK(first == h5fast_schedule_first(&whole, step + done, &other) && count == other, "step %llu",
              (unsigned long long)step);
    }
    static uint8_t taken[MOST + 64];
    memset(taken, 0, sizeof taken);
    take(&rest, taken);
    check_next(&rest, taken);
    h5fast_schedule_free(&whole);
    h5fast_schedule_free(&rest);
}

/* Other processes go on with what the first ones left: still every position once. */
static void check_resumed_by_others(h5fast_schedule base)
{
    if (base.order.kind == H5FAST_ORDER_BLOCKS)
        return;
    h5fast_schedule first = made(base, 0, 0);
    uint64_t begun = first.full / 2 * base.batch * base.world;
    h5fast_schedule_free(&first);
    base.world = 1 + random_below(MOST_WORLD);
    static uint8_t taken[MOST + 64];
    memset(taken, 0, sizeof taken);
    uint64_t covered = 0;
    for (uint64_t rank = 0; rank < base.world; rank++) {
        h5fast_schedule s = made(base, rank, begun);
        take(&s, taken);
        covered = s.order.length;
        h5fast_schedule_free(&s);
    }
    for (uint64_t at = begun; at < covered; at++)
        CHECK(taken[at] != 0, "nobody takes %llu", (unsigned long long)at);
}

/* The workers of a process take its batches in turn: each batch once, those of no worker twice, and "next" knows it. Each goes
 * on by itself behind the batches that it took. */
static void check_workers(h5fast_schedule base)
{
    uint64_t rank = random_below((uint32_t)base.world);
    h5fast_schedule whole = made(base, rank, 0);
    base.workers = 1 + random_below(5);
    uint64_t steps = 0;
    for (base.worker = 0; base.worker < base.workers; base.worker++) {
        static uint8_t taken[MOST + 64];
        memset(taken, 0, sizeof taken);
        h5fast_schedule s = made(base, rank, 0);
        take(&s, taken);
        check_next(&s, taken);
        steps += s.steps;
        for (uint64_t step = 0; step < s.steps; step++) {
            uint64_t count, other, first = h5fast_schedule_first(&s, step, &count);
            CHECK(first == h5fast_schedule_first(&whole, step * base.workers + base.worker, &other) && count == other,
                  "worker %llu, step %llu", (unsigned long long)base.worker, (unsigned long long)step);
        }
        uint64_t done = random_below((uint32_t)s.full + 1);
        h5fast_schedule rest = made(base, rank, done * base.workers * base.batch * base.world);
        CHECK(rest.steps == s.steps - done, "steps left of worker %llu", (unsigned long long)base.worker);
        for (uint64_t step = 0; step < rest.steps; step++) {
            uint64_t count, other;
            CHECK(h5fast_schedule_first(&rest, step, &count) == h5fast_schedule_first(&s, step + done, &other) && count == other,
                  "resumed worker %llu, step %llu", (unsigned long long)base.worker, (unsigned long long)step);
        }
        h5fast_schedule_free(&rest);
        h5fast_schedule_free(&s);
    }
    CHECK(steps == whole.steps, "every batch");
    h5fast_schedule_free(&whole);
}

int main(void)
{
    for (int round = 0; round < 500; round++) {
        h5fast_schedule s = random_schedule((h5fast_order_kind)(round % 5));
        check_epoch(s);
        check_resumed(s);
        check_resumed_by_others(s);
        check_workers(s);
    }
    puts("schedule: ok");
}
