/* The cache of decoded chunks alone: against a plain model of it, and from many threads at once.
 *
 * Prevents: a chunk's bytes under another chunk's number, memory that is given to another chunk while it is read, more
 * memory than the budget, a chunk that is kept after one touch, a damaged chunk that stays.
 */
#include <pthread.h>

#include "engine.h"

#include "../../src/kept.h"

enum { CHUNK_BYTES = 64, THREADS = 8 };

static h5fast_kept_pool *pool;

/* A cache alone in its pool. */
static h5fast_kept *made(uint64_t chunk_bytes, uint64_t budget)
{
    pool = h5fast_kept_pool_make(budget);
    CHECK(pool != NULL, "memory");
    return h5fast_kept_make(pool, chunk_bytes);
}

static void drop(h5fast_kept *kept)
{
    h5fast_kept_free(kept);
    CHECK(h5fast_kept_pool_bytes(pool) == 0, "memory stays behind");
    h5fast_kept_pool_free(pool);
}

static void fill(uint8_t *bytes, uint64_t number)
{
    for (size_t i = 0; i < CHUNK_BYTES; i++)
        bytes[i] = (uint8_t)(number * 7 + i);
}

static int holds_chunk(const uint8_t *bytes, uint64_t number)
{
    for (size_t i = 0; i < CHUNK_BYTES; i++)
        if (bytes[i] != (uint8_t)(number * 7 + i))
            return 0;
    return 1;
}

/* One touch as the engine makes it; `sound` chunks decode. Returns what the touch gave. */
static h5fast_hold use(h5fast_kept *kept, uint64_t number, int sound)
{
    h5fast_hold hold;
    h5fast_kept_touch(kept, number, &hold);
    h5fast_hold got = hold;
    if (hold.bytes == NULL)
        return got;
    if (hold.is_filled) {
        CHECK(holds_chunk(hold.bytes, number), "chunk %llu: other bytes", (unsigned long long)number);
    } else if (sound) {
        fill(hold.bytes, number);
        hold.is_filled = 1;
    }
    h5fast_kept_release(kept, &hold);
    return got;
}

static void test_two_touches_keep(void)
{
    h5fast_kept *kept = made(CHUNK_BYTES, 3 * CHUNK_BYTES + 1);
    CHECK(kept != NULL && h5fast_kept_slots(kept) == 3, "three chunks fit");
    CHECK(use(kept, 5, 1).bytes == NULL && h5fast_kept_pool_bytes(pool) == 0, "one touch keeps nothing");
    h5fast_hold second = use(kept, 5, 1);
    CHECK(second.bytes != NULL && !second.is_filled, "the second touch decodes");
    CHECK(use(kept, 5, 1).is_filled, "the third reads");
    for (uint64_t number = 6; number <= 8; number++) {
        use(kept, number, 1);
        use(kept, number, 1);
    }
    CHECK(h5fast_kept_pool_bytes(pool) == 3 * CHUNK_BYTES, "a fourth takes the memory of the first");
    CHECK(use(kept, 6, 1).is_filled && use(kept, 7, 1).is_filled && use(kept, 8, 1).is_filled, "the last three stay");
    CHECK(!use(kept, 5, 1).is_filled, "the first is gone");
    drop(kept);
}

static void test_many_between_touches_are_no_second_touch(void)
{
    h5fast_kept *kept = made(CHUNK_BYTES, 4 * CHUNK_BYTES);
    for (uint64_t number = 0; number < 1000; number++)
        CHECK(use(kept, number % 50, 1).bytes == NULL, "50 chunks in turn keep nothing where 4 fit");
    CHECK(h5fast_kept_pool_bytes(pool) == 0, "no memory was taken");
    drop(kept);
}

static void test_damaged_chunk_is_given_up(void)
{
    h5fast_kept *kept = made(CHUNK_BYTES, 2 * CHUNK_BYTES);
    for (int i = 0; i < 5; i++)
        CHECK(!use(kept, 1, 0).is_filled, "a damaged chunk is never there");
    CHECK(h5fast_kept_pool_bytes(pool) == 0, "and holds no memory");
    CHECK(!use(kept, 1, 1).is_filled && use(kept, 1, 1).is_filled, "it can be mended");
    drop(kept);
}

static void test_held_chunks_stay(void)
{
    h5fast_kept *kept = made(CHUNK_BYTES, CHUNK_BYTES);
    use(kept, 1, 1);
    use(kept, 1, 1);
    h5fast_hold held, other;
    h5fast_kept_touch(kept, 1, &held);
    CHECK(held.is_filled, "it is there");
    use(kept, 2, 1);
    h5fast_kept_touch(kept, 2, &other);
    CHECK(other.bytes == NULL, "the only place is held");
    CHECK(holds_chunk(held.bytes, 1), "and untouched");
    h5fast_kept_release(kept, &held);
    h5fast_kept_touch(kept, 2, &other);
    CHECK(other.bytes != NULL && !other.is_filled, "now it can be taken");
    h5fast_hold third;
    h5fast_kept_touch(kept, 2, &third);
    CHECK(third.bytes == NULL, "a chunk that is being decoded is nobody else's");
    h5fast_kept_release(kept, &other);
    drop(kept);
}

static void test_too_large(void)
{
    CHECK(made(CHUNK_BYTES + 1, CHUNK_BYTES) == NULL, "a chunk larger than the budget is not kept");
    drop(NULL);
    CHECK(made(CHUNK_BYTES, 0) == NULL, "no budget, no cache");
    drop(NULL);
    h5fast_kept *kept = made(1, UINT64_MAX);
    CHECK(kept != NULL && h5fast_kept_slots(kept) == 16384, "the number of tiny chunks is bounded");
    drop(kept);
}

/* The model: two lists of numbers, the latest first. */
typedef struct {
    uint64_t numbers[64];
    int count;
} numbers;

static int take_number(numbers *list, uint64_t number)
{
    for (int i = 0; i < list->count; i++)
        if (list->numbers[i] == number) {
            memmove(list->numbers + i, list->numbers + i + 1, (size_t)(--list->count - i) * sizeof number);
            return 1;
        }
    return 0;
}

static void add_first(numbers *list, uint64_t number)
{
    memmove(list->numbers + 1, list->numbers, (size_t)list->count++ * sizeof number);
    list->numbers[0] = number;
}

static void test_against_model(void)
{
    for (int round = 0; round < rounds(200); round++) {
        int slots = 1 + (int)random_below(12);
        uint64_t span = 1 + random_below(60);
        h5fast_kept *kept = made(CHUNK_BYTES, (uint64_t)slots * CHUNK_BYTES);
        numbers touched = {{0}, 0}, there = {{0}, 0};
        for (int step = 0; step < 400; step++) {
            uint64_t number = random_below(span) * 0x100000001u;
            h5fast_hold got = use(kept, number, 1);
            if (take_number(&there, number)) {
                CHECK(got.is_filled, "round %d step %d: it was kept", round, step);
                add_first(&there, number);
            } else if (take_number(&touched, number)) {
                CHECK(got.bytes != NULL && !got.is_filled, "round %d step %d: second touch", round, step);
                if (there.count == slots)
                    touched.numbers[touched.count++] = there.numbers[--there.count];
                add_first(&there, number);
            } else {
                CHECK(got.bytes == NULL, "round %d step %d: first touch", round, step);
                if (touched.count == slots)
                    touched.count--;
                add_first(&touched, number);
            }
            CHECK(h5fast_kept_pool_bytes(pool) == (uint64_t)there.count * CHUNK_BYTES, "round %d step %d: memory", round, step);
        }
        drop(kept);
    }
}

/* Two datasets with chunks of different sizes: what one touches takes the memory of what the other touched longest ago. */
static void test_shared_pool(void)
{
    h5fast_kept_pool *shared = h5fast_kept_pool_make(6 * CHUNK_BYTES);
    h5fast_kept *small = h5fast_kept_make(shared, CHUNK_BYTES), *large = h5fast_kept_make(shared, 4 * CHUNK_BYTES);
    h5fast_hold hold;
    for (int round = 0; round < rounds(3000); round++) {
        h5fast_kept *kept = random_below(3) ? small : large;
        h5fast_kept_touch(kept, random_below(5), &hold);
        if (hold.bytes != NULL) {
            memset(hold.bytes, round, kept == small ? CHUNK_BYTES : 4 * CHUNK_BYTES);
            hold.is_filled = random_below(8) > 0;
            h5fast_kept_release(kept, &hold);
        }
        CHECK(h5fast_kept_pool_bytes(shared) <= 6 * CHUNK_BYTES, "the limit holds for both together");
    }
    h5fast_kept_touch(large, 77, &hold);
    h5fast_kept_touch(large, 77, &hold);
    CHECK(hold.bytes != NULL && h5fast_kept_pool_bytes(shared) <= 6 * CHUNK_BYTES, "the other's chunks gave way");
    hold.is_filled = 1;
    h5fast_kept_release(large, &hold);
    h5fast_kept_free(large);
    for (int i = 0; i < 3; i++)
        use(small, 1, 1);
    CHECK(use(small, 1, 1).is_filled, "the one that is left goes on");
    h5fast_kept_free(small);
    CHECK(h5fast_kept_pool_bytes(shared) == 0, "nothing stays behind");
    h5fast_kept_pool_free(shared);
}

static void *hammer(void *context)
{
    uint64_t state = (uint64_t)(uintptr_t)&state;
    for (int i = 0; i < rounds(20000); i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        use(context, (state >> 33) % 12, (state >> 50) % 8 != 0);
    }
    return NULL;
}

static void test_threads(void)
{
    h5fast_kept *kept = made(CHUNK_BYTES, 5 * CHUNK_BYTES);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, hammer, kept);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(h5fast_kept_pool_bytes(pool) <= 5 * CHUNK_BYTES, "the budget holds");
    drop(kept);
}

int main(void)
{
    test_two_touches_keep();
    test_many_between_touches_are_no_second_touch();
    test_damaged_chunk_is_given_up();
    test_held_chunks_stay();
    test_too_large();
    test_against_model();
    test_shared_pool();
    test_threads();
    puts("kept: ok");
    return 0;
}
