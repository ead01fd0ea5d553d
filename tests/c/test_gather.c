/* The engine, end to end on files it reads: whatever the layout, the selection, the filters, the cast and the number of
 * threads.
 *
 * Prevents: wrong bytes for one of them; bytes of another chunk, or of none, from what is kept of chunks read before.
 */
#include "dataset.h"
#include "rows.h"

#include "../../src/decode.h"

/* The file's pages leave memory, where the file system lets them. */
static void chill(void)
{
    fdatasync(descriptor);
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
}

static void test_random_datasets(void)
{
    static dataset d;
    for (int round = 0, end = rounds(2500); round < end; round++) {
        h5fast_source source;
        random_dataset(&d);
        int memory = chance(20);
        if (chance(5))
            chill();
        if (memory)
            h5fast_source_of_memory(&source, file, d.file_bytes);
        else
            CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        for (int i = 0; i < 8; i++) {
            select_some(&d);
            check_gather(&d, some_way(&source));
        }
        if (!memory)
            h5fast_source_close(&source);
    }
}

/* More chunks than one window of the engine's plan. */
static void test_many_chunks(void)
{
    static dataset d;
    h5fast_source source;
    memset(&d, 0, sizeof d);
    d.present = 90;
    d.m.storage.rank = 2;
    d.m.storage.itemsize = 4;
    d.m.storage.shape[0] = 190, d.m.storage.shape[1] = 200;
    d.m.storage.chunk[0] = d.m.storage.chunk[1] = 1;
    complete_storage(&d.m);
    store(&d, 0);
    CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "open");
    d.m.selection = (h5fast_selection){.count = {190, 200}, .step = {1, 1}, .point_count = 1};
    lay_out(&d.m);
    expect(&d);
    for (int threads = 1; threads <= 8; threads++)
        check_gather(&d, (how){&source, NULL, out, threads, 1e-4});
    h5fast_source_close(&source);
}

static void test_casts(void)
{
    static dataset d;
    for (int round = 0, end = rounds(2500); round < end; round++) {
        h5fast_source source;
        cast_case c;
        random_rows(&d, &c, H5FAST_RAW);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        how h = some_way(&source);
        h.cast = &c.cast;
        h5fast_error e = gather_afresh(&d, h);
        CHECK(e.status == H5FAST_OK, "status %d", e.status);
        CHECK(same_values(&c, d.m.out_bytes), "from %d to %d, swapped %d, %llu channels, first %d", c.from, c.to, c.swapped,
              (unsigned long long)c.cast.channels, c.cast.channels_first);
        h5fast_source_close(&source);
        gathers++;
    }
}

/* The same few chunks again and again, with room for none of them, some or all. */
static void test_kept_chunks(void)
{
    static dataset d;
    for (int round = 0, end = rounds(600); round < end; round++) {
        h5fast_source source;
        do {
            random_dataset(&d);
        } while (d.m.storage.filter_count == 0);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        uint64_t bytes = d.m.storage.chunk_bytes;
        h5fast_kept_pool *pool = h5fast_kept_pool_make(bytes * random_below(2 + (size_t)d.m.chunk_count));
        kept = h5fast_kept_make(pool, bytes);
        for (int i = 0; i < 12; i++) {
            if (i % 3 == 0 || chance(50))
                select_some(&d);
            check_gather(&d, some_way(&source));
        }
        h5fast_kept_free(kept);
        h5fast_kept_pool_free(pool);
        kept = NULL;
        h5fast_source_close(&source);
    }
}

/* Each point's row to a place of its own, some of them as they are stored though the others are cast. */
static void test_targets(void)
{
    static dataset d;
    static uint8_t *targets[MOST_POINTS], uncast[MOST_POINTS];
    for (int round = 0, end = rounds(2500); round < end; round++) {
        h5fast_source source;
        cast_case c;
        random_rows(&d, &c, H5FAST_F32);
        CHECK(h5fast_source_open(&source, descriptor, chance(60)) == H5FAST_OK, "open");
        h5fast_selection *p = &d.m.selection;
        uint64_t raw = c.cast.elements * c.cast.itemsize, made = c.cast.elements * c.out_size;
        uint64_t room = raw > made ? raw : made;
        uint64_t count = (uint64_t)p->point_count, shift = random_below((size_t)count);
        int casts = chance(70), some_uncast = casts && chance(70);
        d.m.out_before = p->point_stride = 0;
        p->targets = targets;
        p->uncast = some_uncast ? uncast : NULL;
        memset(out, 0xa5, count * room);
        for (uint64_t i = 0; i < count; i++) {
            targets[i] = out + (i + shift) % count * room;
            uncast[i] = (uint8_t)chance(50);
        }
        h5fast_error e = gather(&d, (how){&source, casts ? &c.cast : NULL, out, 1 + (int)random_below(8), 1});
        CHECK(e.status == H5FAST_OK, "status %d", e.status);
        int64_t first = d.m.coords[0][0];
        for (uint64_t i = 0; i < count; i++) {
            int64_t row = i == 0 ? first : d.m.coords[0][i];
            const uint8_t *as_stored = data + (uint64_t)row * raw;
            int is_cast = casts && !(some_uncast && uncast[i]);
            d.m.coords[0][0] = row;
            expect_row(&d, &c, 0);
            CHECK(memcmp(targets[i], is_cast ? expected : as_stored, is_cast ? made : raw) == 0, "point %llu, cast %d",
                  (unsigned long long)i, is_cast);
            for (uint64_t at = is_cast ? made : raw; at < room; at++)
                CHECK(targets[i][at] == 0xa5, "point %llu writes too far", (unsigned long long)i);
        }
        h5fast_source_close(&source);
        gathers++;
    }
}

int main(void)
{
    const char *deflate = find_deflate();
    open_test_file(deflate);
    test_random_datasets();
    test_many_chunks();
    test_casts();
    test_kept_chunks();
    test_targets();
    h5fast_scratch_trim();
    printf("gather: deflate by %s; %zu gathers right: ok\n", deflate != NULL ? deflate : "nobody", gathers);
}
