#include "simulate.h"

#include <stdlib.h>
#include <string.h>

#include "rowcache.h"

typedef struct {
    const h5fast_schedule *now, *next;
    const uint64_t *starts;  /* first item of each group, and the number of items behind them */
    uint64_t groups;
    h5fast_rowcache *cache;  /* NULL: nothing is kept */
    int64_t *items;          /* of the batch */
    uint64_t *decoded;       /* of each group: the batch, counted from 1, that decoded it last */
    uint64_t batches;
} simulation;

/* The row at this position, if it is kept; it then is for when it is needed next. */
static int is_kept(const simulation *s, uint64_t item, uint64_t position)
{
    if (s->cache == NULL)
        return 0;
    uint32_t slot = h5fast_rowcache_find(s->cache, h5fast_schedule_time(s->now, position));
    if (slot == H5FAST_NO_SLOT)
        return 0;
    h5fast_rowcache_renew(s->cache, slot, h5fast_schedule_next_time(s->now, s->next, item, position + 1));
    return 1;
}

static void keep_group(const simulation *s, uint64_t group, uint64_t from)
{
    for (uint64_t item = s->starts[group]; s->cache != NULL && item < s->starts[group + 1]; item++) {
        uint64_t time = h5fast_schedule_next_time(s->now, s->next, item, from);
        if (time != H5FAST_NEVER && h5fast_rowcache_wants(s->cache, time) && h5fast_rowcache_find(s->cache, time) == H5FAST_NO_SLOT)
            h5fast_rowcache_offer(s->cache, time);
    }
}

static uint64_t run_batch(simulation *s, uint64_t step)
{
    uint64_t count, first = h5fast_schedule_first(s->now, step, &count), decodes = 0;
    h5fast_order_items(&s->now->order, first, count, s->items);
    if (s->cache != NULL)
        h5fast_rowcache_advance(s->cache, h5fast_schedule_time(s->now, first));
    s->batches++;
    for (uint64_t i = 0; i < count; i++)
        if (is_kept(s, (uint64_t)s->items[i], first + i))
            s->items[i] = -1;
    for (uint64_t i = 0; i < count; i++) {
        if (s->items[i] < 0)
            continue;
        uint64_t group = h5fast_last_at_most(s->starts, s->groups, (uint64_t)s->items[i]);
        if (s->decoded[group] == s->batches)
            continue;
        s->decoded[group] = s->batches;
        decodes++;
        keep_group(s, group, first + count);
    }
    return decodes;
}

h5fast_status h5fast_simulate(const h5fast_schedule *const *schedules, uint64_t epochs, const uint64_t *starts, uint64_t groups,
                              uint64_t slots, uint64_t *decodes)
{
    const h5fast_schedule *first = schedules[0];
    simulation s = {.starts = starts, .groups = groups};
    s.cache = slots > 0 ? h5fast_rowcache_make(slots, 2 * first->stride) : NULL;
    s.items = malloc(first->batch * sizeof *s.items);
    s.decoded = calloc(s.groups, sizeof *s.decoded);
    h5fast_status status = (slots > 0 && s.cache == NULL) || s.items == NULL || s.decoded == NULL ? H5FAST_MEMORY : H5FAST_OK;
    for (uint64_t epoch = 0; epoch < epochs && status == H5FAST_OK; epoch++) {
        s.now = schedules[epoch];
        s.next = schedules[epoch + 1];
        decodes[epoch] = 0;
        for (uint64_t step = 0; step < s.now->steps; step++)
            decodes[epoch] += run_batch(&s, step);
    }
    h5fast_rowcache_free(s.cache);
    free(s.items);
    free(s.decoded);
    return status;
}
