/* The engine, end to end on files it reads: whatever the layout, the selection, the filters, the cast and the number of
 * threads.
 *
 * Prevents: wrong bytes for one of them.
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

int main(void)
{
    const char *deflate = find_deflate();
    open_test_file(deflate);
    test_random_datasets();
    test_many_chunks();
    test_casts();
    h5fast_scratch_trim();
    printf("gather: deflate by %s; %zu gathers right: ok\n", deflate != NULL ? deflate : "nobody", gathers);
}
