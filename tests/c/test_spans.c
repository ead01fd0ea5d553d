/* Spans of chunks, read by several threads: the right bytes each in its place, and a clean error when something fails.
 *
 * Prevents: bytes of one file in another, a write outside of a target, a leak or a hang after an allocation or a read fails,
 * a crash when the file shrinks under its mapping.
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../../src/decode.h"
#include "../../src/spans.h"

enum { FILE_BYTES = 1 << 20, CHUNK = 1000, CHUNKS = 300, SPANS = 2000, HEAD = 64 };

static uint8_t file[FILE_BYTES], plain[CHUNKS][CHUNK];
static uint64_t addresses[CHUNKS];
static h5fast_storage raw = {.itemsize = 1}, shuffled = {.itemsize = 1, .filter_count = 1};
static const unsigned element_size[] = {4};
static h5fast_slice spans[SPANS];
static uint8_t *targets[SPANS], bytes[SPANS][CHUNK + 1], outcomes[SPANS];
static int descriptor;
static long reads, failing_read; /* 0: none fails */

static ssize_t failing_pread(int fd, void *buffer, size_t count, off_t offset)
{
    if (__atomic_add_fetch(&reads, 1, __ATOMIC_RELAXED) == failing_read) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buffer, count, offset);
}

/* Even chunks as they are, odd ones shuffled: the bytes of elements of four, plane by plane. */
static void make_file(void)
{
    uint64_t at = HEAD;
    for (int i = 0; i < CHUNKS; i++) {
        at += random_below(2000);
        addresses[i] = at;
        for (int j = 0; j < CHUNK; j++)
            plain[i][j] = (uint8_t)random32();
        for (int j = 0; j < CHUNK; j++)
            file[at + (i % 2 ? (uint64_t)(j % 4 * (CHUNK / 4) + j / 4) : (uint64_t)j)] = plain[i][j];
        at += CHUNK;
    }
    CHECK(at <= FILE_BYTES, "the file is too small");
    CHECK(ftruncate(descriptor, 0) == 0 && pwrite(descriptor, file, FILE_BYTES, 0) == FILE_BYTES, "cannot write");
}

static void make_spans(void)
{
    for (int i = 0; i < SPANS; i++) {
        int number = (int)random_below(CHUNKS);
        uint64_t first = random_below(CHUNK + 1);
        uint64_t length = chance(20) ? CHUNK - (first = 0) : random_below(CHUNK + 1 - (uint32_t)first);
        spans[i] = (h5fast_slice){addresses[number], CHUNK, CHUNK, first, length, 0, (uint32_t)(number % 2)};
        if (chance(5))
            spans[i].address = 0;
        targets[i] = bytes[i];
        memset(bytes[i], 0xee, sizeof bytes[i]);
    }
}

static void check_span(int i)
{
    uint8_t zeros[CHUNK] = {0};
    const uint8_t *want = zeros;
    for (int number = 0; number < CHUNKS; number++)
        if (addresses[number] == spans[i].address)
            want = plain[number];
    CHECK(memcmp(bytes[i], want + (want == zeros ? 0 : spans[i].first), spans[i].length) == 0, "span %d differs", i);
    CHECK(bytes[i][spans[i].length] == 0xee, "span %d went on behind its end", i);
}

static h5fast_spans read_spans(h5fast_source *source, int threads, int keeps)
{
    static const h5fast_storage *storages[] = {&raw, &shuffled};
    static h5fast_spans read;
    memset(&read, 0, sizeof read);
    read.spans = spans;
    read.count = SPANS;
    read.targets = keeps ? targets : NULL;
    read.outcomes = keeps ? NULL : outcomes;
    read.storages = storages;
    read.source = source;
    read.threads = threads;
    h5fast_status status = h5fast_spans_begin(&read);
    if (status == H5FAST_OK)
        while (!h5fast_spans_run(&read, 0.05))
            ;
    else
        read.status = status;
    h5fast_spans_end(&read);
    return read;
}

static void test_contents(void)
{
    for (int round = 0; round < rounds(100); round++) {
        h5fast_source source;
        make_file();
        make_spans();
        CHECK(h5fast_source_open(&source, descriptor, round % 2) == H5FAST_OK, "cannot open");
        h5fast_spans read = read_spans(&source, 1 + round % 4, 1);
        CHECK(read.status == H5FAST_OK, "status %d", read.status);
        for (int i = 0; i < SPANS; i++)
            check_span(i);
        h5fast_source_close(&source);
    }
}

/* Chunks behind the end of the file, and ones that are shorter than they should be: told apart, and the rest is not. */
static void test_outcomes(void)
{
    h5fast_source source;
    make_file();
    make_spans();
    CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "cannot open");
    for (int i = 0; i < SPANS; i++) {
        spans[i].address = addresses[spans[i].pipeline + 2 * random_below(CHUNKS / 2)];
        spans[i].first = 0;
        spans[i].length = CHUNK;
    }
    spans[5].address = UINT64_MAX - 10;
    spans[6].address = FILE_BYTES - 10;
    spans[7].stored = 999;
    memset(outcomes, 0, sizeof outcomes);
    h5fast_spans read = read_spans(&source, 3, 0);
    CHECK(read.status == H5FAST_OK, "status %d", read.status);
    for (int i = 0; i < SPANS; i++)
        CHECK((outcomes[i] != H5FAST_OK) == (i >= 5 && i <= 7), "span %d: %d", i, outcomes[i]);
    read = read_spans(&source, 3, 1);
    CHECK(read.status != H5FAST_OK && read.failed >= 5 && read.failed <= 7, "status %d of span %lu", read.status,
          (unsigned long)read.failed);
    h5fast_source_close(&source);
}

static void test_failures(void)
{
    h5fast_source source;
    make_file();
    make_spans();
    CHECK(h5fast_source_open(&source, descriptor, 0) == H5FAST_OK, "cannot open");
    read_spans(&source, 1, 1);
    h5fast_pread = failing_pread;
    for (failing_read = 1;; failing_read += 1 + failing_read / 4) {
        reads = 0;
        h5fast_spans read = read_spans(&source, 1, 1);
        if (reads < failing_read && read.status == H5FAST_OK)
            break;
        CHECK(read.status == H5FAST_READ && read.sys_errno == EIO, "status %d, errno %d", read.status, read.sys_errno);
    }
    h5fast_pread = pread;
    for (long refusal = 1;; refusal++) {
        h5fast_scratch_trim();
        long before = atomic_load(&live);
        atomic_store(&allocations, 0);
        atomic_store(&refused, refusal);
        h5fast_spans read = read_spans(&source, 1, 1);
        atomic_store(&refused, 0);
        h5fast_scratch_trim();
        CHECK(atomic_load(&live) == before, "%ld allocations leaked", atomic_load(&live) - before);
        if (atomic_load(&allocations) < refusal) {
            CHECK(read.status == H5FAST_OK, "status %d", read.status);
            break;
        }
        CHECK(read.status == H5FAST_MEMORY, "status %d", read.status);
    }
    h5fast_source_close(&source);
}

/* The file shrinks under its mapping: an error, and no crash. */
static void test_truncation(void)
{
    if (UNDER_SANITIZER)
        return; /* which has a handler of its own for the fault */
    for (int round = 0; round < rounds(20); round++) {
        h5fast_source source;
        make_file();
        make_spans();
        CHECK(h5fast_source_open(&source, descriptor, 1) == H5FAST_OK, "cannot open");
        for (int i = 0; i < 20; i++)
            read_spans(&source, 2, 1); /* until the mapping is in use */
        CHECK(ftruncate(descriptor, 8192) == 0, "cannot truncate");
        h5fast_spans read = read_spans(&source, 2, 1);
        CHECK(read.status == H5FAST_TRUNCATED || h5fast_source_changed(&source) >= 0, "status %d", read.status);
        h5fast_source_close(&source);
    }
}

int main(void)
{
    char name[] = "/tmp/h5fast-spans-XXXXXX";
    shuffled.filters[0] = (h5fast_filter){.id = H5FAST_FILTER_SHUFFLE, .cd_nelmts = 1, .cd_values = element_size};
    printf("spans, with %s\n", find_failing_deflate());
    descriptor = mkstemp(name);
    CHECK(descriptor >= 0 && unlink(name) == 0, "no temporary file");
    test_contents();
    test_outcomes();
    test_failures();
    test_truncation();
    puts("spans: ok");
    return 0;
}
