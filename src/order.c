#include "order.h"

#include <stdlib.h>

/* Streams of keys that are drawn from the epoch's key. */
enum { KEY_SHUFFLE = 0, KEY_WINDOWS = 1 };

static uint64_t shuffled_count(const h5fast_order *o)
{
    switch (o->kind) {
    case H5FAST_ORDER_EXACT:
        return o->count;
    case H5FAST_ORDER_BATCHES:
        return o->count / o->run;
    case H5FAST_ORDER_BLOCKS:
        return o->group_count;
    default:
        return 0;
    }
}

h5fast_status h5fast_order_make(h5fast_order *o)
{
    o->starts = NULL;
    h5fast_status status = h5fast_permutation_make(&o->shuffled, shuffled_count(o), h5fast_mix(o->key, KEY_SHUFFLE));
    if (status != H5FAST_OK || o->kind != H5FAST_ORDER_BLOCKS)
        return status;
    o->starts = malloc((o->group_count + 1) * sizeof *o->starts);
    if (o->starts == NULL)
        return H5FAST_MEMORY;
    o->starts[0] = 0;
    for (uint64_t i = 0; i < o->group_count; i++) {
        uint64_t group = h5fast_permutation_at(&o->shuffled, i);
        o->starts[i + 1] = o->starts[i] + o->groups[group + 1] - o->groups[group];
    }
    return H5FAST_OK;
}

void h5fast_order_free(h5fast_order *o)
{
    h5fast_permutation_free(&o->shuffled);
    free(o->starts);
    o->starts = NULL;
}

/* Groups [first, end) of the shuffled order, whose items are mixed with one another. */
typedef struct {
    uint64_t first, end;
    h5fast_permutation mix;
} window;

static window window_of(const h5fast_order *o, uint64_t shuffled_group)
{
    uint64_t number = shuffled_group / o->window, first = number * o->window;
    uint64_t end = o->group_count - first > o->window ? first + o->window : o->group_count;
    window w = {first, end, {0}};
    h5fast_permutation_make_without_table(&w.mix, o->starts[end] - o->starts[first],
                                          h5fast_mix(h5fast_mix(o->key, KEY_WINDOWS), number));
    return w;
}

static uint64_t block_item(const h5fast_order *o, const window *w, uint64_t position)
{
    uint64_t start = o->starts[w->first];
    uint64_t unmixed = start + h5fast_permutation_at(&w->mix, position - start);
    uint64_t at = w->first + h5fast_last_at_most(o->starts + w->first, w->end - w->first, unmixed);
    return o->groups[h5fast_permutation_at(&o->shuffled, at)] + unmixed - o->starts[at];
}

static uint64_t block_position(const h5fast_order *o, uint64_t item)
{
    uint64_t group = h5fast_last_at_most(o->groups, o->group_count, item);
    uint64_t at = h5fast_permutation_of(&o->shuffled, group);
    window w = window_of(o, at);
    uint64_t start = o->starts[w.first];
    return start + h5fast_permutation_of(&w.mix, o->starts[at] - start + item - o->groups[group]);
}

static void block_items(const h5fast_order *o, uint64_t first, uint64_t count, int64_t *items)
{
    window w = {0, 0, {0}};
    for (uint64_t i = 0; i < count; i++) {
        uint64_t position = (first + i) % o->count;
        if (w.end == 0 || position < o->starts[w.first] || position >= o->starts[w.end])
            w = window_of(o, h5fast_last_at_most(o->starts, o->group_count, position));
        items[i] = (int64_t)block_item(o, &w, position);
    }
}

static uint64_t batch_item(const h5fast_order *o, uint64_t position)
{
    uint64_t run = position / o->run;
    return run < o->shuffled.count ? h5fast_permutation_at(&o->shuffled, run) * o->run + position % o->run : position;
}

static uint64_t batch_position(const h5fast_order *o, uint64_t item)
{
    uint64_t run = item / o->run;
    return run < o->shuffled.count ? h5fast_permutation_of(&o->shuffled, run) * o->run + item % o->run : item;
}

void h5fast_order_items(const h5fast_order *o, uint64_t first, uint64_t count, int64_t *items)
{
    switch (o->kind) {
    case H5FAST_ORDER_FILE:
        for (uint64_t i = 0; i < count; i++)
            items[i] = (int64_t)((first + i) % o->count);
        break;
    case H5FAST_ORDER_EXACT:
        for (uint64_t i = 0; i < count; i++)
            items[i] = (int64_t)h5fast_permutation_at(&o->shuffled, (first + i) % o->count);
        break;
    case H5FAST_ORDER_BATCHES:
        for (uint64_t i = 0; i < count; i++)
            items[i] = (int64_t)batch_item(o, (first + i) % o->count);
        break;
    case H5FAST_ORDER_BLOCKS:
        block_items(o, first, count, items);
        break;
    case H5FAST_ORDER_DRAWN:
        for (uint64_t i = 0; i < count; i++)
            items[i] = o->drawn[first + i];
        break;
    }
}

/* The first place of by_item that holds this item at this position or later, or a later item. */
static uint64_t lower_bound(const h5fast_order *o, uint64_t item, uint64_t from)
{
    uint64_t low = 0, high = o->listed;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t position = (uint64_t)o->by_item[middle], there = (uint64_t)o->drawn[position];
        if (there < item || (there == item && position < from))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t next_drawn(const h5fast_order *o, uint64_t item, uint64_t from)
{
    uint64_t place = lower_bound(o, item, from);
    if (place == o->listed || (uint64_t)o->drawn[o->by_item[place]] != item)
        return H5FAST_NEVER;
    uint64_t position = (uint64_t)o->by_item[place];
    return position < o->length ? position : H5FAST_NEVER;
}

uint64_t h5fast_order_next(const h5fast_order *o, uint64_t item, uint64_t from)
{
    uint64_t position = item;
    switch (o->kind) {
    case H5FAST_ORDER_FILE:
        break;
    case H5FAST_ORDER_EXACT:
        position = h5fast_permutation_of(&o->shuffled, item);
        break;
    case H5FAST_ORDER_BATCHES:
        position = batch_position(o, item);
        break;
    case H5FAST_ORDER_BLOCKS:
        position = block_position(o, item);
        break;
    case H5FAST_ORDER_DRAWN:
        return next_drawn(o, item, from);
    }
    if (position < from) /* once more among the repeated ones */
        position += (from - position + o->count - 1) / o->count * o->count;
    return position < o->length ? position : H5FAST_NEVER;
}
