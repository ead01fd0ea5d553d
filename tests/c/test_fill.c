/* Filling batches: any dataset, parts, order, selection, store, cast and number of threads; damaged chunks; epochs that end
 * early.
 *
 * Prevents: a row of another item, one that was kept for another position, one cast twice or not at all; damaged rows that
 * are not left out of all fields, or others that are.
 */
#include "filling.h"

#include "../../src/decode.h"

static size_t batches, failed, left_out;

/* Fills the steps of an epoch, or the first few of them. 1: all of them. */
static int fill_epoch(scene *s, ring *r, uint64_t epoch, int settled, int skip)
{
    static _Atomic int stop;
    h5fast_fill_error error = {{H5FAST_OK, 0, 0, 0, 0, 0}, 0, 0};
    uint64_t begun = settled ? 0 : scene_begun(s);
    h5fast_filling filling = scene_filling(s, epoch, begun, skip);
    h5fast_filler *filler = h5fast_filler_make(&filling);
    CHECK(filler != NULL, "no memory");
    if (!settled)
        h5fast_filler_settle(filler);
    uint64_t steps = filling.now->steps, end = chance(70) ? steps : random_below((size_t)steps + 1), step = 0;
    for (; step < end; step++) {
        atomic_store(&stop, 0);
        h5fast_status status = h5fast_filler_fill(filler, step, &r->batches[0], &stop, &error);
        if (!skip && scene_needs_damaged(s, filling.now, step)) {
            CHECK(status == H5FAST_CHECKSUM && error.what.status == status, "status %d", status);
            failed++;
            break;
        }
        CHECK(status == H5FAST_OK && error.what.status == H5FAST_OK, "status %d", status);
        scene_check(s, filling.now, &r->batches[0]);
        batches++;
        left_out += r->batches[0].dropped;
    }
    CHECK(h5fast_filler_bytes(filler) > 0, "no bytes");
    h5fast_filler_free(filler);
    scene_end_epoch(s);
    return step == steps;
}

static void test_epochs(int full, int damaged)
{
    static scene s;
    static ring r;
    for (int round = 0, end = rounds(full); round < end; round++) {
        scene_make(&s);
        if (damaged)
            scene_damage(&s);
        ring_make(&r, &s);
        int settled = 0, skip = chance(70);
        uint64_t epoch = random_below(3);
        for (int i = 0; i < 5; i++) {
            settled = fill_epoch(&s, &r, epoch, settled, skip);
            epoch += 1;
            if (chance(10)) {
                epoch = random_below(100);
                settled = 0;
            }
        }
        ring_free(&r);
        scene_free(&s);
    }
}

/* A file that was written to is not called damaged, and nothing of it is handed out. */
static void test_changed_file(void)
{
    static scene s;
    static ring r;
    for (int round = 0, end = rounds(300); round < end; round++) {
        static _Atomic int stop;
        h5fast_fill_error error = {{H5FAST_OK, 0, 0, 0, 0, 0}, 0, 0};
        scene_make(&s);
        if (chance(70))
            scene_damage(&s);
        ring_make(&r, &s);
        s.source.modified_ns = 1;
        h5fast_filling filling = scene_filling(&s, 0, 0, 1);
        h5fast_filler *filler = h5fast_filler_make(&filling);
        CHECK(filler != NULL, "no memory");
        if (filling.now->steps > 0) {
            h5fast_status status = h5fast_filler_fill(filler, 0, &r.batches[0], &stop, &error);
            CHECK(status == H5FAST_CHANGED, "status %d", status);
        }
        h5fast_filler_free(filler);
        scene_end_epoch(&s);
        ring_free(&r);
        scene_free(&s);
    }
}

int main(void)
{
    const char *deflate = find_deflate();
    open_test_file(deflate);
    test_epochs(3000, 0);
    test_epochs(3000, 1);
    test_changed_file();
    h5fast_scratch_trim();
    CHECK(failed > 0 && left_out > 0, "nothing was damaged");
    printf("fill: deflate by %s; %zu batches right, %zu failed as they had to, %zu rows left out: ok\n",
           deflate != NULL ? deflate : "nobody", batches, failed, left_out);
}
