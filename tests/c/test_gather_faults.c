/* The engine on disks and memory that let it down, and on files whose index lies or whose bytes are damaged.
 *
 * Prevents: a crash, a leak, a hang or a silent wrong answer when a read fails, memory runs out or an index is wrong; an
 * error that depends on the number of threads.
 */
#include "dataset.h"
#include "memory.h"
#include "rows.h"

#include "../../src/box.h"
#include "../../src/decode.h"

static size_t failures; /* gathers that failed as they had to */

/* --- reads that fail --------------------------------------------------------------------------------------------------- */

typedef enum { EIO_ONCE, EIO_FROM, END_ONCE, END_FROM, INTERRUPTED, SHORT_ONCE, SHORT_FROM, FAULTS } fault_kind;

static struct {
    fault_kind kind;
    int at;            /* number of the read it happens to, or starts with */
    _Atomic int reads; /* so far */
} fault;

static ssize_t failing_pread(int fd, void *buffer, size_t count, off_t offset)
{
    int read = atomic_fetch_add(&fault.reads, 1) + 1;
    int every = fault.kind == EIO_FROM || fault.kind == END_FROM || fault.kind == SHORT_FROM;
    if (every ? read < fault.at : read != fault.at)
        return pread(fd, buffer, count, offset);
    switch (fault.kind) {
    case EIO_ONCE: case EIO_FROM: errno = EIO; return -1;
    case END_ONCE: case END_FROM: return 0;
    case INTERRUPTED: errno = EINTR; return -1;
    default: return pread(fd, buffer, 1 + (size_t)read * 2654435761u % count % 5000, offset);
    }
}

/* The status may be OK where the engine tries chunks one by one after a read of several failed; then the bytes are right. */
static void check_fault(const dataset *d, how h)
{
    h5fast_error e = gather_afresh(d, h);
    int reached = atomic_load(&fault.reads) >= fault.at;
    int is_io = fault.kind == EIO_ONCE || fault.kind == EIO_FROM, is_end = fault.kind == END_ONCE || fault.kind == END_FROM;
    int must = reached && (fault.kind == EIO_FROM || fault.kind == END_FROM);
    h5fast_status bad = is_io ? H5FAST_READ : is_end ? H5FAST_TRUNCATED : H5FAST_OK;
    CHECK(e.status == bad || (e.status == H5FAST_OK && !must), "fault %d at read %d: status %d", fault.kind, fault.at,
          e.status);
    if (e.status == H5FAST_OK)
        CHECK(memcmp(h.out, expected, d->m.out_bytes) == 0, "fault %d at read %d: output differs", fault.kind, fault.at);
    else
        CHECK(e.address >= HEAD && e.sys_errno == (is_io ? EIO : 0), "errno %d", e.sys_errno);
    failures += e.status != H5FAST_OK;
}

static void fail_each_read(const dataset *d, h5fast_source *source)
{
    for (fault.kind = 0; fault.kind < FAULTS; fault.kind++)
        for (fault.at = 1;; fault.at += 1 + fault.at / 8) {
            h5fast_scratch_trim();
            long before = atomic_load(&live);
            atomic_store(&fault.reads, 0);
            h5fast_pread = failing_pread;
            check_fault(d, (how){source, NULL, out, 1 + fault.at % 3, 10});
            h5fast_pread = pread;
            int reads = atomic_load(&fault.reads);
            h5fast_scratch_trim();
            CHECK(atomic_load(&live) == before, "%ld allocations leak", atomic_load(&live) - before);
            check_gather(d, (how){source, NULL, out, 2, 10});
            if (reads < fault.at)
                break;
        }
}

static void test_failing_reads(void)
{
    static dataset d;
    for (int round = 0, end = rounds(100); round < end; round++) {
        h5fast_source source;
        random_dataset(&d);
        select_some(&d);
        CHECK(h5fast_source_open(&source, descriptor, 0) == H5FAST_OK, "open");
        fail_each_read(&d, &source);
        h5fast_source_close(&source);
    }
}

/* --- memory that runs out ---------------------------------------------------------------------------------------------- */

static h5fast_error open_and_gather(const dataset *d, int map, how h)
{
    h5fast_source source;
    CHECK(h5fast_source_open(&source, descriptor, map) == H5FAST_OK, "open");
    h.source = &source;
    h5fast_error e = gather_afresh(d, h);
    h5fast_source_close(&source);
    return e;
}

static void fail_each_allocation(const dataset *d, int map, how h)
{
    h5fast_scratch_trim();
    long before = atomic_load(&live), made, at = 1;
    do {
        atomic_store(&allocations, 0);
        atomic_store(&refused, at);
        h5fast_error e = open_and_gather(d, map, h);
        made = atomic_load(&allocations);
        atomic_store(&refused, 0);
        /* What a helper or a common read has no memory for may be done by others, or chunk by chunk. */
        CHECK(e.status == H5FAST_MEMORY || e.status == H5FAST_OK, "allocation %ld: status %d", at, e.status);
        if (e.status == H5FAST_OK)
            CHECK(memcmp(out, expected, d->m.out_bytes) == 0, "allocation %ld: output differs", at);
        h5fast_scratch_trim();
        CHECK(atomic_load(&live) == before, "allocation %ld: %ld leak", at, atomic_load(&live) - before);
        e = open_and_gather(d, map, h);
        CHECK(e.status == H5FAST_OK && memcmp(out, expected, d->m.out_bytes) == 0, "after it: status %d", e.status);
        failures += made >= at;
        h5fast_scratch_trim(); /* so that the next gather needs all of its memory again */
    } while (made >= at && (at += 1 + at / 16, 1));
}

static void test_failing_allocations(void)
{
    static dataset d;
    for (int round = 0, end = rounds(200); round < end; round++) {
        how h = {NULL, NULL, out, chance(50) ? 1 : 4, 10};
        cast_case c;
        if (chance(30)) {
            random_rows(&d, &c, H5FAST_F32); /* no NaNs, which may differ in their payload */
            h.cast = &c.cast;
        } else {
            random_dataset(&d);
            select_some(&d);
        }
        fail_each_allocation(&d, chance(50), h);
    }
}

/* --- an index that lies, bytes that are damaged ------------------------------------------------------------------------ */

/* Does the selection touch a chunk that the file cannot hold, or, of those marked, which lies first? */
static uint64_t look_at_jobs(const dataset *d, const uint8_t *marked, int *impossible)
{
    h5fast_plan plan;
    h5fast_box box;
    uint64_t coordinates[H5FAST_MAX_RANK], first = UINT64_MAX;
    CHECK(h5fast_plan_make(&plan, &d->m.storage, &d->m.selection) == H5FAST_OK, "plan");
    for (uint64_t job = 0; job < plan.job_count; job++) {
        uint64_t number = h5fast_plan_locate(&plan, job, coordinates);
        h5fast_chunk c = h5fast_index_find(&d->m.storage, &d->index, number, coordinates);
        h5fast_box_make(&box, &plan, coordinates);
        if (box.empty || c.address == 0)
            continue;
        if (c.size > d->file_bytes || c.address > d->file_bytes - c.size)
            *impossible = 1;
        if (marked != NULL && marked[number] && c.address < first)
            first = c.address;
    }
    h5fast_plan_free(&plan);
    return first;
}

static uint64_t wild_number(uint64_t near)
{
    static const uint64_t special[] = {0, 1, 1u << 31, (uint64_t)1 << 32, (uint64_t)1 << 62, (uint64_t)1 << 63};
    switch (random_below(4)) {
    case 0: return special[random_below(6)] - random_below(2);
    case 1: return 0 - (uint64_t)random_below(10000);
    case 2: return near + random_below(5) - 2;
    default: return (uint64_t)random32() << 32 | random32();
    }
}

static void lie(dataset *d)
{
    for (int i = 0, lies = 1 + (int)random_below(4); i < lies; i++) {
        h5fast_chunk *c = &chunks[random_below((size_t)d->index.count)];
        if (chance(60))
            c->address = wild_number(chance(50) ? d->file_bytes : c->address);
        if (chance(60))
            c->size = wild_number(chance(50) ? d->file_bytes : c->size);
        if (chance(50)) /* a neighbour whose own record is fine, right behind the lie, were it true */
            chunks[random_below((size_t)d->index.count)] = (h5fast_chunk){c->address + c->size + random_below(3), 10, 0};
        if (chance(20)) /* a size that wraps around to the next chunk */
            *c = (h5fast_chunk){chunks[random_below((size_t)d->index.count)].address, 0 - (uint64_t)random_below(4096), 0};
    }
}

static void test_lying_index(void)
{
    static dataset d;
    for (int round = 0, end = rounds(20000); round < end; round++) {
        h5fast_source source;
        if (round % 8 == 0)
            do {
                random_dataset(&d);
            } while (d.index.count == 0 || d.file_bytes > 100000);
        h5fast_chunk kept[2048];
        size_t bytes = (size_t)d.index.count * sizeof *kept;
        CHECK(bytes <= sizeof kept, "%zu chunks", (size_t)d.index.count);
        memcpy(kept, chunks, bytes);
        select_some(&d);
        lie(&d);
        int impossible = 0;
        look_at_jobs(&d, NULL, &impossible);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status <= H5FAST_CHECKSUM || e.status == H5FAST_TRUNCATED, "status %d", e.status);
        CHECK(!impossible || e.status != H5FAST_OK, "a chunk that the file cannot hold was read");
        CHECK(e.status != H5FAST_TRUNCATED || e.filter == 0, "filter %d is blamed", e.filter);
        memcpy(chunks, kept, bytes);
        check_gather(&d, some_way(&source));
        h5fast_source_close(&source);
    }
}

/* An unfiltered chunk whose record says that it is shorter than it has to be, though the file goes on behind it. */
static void test_short_raw_chunks(void)
{
    static dataset d;
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        random_storage(&d.m, 4);
        d.present = 100;
        store(&d, 0);
        h5fast_chunk *shorter = &chunks[random_below((size_t)d.m.chunk_count)];
        shorter->size = random_below(4);
        d.m.selection = (h5fast_selection){.point_count = 1};
        for (int axis = 0; axis < d.m.storage.rank; axis++)
            d.m.selection.count[axis] = (int64_t)d.m.storage.shape[axis], d.m.selection.step[axis] = 1;
        lay_out(&d.m);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status == H5FAST_SHORT && e.address == shorter->address, "status %d", e.status);
        h5fast_source_close(&source);
    }
}

static void note_element(void *context, uint64_t element, int64_t to)
{
    (void)element, (void)to;
    *(int *)context = 1;
}

/* A contiguous dataset that begins behind the end of the file, or so far on that adding to it wraps around. */
static void test_lying_base(void)
{
    static dataset d;
    for (int round = 0, end = rounds(3000); round < end; round++) {
        h5fast_source source;
        if (round % 30 == 0)
            do {
                random_dataset(&d);
            } while (d.index.kind != H5FAST_INDEX_CONTIGUOUS);
        select_some(&d);
        int selected = 0;
        visit_selection(&d.m, note_element, &selected);
        uint64_t base = d.index.base;
        d.index.base = chance(30) ? d.file_bytes + random_below(5) : 0 - (uint64_t)(1 + random_below(2 * d.file_bytes));
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        h5fast_error e = gather_afresh(&d, some_way(&source));
        CHECK(e.status == (selected ? H5FAST_TRUNCATED : H5FAST_OK), "status %d", e.status);
        h5fast_source_close(&source);
        d.index.base = base;
    }
}

/* Of several damaged chunks the one that lies first is reported, by any number of threads. */
static void test_damaged_chunks(void)
{
    static dataset d;
    static uint8_t marked[MOST_CHUNKS];
    for (int round = 0, end = rounds(300); round < end; round++) {
        h5fast_source source;
        do {
            random_storage(&d.m, 200); /* enough bytes to be worth several threads */
        } while (d.m.storage.chunk_bytes > 5000 || d.m.elements < 100);
        d.present = 90;
        random_filters(&d.m.storage, 8, has_deflate);
        d.m.storage.filters[d.m.storage.filter_count++] = (h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL};
        store(&d, 0);
        select_some(&d);
        memset(marked, 0, d.m.chunk_count);
        for (size_t i = 0; i < d.index.count; i++)
            if (chunks[i].address != 0 && chunks[i].mask >> (d.m.storage.filter_count - 1) == 0 && chance(20)) {
                marked[d.index.kind == H5FAST_INDEX_SORTED ? numbers[i] : i] = 1;
                file[chunks[i].address + random_below((size_t)chunks[i].size)] ^= 1;
            }
        write_file(&d);
        int impossible = 0;
        uint64_t first = look_at_jobs(&d, marked, &impossible);
        CHECK(h5fast_source_open(&source, descriptor, chance(50)) == H5FAST_OK, "open");
        for (int threads = 1; threads <= 8; threads++) {
            h5fast_error e = gather_afresh(&d, (how){&source, NULL, out, threads, 1e-4});
            CHECK(e.status == (first == UINT64_MAX ? H5FAST_OK : H5FAST_CHECKSUM), "status %d", e.status);
            CHECK(e.status == H5FAST_OK || e.address == first, "%d threads: chunk at %llu, not %llu", threads,
                  (unsigned long long)e.address, (unsigned long long)first);
        }
        h5fast_source_close(&source);
    }
}

int main(void)
{
    const char *deflate = find_failing_deflate();
    open_test_file(deflate);
    test_failing_reads();
    test_failing_allocations();
    test_lying_index();
    test_lying_base();
    test_short_raw_chunks();
    test_damaged_chunks();
    h5fast_scratch_trim();
    printf("gather, faults: deflate by %s; %zu gathers right, %zu failed as they had to: ok\n",
           deflate != NULL ? deflate : "nobody", gathers, failures);
}
