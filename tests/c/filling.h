/* For the C tests of the loader's engine: fields of random datasets, orders of their rows, and what batches must hold. */
#ifndef H5FAST_TEST_FILLING_H
#define H5FAST_TEST_FILLING_H

#include "rows.h"

#include "../../src/feed.h"

enum { MOST_PARTS = 5, MOST_ROWS = 400, MOST_BATCH = 64, FIELDS = 2 };

/* Two fields of one dataset, raw rows and cast ones, of parts that are ranges of its rows; and who draws what of them. */
typedef struct {
    dataset d;
    cast_case cast;
    h5fast_source source;
    h5fast_part parts[MOST_PARTS];
    uint64_t rows;                      /* of all parts */
    uint64_t in_dataset[MOST_ROWS * MOST_PARTS]; /* the dataset's row that each of them is */
    uint64_t groups;
    h5fast_field fields[FIELDS], *field_list[FIELDS];
    h5fast_items items;
    int64_t listed[MOST_ROWS], by_row[MOST_ROWS];
    h5fast_order_kind kind;
    uint64_t batch, rank, world, window, group_starts[MOST_ROWS + 1], group_count, key;
    int64_t drawn[2][MOST_ROWS], drawn_by_item[2][MOST_ROWS];
    int drop_last;
    h5fast_schedule schedules[2];
    uint8_t is_marked[MOST_CHUNKS];     /* by chunk: it does not decode */
} scene;

static const int64_t *sorted_values;

static int by_value(const void *a, const void *b)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    if (sorted_values[i] != sorted_values[j])
        return sorted_values[i] < sorted_values[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

static inline void sort_by(const int64_t *values, int64_t *numbers_out, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        numbers_out[i] = (int64_t)i;
    sorted_values = values;
    qsort(numbers_out, count, sizeof *numbers_out, by_value);
}

static inline void scene_parts(scene *s)
{
    uint64_t extent = s->d.m.storage.shape[0], group_rows = s->d.m.storage.chunk[0];
    uint32_t count = 1 + (uint32_t)random_below(MOST_PARTS);
    s->rows = s->groups = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = chance(40) ? 0 : random_below((size_t)extent);
        uint64_t rows = count == 1 || chance(20) ? extent - offset : 1 + random_below((size_t)(extent - offset));
        s->parts[i] = (h5fast_part){&s->d.m.storage, &s->d.index, &s->source, s->rows, rows, offset, group_rows, s->groups, NULL};
        for (uint64_t row = 0; row < rows; row++)
            s->in_dataset[s->rows + row] = offset + row;
        s->rows += rows;
        s->groups += (offset + rows - 1) / group_rows - offset / group_rows + 1;
    }
    for (int i = 0; i < FIELDS; i++)
        s->fields[i].part_count = count;
}

static inline void scene_fields(scene *s)
{
    uint64_t elements = s->cast.cast.elements, itemsize = s->d.m.storage.itemsize;
    for (int i = 0; i < FIELDS; i++) {
        h5fast_field *f = &s->fields[i];
        f->parts = s->parts;
        f->row = s->d.m.selection;
        f->row_bytes = elements * itemsize;
        f->cast = i == 0 ? NULL : &s->cast.cast;
        f->is_fused = i == 1 && chance(50);
        f->out_bytes = i == 0 ? f->row_bytes : elements * s->cast.out_size;
        s->field_list[i] = f;
    }
}

static inline void scene_items(scene *s)
{
    uint64_t most = s->rows < MOST_ROWS ? s->rows : MOST_ROWS;
    s->items = (h5fast_items){most, 0, 1, NULL, NULL};
    if (chance(30)) {
        s->items.start = random_below((size_t)s->rows);
        s->items.step = 1 + random_below(3);
        uint64_t there = (s->rows - 1 - s->items.start) / s->items.step + 1;
        s->items.count = there < most ? there : most;
    } else if (chance(40)) {
        s->items.count = 1 + random_below((size_t)most);
        for (uint64_t i = 0; i < s->items.count; i++)
            s->listed[i] = (int64_t)random_below((size_t)s->rows);
        sort_by(s->listed, s->by_row, s->items.count);
        s->items.rows = s->listed;
        s->items.by_row = s->by_row;
    }
}

static inline void scene_order(scene *s)
{
    uint64_t count = s->items.count;
    s->kind = (h5fast_order_kind)random_below(5);
    s->world = 1 + random_below(3);
    if (s->world > count)
        s->world = 1;
    s->rank = random_below((size_t)s->world);
    s->batch = 1 + random_below(MOST_BATCH);
    if (s->batch * s->world > count)
        s->batch = count / s->world;
    s->drop_last = chance(30);
    s->window = 1 + random_below(4);
    s->key = (uint64_t)random32() << 32 | random32();
    s->group_count = 0;
    for (uint64_t at = 0; at < count; at += 1 + random_below(20))
        s->group_starts[s->group_count++] = at;
    s->group_starts[s->group_count] = count;
}

/* The schedule of an epoch, in the place of an even or odd one. */
static inline h5fast_schedule *scene_schedule(scene *s, uint64_t epoch, uint64_t begun)
{
    h5fast_schedule *schedule = &s->schedules[epoch % 2];
    memset(schedule, 0, sizeof *schedule);
    h5fast_order *o = &schedule->order;
    o->kind = s->kind;
    o->count = s->items.count;
    o->key = h5fast_mix(s->key, epoch);
    o->run = s->batch;
    o->window = s->window;
    o->groups = s->group_starts;
    o->group_count = s->group_count;
    if (s->kind == H5FAST_ORDER_DRAWN) {
        for (uint64_t i = 0; i < o->count; i++)
            s->drawn[epoch % 2][i] = (int64_t)(h5fast_mix(o->key, i) % o->count);
        sort_by(s->drawn[epoch % 2], s->drawn_by_item[epoch % 2], o->count);
        o->drawn = s->drawn[epoch % 2];
        o->by_item = s->drawn_by_item[epoch % 2];
        o->listed = o->count;
    }
    schedule->batch = s->batch;
    schedule->rank = s->rank;
    schedule->world = s->world;
    schedule->drop_last = s->drop_last;
    schedule->epoch = epoch;
    schedule->begun = begun;
    CHECK(h5fast_schedule_make(schedule) == H5FAST_OK, "no memory");
    return schedule;
}

/* Room to keep nothing, some rows or all. */
static inline void scene_store(scene *s, h5fast_field *f)
{
    h5fast_store *store = &f->store;
    uint64_t count = s->items.count, slots = 1 + random_below((size_t)count);
    memset(store, 0, sizeof *store);
    store->kind = (h5fast_store_kind)random_below(3);
    f->touched = chance(80) ? calloc((size_t)s->groups / 8 + 1, 1) : NULL;
    if (store->kind == H5FAST_STORE_NONE)
        return;
    store->rows = malloc((size_t)((store->kind == H5FAST_STORE_ALL ? count : slots) * f->row_bytes));
    if (store->kind == H5FAST_STORE_ALL) {
        store->present = calloc((size_t)s->groups / 8 + 1, 1);
        return;
    }
    store->items = malloc((size_t)slots * sizeof *store->items);
    store->cache = h5fast_rowcache_make(slots, 2 * (count + s->world));
}

static inline void scene_make(scene *s)
{
    do {
        random_rows(&s->d, &s->cast, H5FAST_F32);
    } while (s->d.m.storage.shape[0] > MOST_ROWS || (s->d.m.storage.shape[0] < 30 && chance(90)));
    memset(s->fields, 0, sizeof s->fields);
    memset(s->is_marked, 0, sizeof s->is_marked);
    s->d.m.out_before = 0;
    s->d.m.selection.point_stride = 0;
    CHECK(h5fast_source_open(&s->source, descriptor, chance(60)) == H5FAST_OK, "open");
    scene_parts(s);
    scene_items(s);
    scene_order(s);
    scene_fields(s);
    for (int i = 0; i < FIELDS; i++)
        scene_store(s, &s->fields[i]);
}

static inline void scene_free(scene *s)
{
    for (int i = 0; i < FIELDS; i++) {
        free(s->fields[i].touched);
        free(s->fields[i].store.rows);
        free(s->fields[i].store.items);
        free(s->fields[i].store.present);
        h5fast_rowcache_free(s->fields[i].store.cache);
    }
    h5fast_source_close(&s->source);
}

/* Damages some chunks whose checksum is the last filter. */
static inline void scene_damage(scene *s)
{
    h5fast_storage *storage = &s->d.m.storage;
    storage->filters[storage->filter_count++] = (h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL};
    store(&s->d, 0);
    for (size_t i = 0; i < s->d.index.count; i++)
        if (chunks[i].address != 0 && chunks[i].mask >> (storage->filter_count - 1) == 0 && chance(15)) {
            s->is_marked[s->d.index.kind == H5FAST_INDEX_SORTED ? numbers[i] : i] = 1;
            file[chunks[i].address + random_below((size_t)chunks[i].size)] ^= 1;
        }
    write_file(&s->d);
    h5fast_source_close(&s->source);
    CHECK(h5fast_source_open(&s->source, descriptor, chance(60)) == H5FAST_OK, "open");
}

static inline uint64_t scene_row(const scene *s, uint64_t item)
{
    return s->in_dataset[h5fast_items_row(&s->items, item)];
}

static inline int scene_is_damaged(const scene *s, uint64_t item)
{
    return s->is_marked[scene_row(s, item) / s->d.m.storage.chunk[0]];
}

/* A batch of a step holds the rows of its positions, in order, without those that are damaged. */
static inline void scene_check(scene *s, const h5fast_schedule *now, const h5fast_batch *batch)
{
    static int64_t items[MOST_BATCH];
    uint64_t count, first = h5fast_schedule_first(now, batch->step, &count), kept = 0;
    h5fast_order_items(&now->order, first, count, items);
    for (uint64_t i = 0; i < count; i++) {
        if (scene_is_damaged(s, (uint64_t)items[i]))
            continue;
        uint64_t row = scene_row(s, (uint64_t)items[i]), raw = s->fields[0].row_bytes, made = s->fields[1].out_bytes;
        CHECK(kept < batch->count && batch->items[kept] == items[i], "another item");
        CHECK(memcmp(batch->outs[0] + kept * raw, data + row * raw, raw) == 0, "row %llu differs", (unsigned long long)row);
        s->d.m.coords[0][0] = (int64_t)row;
        expect_row(&s->d, &s->cast, 0);
        CHECK(memcmp(batch->outs[1] + kept * made, expected, made) == 0, "row %llu is cast otherwise, fused %d",
              (unsigned long long)row, s->fields[1].is_fused);
        kept++;
    }
    CHECK(batch->count == kept && batch->dropped == count - kept, "%llu rows, not %llu", (unsigned long long)batch->count,
          (unsigned long long)kept);
}

/* Whether the step's batch needs a damaged chunk. */
static inline int scene_needs_damaged(const scene *s, const h5fast_schedule *now, uint64_t step)
{
    static int64_t items[MOST_BATCH];
    uint64_t count, first = h5fast_schedule_first(now, step, &count);
    h5fast_order_items(&now->order, first, count, items);
    for (uint64_t i = 0; i < count; i++)
        if (scene_is_damaged(s, (uint64_t)items[i]))
            return 1;
    return 0;
}

enum { MOST_DEPTH = 4 };

/* A ring of batches. */
typedef struct {
    h5fast_batch batches[MOST_DEPTH];
    uint8_t *outs[MOST_DEPTH][FIELDS];
} ring;

static inline void ring_make(ring *r, const scene *s)
{
    for (int place = 0; place < MOST_DEPTH; place++) {
        for (int i = 0; i < FIELDS; i++)
            r->outs[place][i] = malloc((size_t)(s->batch * s->fields[i].out_bytes));
        r->batches[place] = (h5fast_batch){r->outs[place], malloc((size_t)s->batch * sizeof(int64_t)), 0, 0, 0};
    }
}

static inline void ring_free(ring *r)
{
    for (int place = 0; place < MOST_DEPTH; place++) {
        free(r->batches[place].items);
        for (int i = 0; i < FIELDS; i++)
            free(r->outs[place][i]);
    }
}

static inline h5fast_filling scene_filling(scene *s, uint64_t epoch, uint64_t begun, int skip_damaged)
{
    return (h5fast_filling){scene_schedule(s, epoch, begun), scene_schedule(s, epoch + 1, 0), &s->items, s->field_list,
                            FIELDS, 1 + (int)random_below(4), skip_damaged};
}

static inline void scene_end_epoch(scene *s)
{
    h5fast_schedule_free(&s->schedules[0]);
    h5fast_schedule_free(&s->schedules[1]);
}

/* Positions that every process may have taken before. */
static inline uint64_t scene_begun(const scene *s)
{
    return chance(60) ? 0 : random_below((size_t)s->items.count) / (s->batch * s->world) * s->batch * s->world;
}

#endif
