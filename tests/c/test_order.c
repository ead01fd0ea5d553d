/* The orders of an epoch: every item once, the inverse, what is repeated at the end, and what each kind promises of itself.
 *
 * Prevents: rows that come twice or never, a cache that waits for a row at the wrong place, blocks that mix across their
 * window, batches that are torn apart.
 */
#include "guard.h"

#include "../../src/order.h"

enum { MOST = 3000 };

static uint64_t groups[MOST + 1];
static int64_t items[3 * MOST], drawn[3 * MOST], by_item[3 * MOST];

static h5fast_order random_order(h5fast_order_kind kind)
{
    h5fast_order order = {.kind = kind, .count = 1 + random_below(MOST), .key = random32(), .run = 1 + random_below(300),
                          .groups = groups, .window = 1 + random_below(20), .drawn = drawn, .by_item = by_item};
    order.length = order.count + (random_below(3) == 0 ? random_below(2 * (uint32_t)order.count) : 0);
    uint64_t end = 0, longest = 1 + random_below(60);
    for (order.group_count = 0; end < order.count; order.group_count++) {
        groups[order.group_count] = end;
        end += 1 + random_below(longest);
    }
    groups[order.group_count] = order.count;
    CHECK(h5fast_order_make(&order) == H5FAST_OK, "memory");
    return order;
}

/* Where each item stands, found by walking from the back. */
static void check_next(const h5fast_order *order, uint64_t from, const uint64_t *next)
{
    for (uint64_t item = 0; item < order->count; item++)
        CHECK(h5fast_order_next(order, item, from) == next[item], "kind %d, item %llu from %llu: %llu, not %llu",
              order->kind, (unsigned long long)item, (unsigned long long)from,
              (unsigned long long)h5fast_order_next(order, item, from), (unsigned long long)next[item]);
}

static void check_order(const h5fast_order *order)
{
    static uint64_t next[MOST];
    for (uint64_t at = 0, step; at < order->length; at += step) {
        step = 1 + random_below(700);
        step = step < order->length - at ? step : order->length - at;
        h5fast_order_items(order, at, step, items + at);
    }
    for (uint64_t item = 0; item < order->count; item++)
        next[item] = H5FAST_NEVER;
    uint64_t seldom = order->length / 5 + 1;
    for (uint64_t at = order->length; at-- > 0;) {
        CHECK(items[at] >= 0 && (uint64_t)items[at] < order->count, "an item that there is");
        next[items[at]] = at;
        if (at % seldom == 0 || at == order->length - order->length / 2)
            check_next(order, at, next);
    }
    if (order->kind == H5FAST_ORDER_DRAWN)
        return;
    for (uint64_t item = 0; item < order->count; item++)
        CHECK(next[item] < order->count, "each item comes before any comes again");
    for (uint64_t at = order->count; at < order->length; at++)
        CHECK(items[at] == items[at - order->count], "the order starts again behind its end");
}

static void check_batches(const h5fast_order *order)
{
    for (uint64_t at = 1; at < order->count; at++)
        CHECK(at % order->run == 0 || items[at] == items[at - 1] + 1, "runs stay together");
    for (uint64_t at = order->count / order->run * order->run; at < order->count; at++)
        CHECK(items[at] == (int64_t)at, "the short run stays last");
}

static uint64_t group_of(const h5fast_order *order, uint64_t item)
{
    uint64_t group = 0;
    while (groups[group + 1] <= item)
        group++;
    return group < order->group_count ? group : order->group_count - 1;
}

/* The items between two borders of windows are those of whole groups. */
static void check_blocks(const h5fast_order *order)
{
    static uint8_t used[MOST];
    memset(used, 0, sizeof used);
    uint64_t at = 0;
    for (uint64_t first = 0; first < order->group_count; first += order->window) {
        uint64_t count = 0, size = 0;
        static uint64_t members[MOST];
        for (uint64_t end = order->starts[first + order->window < order->group_count ? first + order->window
                                                                                      : order->group_count]; at < end; at++) {
            uint64_t group = group_of(order, (uint64_t)items[at]);
            CHECK(used[group] == 0 || used[group] == 2, "a group lies in one window");
            if (used[group] == 0) {
                used[group] = 2;
                members[count++] = group;
                size += groups[group + 1] - groups[group];
            }
        }
        CHECK(count <= order->window && size == at - order->starts[first], "whole groups, no more than the window");
        for (uint64_t i = 0; i < count; i++)
            used[members[i]] = 1;
    }
}

static const h5fast_order *being_sorted;

static int compare_positions(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    if (being_sorted->drawn[x] != being_sorted->drawn[y])
        return being_sorted->drawn[x] < being_sorted->drawn[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

static void draw_items(h5fast_order *order)
{
    order->listed = 1 + random_below(3 * MOST);
    order->length = order->listed - random_below((uint32_t)order->listed);
    for (uint64_t at = 0; at < order->listed; at++) {
        drawn[at] = random_below((uint32_t)order->count);
        by_item[at] = (int64_t)at;
    }
    being_sorted = order;
    qsort(by_item, order->listed, sizeof *by_item, compare_positions);
}

int main(void)
{
    for (int round = 0; round < 200; round++) {
        h5fast_order order = random_order((h5fast_order_kind)(round % 5));
        if (order.kind == H5FAST_ORDER_DRAWN)
            draw_items(&order);
        check_order(&order);
        if (order.kind == H5FAST_ORDER_BATCHES)
            check_batches(&order);
        if (order.kind == H5FAST_ORDER_BLOCKS)
            check_blocks(&order);
        h5fast_order_free(&order);
    }
    puts("order: ok");
}
