/* Filling batches while memory runs out.
 *
 * Prevents: a crash, a leak, or rows that are kept though they were never read, after an allocation failed; a stop that is
 * not heeded.
 */
#include "filling.h"
#include "memory.h"

#include "../../src/decode.h"

static size_t failed;

/* Fills a batch; whatever fails, the next attempt, with memory, gives the right rows. */
static int fill_once(scene *s, ring *r, h5fast_filling *filling, long at, int stopped)
{
    static _Atomic int stop;
    h5fast_fill_error error = {{H5FAST_OK, 0, 0, 0, 0, 0}, 0, 0};
    h5fast_scratch_trim();
    long before = atomic_load(&live);
    atomic_store(&allocations, 0);
    atomic_store(&refused, at);
    atomic_store(&stop, stopped);
    h5fast_filler *filler = h5fast_filler_make(filling);
    h5fast_status status = H5FAST_MEMORY;
    uint64_t step = random_below((size_t)filling->now->steps);
    if (filler != NULL) {
        h5fast_filler_settle(filler);
        status = h5fast_filler_fill(filler, step, &r->batches[0], &stop, &error);
        CHECK(error.what.status == status, "status %d, error %d", status, error.what.status);
    }
    long made = atomic_load(&allocations);
    atomic_store(&refused, 0);
    CHECK(status == H5FAST_OK || status == H5FAST_MEMORY || (stopped && status == H5FAST_CANCELLED), "status %d", status);
    if (status == H5FAST_OK)
        scene_check(s, filling->now, &r->batches[0]);
    failed += status != H5FAST_OK;
    if (filler != NULL) {
        atomic_store(&stop, 0);
        h5fast_filler_settle(filler);
        CHECK(h5fast_filler_fill(filler, step, &r->batches[0], &stop, &error) == H5FAST_OK, "after it");
        scene_check(s, filling->now, &r->batches[0]);
    }
    h5fast_filler_free(filler);
    h5fast_scratch_trim();
    CHECK(atomic_load(&live) == before, "allocation %ld: %ld leak", at, atomic_load(&live) - before);
    return made >= at;
}

int main(void)
{
    static scene s;
    static ring r;
    open_test_file(find_failing_deflate());
    for (int round = 0, end = rounds(150); round < end; round++) {
        scene_make(&s);
        ring_make(&r, &s);
        h5fast_filling filling = scene_filling(&s, round % 7, 0, 0);
        fill_once(&s, &r, &filling, 0, chance(50));
        for (long at = 1; fill_once(&s, &r, &filling, at, 0); at += 1 + at / 16)
            continue;
        scene_end_epoch(&s);
        ring_free(&r);
        scene_free(&s);
    }
    h5fast_scratch_trim();
    printf("fill, faults: %zu failed as they had to: ok\n", failed);
}
