#include "filler.h"

#include <stdlib.h>

/* The missing rows, straight to the batch, or to where they are cast from. */
static h5fast_status add_missing(h5fast_filler *f, const h5fast_field *field, uint8_t *out)
{
    int is_staged = field->cast != NULL && !field->is_fused;
    for (uint64_t i = 0; i < f->count; i++) {
        if (!f->is_missing[i])
            continue;
        uint8_t *target = is_staged ? f->staged + i * field->row_bytes : out + i * field->out_bytes;
        h5fast_status status = h5fast_points_add(f, field, f->rows[i], target, 0);
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static h5fast_status cast_staged(h5fast_filler *f, const h5fast_field *field, uint8_t *out)
{
    if (field->cast == NULL || field->is_fused)
        return H5FAST_OK;
    uint64_t count = 0;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i])
            f->moves[count++] = (h5fast_move){f->staged + i * field->row_bytes, out + i * field->out_bytes};
    return h5fast_moves_run(f, field, count);
}

static int still_holds(const h5fast_field *field, const h5fast_pending *p)
{
    return h5fast_rowcache_position(field->store.cache, p->slot) == p->time;
}

/* Room for one more. Those that lost their slot again to rows needed sooner make place first: no more than two for each slot
 * are ever noted. */
static int reserve_pending(h5fast_filler *f, const h5fast_field *field)
{
    if (f->pending_count < f->pending_capacity)
        return 1;
    uint64_t kept = 0;
    for (uint64_t i = 0; i < f->pending_count; i++)
        if (still_holds(field, &f->pending[i]))
            f->pending[kept++] = f->pending[i];
    f->pending_count = kept;
    if (kept < f->pending_capacity / 2)
        return 1;
    uint64_t capacity = f->pending_capacity + f->pending_capacity / 2 + 256;
    h5fast_pending *grown = realloc(f->pending, capacity * sizeof *grown);
    if (grown == NULL)
        return 0;
    f->bytes += (capacity - f->pending_capacity) * sizeof *grown;
    f->pending = grown;
    f->pending_capacity = capacity;
    return 1;
}

/* Offers the cache the rows of a group that is decoded anyway. */
static h5fast_status offer_group(h5fast_filler *f, const h5fast_field *field, uint64_t group)
{
    h5fast_rowcache *cache = field->store.cache;
    uint64_t begin, end;
    h5fast_rows_of_group(field, group, &begin, &end);
    uint64_t last = h5fast_items_below(f->given.items, end);
    for (uint64_t rank = h5fast_items_below(f->given.items, begin); rank < last; rank++) {
        uint64_t item = h5fast_items_ranked(f->given.items, rank);
        uint64_t time = h5fast_filler_next_time(f, item, f->first + f->count);
        if (time == H5FAST_NEVER || !h5fast_rowcache_wants(cache, time) || h5fast_rowcache_find(cache, time) != H5FAST_NO_SLOT)
            continue;
        if (!reserve_pending(f, field))
            return H5FAST_MEMORY;
        uint32_t slot = h5fast_rowcache_offer(cache, time);
        if (slot == H5FAST_NO_SLOT)
            continue;
        field->store.items[slot] = (int64_t)item;
        f->pending[f->pending_count++] = (h5fast_pending){slot, time, h5fast_items_row(f->given.items, item)};
    }
    return H5FAST_OK;
}

/* Reads what is missing, and with it what its groups hold that is worth keeping. */
static h5fast_status read_and_keep(h5fast_filler *f, uint32_t number, uint8_t *out)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_store *store = &field->store;
    h5fast_status status = H5FAST_OK;
    f->points.count = f->pending_count = 0;
    uint64_t groups = store->kind == H5FAST_STORE_SOME ? h5fast_filler_missing_groups(f, field) : 0;
    for (uint64_t i = 0; i < groups && status == H5FAST_OK; i++) /* of large groups this may take longer than reading */
        status = atomic_load(f->stop) ? H5FAST_CANCELLED : offer_group(f, field, f->groups[i]);
    if (status == H5FAST_OK)
        status = add_missing(f, field, out);
    for (uint64_t i = 0; i < f->pending_count && status == H5FAST_OK; i++)
        if (still_holds(field, &f->pending[i]))
            status = h5fast_points_add(f, field, f->pending[i].row, store->rows + f->pending[i].slot * field->row_bytes, 1);
    status = status == H5FAST_OK ? h5fast_points_read(f, number) : h5fast_filler_gave_up(f, status);
    for (uint64_t i = 0; i < f->pending_count && status != H5FAST_OK; i++)
        if (still_holds(field, &f->pending[i]))
            h5fast_rowcache_drop(store->cache, f->pending[i].slot);
    return status != H5FAST_OK ? status : cast_staged(f, field, out);
}

/* Marks what is missing; for what the cache has, f->moves. Returns how many of these there are. */
static uint64_t find_kept(h5fast_filler *f, h5fast_field *field, uint8_t *out)
{
    const h5fast_store *store = &field->store;
    uint64_t moves = 0;
    h5fast_rowcache_advance(store->cache, h5fast_schedule_time(f->given.now, f->first));
    for (uint64_t i = 0; i < f->count; i++) {
        uint64_t position = f->first + i;
        uint32_t slot = h5fast_rowcache_find(store->cache, h5fast_schedule_time(f->given.now, position));
        f->is_missing[i] = slot == H5FAST_NO_SLOT;
        if (slot == H5FAST_NO_SLOT)
            continue;
        f->moves[moves++] = (h5fast_move){store->rows + slot * field->row_bytes, out + i * field->out_bytes};
        /* Nothing is put into slots before the moves are done, so this one may change hands already. */
        h5fast_rowcache_renew(store->cache, slot, h5fast_filler_next_time(f, (uint64_t)f->items[i], position + 1));
    }
    return moves;
}


h5fast_status h5fast_rowstore_find(h5fast_filler *f, h5fast_field *field, uint8_t *out)
{
    const h5fast_store *store = &field->store;
    if (store->kind == H5FAST_STORE_SOME)
        return h5fast_moves_run(f, field, find_kept(f, field, out));
    for (uint64_t i = 0; i < f->count; i++)
        f->is_missing[i] = store->kind == H5FAST_STORE_NONE ||
                           !h5fast_bit(store->present, h5fast_group_of(field, f->rows[i]));
    return H5FAST_OK;
}

h5fast_status h5fast_rowstore_read(h5fast_filler *f, uint32_t number, uint8_t *out)
{
    h5fast_field *field = f->given.fields[number];
    const h5fast_store *store = &field->store;
    if (store->kind != H5FAST_STORE_ALL)
        return read_and_keep(f, number, out);
    h5fast_status status = h5fast_groups_read(f, number);
    if (status != H5FAST_OK)
        return status;
    uint64_t moves = 0;
    for (uint64_t i = 0; i < f->count; i++)
        if (!f->is_damaged[i] || h5fast_bit(store->present, h5fast_group_of(field, f->rows[i])))
            f->moves[moves++] = (h5fast_move){store->rows + (uint64_t)f->items[i] * field->row_bytes,
                                              out + i * field->out_bytes};
    return h5fast_moves_run(f, field, moves);
}

typedef struct {
    const h5fast_filler *filler;
    const int64_t *items;
} settling;

static uint64_t time_of_slot(void *context, uint32_t slot)
{
    const settling *s = context;
    return h5fast_filler_next_time(s->filler, (uint64_t)s->items[slot], s->filler->given.now->begun);
}

void h5fast_filler_settle(h5fast_filler *f)
{
    for (uint32_t i = 0; i < f->given.field_count; i++) {
        const h5fast_store *store = &f->given.fields[i]->store;
        settling context = {f, store->items};
        if (store->kind != H5FAST_STORE_SOME)
            continue;
        h5fast_rowcache_advance(store->cache, h5fast_schedule_time(f->given.now, f->given.now->begun));
        h5fast_rowcache_rekey(store->cache, time_of_slot, &context);
    }
}
