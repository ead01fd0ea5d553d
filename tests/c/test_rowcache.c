/* The cache that knows what is needed next: against a plain model, and against the figures that chose it.
 *
 * Prevents: a row under another's position, a slot that is lost or handed out twice, a row that is dropped while another is
 * needed later, more decoding than the rule promises.
 */
#include "guard.h"

#include "../../src/rowcache.h"
#include "../../src/simulate.h"

enum { MOST_SLOTS = 40 };

typedef struct {
    uint64_t positions[MOST_SLOTS]; /* by slot; H5FAST_NEVER_KEPT: free */
    uint64_t slots, used;
} model;

static uint32_t slot_of(const model *m, uint64_t position)
{
    for (uint32_t slot = 0; slot < m->slots; slot++)
        if (m->positions[slot] == position)
            return slot;
    return H5FAST_NO_SLOT;
}

static uint64_t latest(const model *m)
{
    uint64_t last = 0;
    for (uint32_t slot = 0; slot < m->slots; slot++)
        if (m->positions[slot] != H5FAST_NEVER_KEPT && m->positions[slot] > last)
            last = m->positions[slot];
    return last;
}

/* `width`: positions of a bucket, which are as good as each other. */
static void offer(model *m, h5fast_rowcache *cache, uint64_t position, uint64_t width)
{
    uint64_t last = latest(m);
    int is_full = m->used == m->slots, is_wanted = h5fast_rowcache_wants(cache, position);
    uint32_t slot = h5fast_rowcache_offer(cache, position);
    CHECK(is_wanted == (slot != H5FAST_NO_SLOT), "taken is what was wanted");
    if (is_full && position / width >= last / width) {
        CHECK(slot == H5FAST_NO_SLOT, "needed latest of all: refused");
        return;
    }
    CHECK(slot < m->slots, "a slot of the cache");
    if (is_full)
        CHECK(m->positions[slot] / width == last / width, "what is needed last gives way");
    else
        CHECK(m->positions[slot] == H5FAST_NEVER_KEPT, "a free slot is used first");
    m->positions[slot] = position;
    m->used += !is_full;
}

static void test_against_model(uint64_t horizon, uint64_t width)
{
    model m = {.slots = 1 + random_below(MOST_SLOTS)};
    memset(m.positions, 0xFF, sizeof m.positions);
    h5fast_rowcache *cache = h5fast_rowcache_make(m.slots, horizon);
    CHECK(cache != NULL, "memory");
    uint64_t present = random_below(1000) * horizon;
    h5fast_rowcache_advance(cache, present);
    for (int step = 0; step < 3000; step++) {
        uint64_t position = present + random32() % horizon;
        uint32_t slot = slot_of(&m, position);
        CHECK(h5fast_rowcache_find(cache, position) == slot, "found where it was put");
        if (slot == H5FAST_NO_SLOT) {
            offer(&m, cache, position, width);
        } else if (random_below(2)) {
            h5fast_rowcache_drop(cache, slot);
            m.positions[slot] = H5FAST_NEVER_KEPT;
            m.used--;
        } else {
            uint64_t next = present + random32() % horizon;
            if (slot_of(&m, next) == H5FAST_NO_SLOT) {
                h5fast_rowcache_move(cache, slot, next);
                m.positions[slot] = next;
            }
        }
        CHECK(h5fast_rowcache_used(cache) == m.used, "slots in use");
        if (random_below(20) == 0) { /* time passes: what was due goes */
            uint64_t until = present + random_below((uint32_t)(horizon / 4 + 1));
            for (uint32_t i = 0; i < m.slots; i++)
                if (m.positions[i] < until) {
                    CHECK(h5fast_rowcache_position(cache, i) == m.positions[i], "position of a slot");
                    h5fast_rowcache_drop(cache, i);
                    m.positions[i] = H5FAST_NEVER_KEPT;
                    m.used--;
                }
            present = until;
            h5fast_rowcache_advance(cache, present);
        }
    }
    h5fast_rowcache_free(cache);
}

/* Decodes per chunk of one epoch, in the steady state, of an exact shuffle of these rows in batches of 256. */
static double decodes_per_chunk(uint64_t rows, uint64_t chunk, double share)
{
    enum { EPOCHS = 3 };
    h5fast_schedule schedules[EPOCHS + 1];
    const h5fast_schedule *listed[EPOCHS + 1];
    uint64_t decodes[EPOCHS], groups = (rows + chunk - 1) / chunk;
    uint64_t *starts = malloc((groups + 1) * sizeof *starts);
    CHECK(starts != NULL, "memory");
    for (uint64_t group = 0; group <= groups; group++)
        starts[group] = group < groups ? group * chunk : rows;
    for (uint64_t epoch = 0; epoch <= EPOCHS; epoch++) {
        schedules[epoch] = (h5fast_schedule){.batch = 256, .world = 1, .epoch = epoch};
        schedules[epoch].order = (h5fast_order){.kind = H5FAST_ORDER_EXACT, .count = rows, .key = epoch};
        CHECK(h5fast_schedule_make(&schedules[epoch]) == H5FAST_OK, "memory");
        listed[epoch] = &schedules[epoch];
    }
    CHECK(h5fast_simulate(listed, EPOCHS, starts, groups, (uint64_t)((double)rows * share), decodes) == H5FAST_OK, "memory");
    for (uint64_t epoch = 0; epoch <= EPOCHS; epoch++)
        h5fast_schedule_free(&schedules[epoch]);
    free(starts);
    return (double)decodes[EPOCHS - 1] / (double)groups;
}

static void test_decodes_as_simulated(void)
{
    static const struct { uint64_t chunk; double share, decodes; } expected[] = {
        {32, .05, 7.7}, {32, .10, 5.3}, {32, .25, 2.9}, {32, .50, 2.0}, {32, 1.0, 0.0},
        {100, .05, 11.8}, {100, .10, 7.6}, {100, .25, 3.9}, {100, .50, 2.0},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        double found = decodes_per_chunk(100000, expected[i].chunk, expected[i].share);
        printf("chunks of %3d rows, %3.0f %% of them in memory: %.2f decodes a chunk\n", (int)expected[i].chunk,
               100 * expected[i].share, found);
        CHECK(found <= expected[i].decodes * 1.05, "at most %.1f", expected[i].decodes);
    }
}

int main(void)
{
    for (int i = 0; i < 60; i++) {
        test_against_model(200, 1);
        test_against_model(60000, 1);
        test_against_model((uint64_t)1 << 31, (uint64_t)1 << 16);
    }
    test_decodes_as_simulated();
    puts("rowcache: ok");
}
