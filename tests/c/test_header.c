/* Object headers of plain datasets: what is read of a good one, and of a million damaged ones nothing that is out of bounds.
 *
 * Prevents: reads beyond a header, a message or a name; sizes that overflow; bytes named that the file does not have.
 */
#include "guard.h"

#include "../../src/header.h"

enum { FILE_BYTES = 2048, HEADER = 96, MORE = 1024, TREE = 1536, DATA = 1800 };

static uint8_t file[FILE_BYTES], good[FILE_BYTES];
static guarded memory;
static const uint8_t uint8_type[] = {0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0};
static const h5fast_stored_type types[] = {{uint8_type, sizeof uint8_type, 1}};

/* Hands out memory that ends where what was asked for ends. */
static size_t fetch(void *context, uint64_t offset, size_t size, uint8_t *out)
{
    (void)context;
    if (offset >= FILE_BYTES)
        return 0;
    size = size < FILE_BYTES - offset ? size : FILE_BYTES - offset;
    memcpy(out, file + offset, size);
    return size;
}

static size_t put(size_t at, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        good[at + (size_t)i] = (uint8_t)(value >> 8 * i);
    return at + (size_t)size;
}

static size_t message(size_t at, int type, int size)
{
    return put(put(put(at, (uint64_t)type, 2), (uint64_t)size, 2), 0, 4);
}

/* 200 bytes in one chunk, shuffled and gzipped; the attribute lies in a second block. */
static void make(void)
{
    put(put(put(put(HEADER, 1, 2), 7, 2), 1, 4), 176, 8);
    size_t at = message(HEADER + 16, 1, 24);
    at = put(put(put(at, 0x10101, 8), 200, 8), UINT64_MAX, 8);
    at = message(at, 3, 16);
    memcpy(good + at, uint8_type, sizeof uint8_type);
    at = put(message(at + 16, 5, 8), 0x10302, 8);
    size_t layout = message(at, 8, 24);
    put(put(put(put(put(layout, 3, 1), 2, 1), 2, 1), TREE, 8), 200, 4);
    good[layout + 15] = 1;
    at = message(layout + 24, 11, 40);
    put(put(at, 1, 1), 2, 1);
    at = put(put(put(put(put(put(at + 8, 2, 2), 0, 2), 1, 2), 1, 2), 1, 4), 0, 4);
    at = put(put(put(put(put(put(at, 1, 2), 0, 2), 1, 2), 1, 2), 6, 4), 0, 4);
    at = message(at, 16, 16);
    at = put(put(at, MORE, 8), 64, 8);
    CHECK(at == HEADER + 16 + 176, "the first block ends at %zu", at);
    at = message(MORE, 12, 56);
    at = put(put(put(put(at, 1, 2), 9, 2), 12, 2), 8, 2);
    memcpy(good + at, "Modified", 9);
    static const uint8_t int64_type[] = {0x10, 8, 0, 0, 8, 0, 0, 0, 0, 0, 64, 0};
    memcpy(good + at + 16, int64_type, sizeof int64_type);
    put(put(at + 32, 1, 8), 77, 8);
    memcpy(good + TREE, "TREE\1\0\1", 8);
    at = put(put(TREE + 8, UINT64_MAX, 8), UINT64_MAX, 8);
    at = put(put(put(put(put(at, 48, 4), 0, 4), 0, 8), 0, 8), DATA, 8);
    put(put(put(at, 0, 8), 200, 8), 1, 8);
}

static int read_header(h5fast_header *out)
{
    return h5fast_header_read(fetch, NULL, FILE_BYTES, HEADER, types, 1, out);
}

static void test_a_good_one(void)
{
    h5fast_header out;
    memcpy(file, good, FILE_BYTES);
    CHECK(read_header(&out), "it is not understood");
    CHECK(out.rank == 1 && out.extents[0] == 200 && out.bytes == 200 && out.type == 0, "%d axes", out.rank);
    CHECK(out.address == DATA && out.stored == 48 && out.mask == 0, "address %llu", (unsigned long long)out.address);
    CHECK(out.filter_count == 2 && out.filters[0].id == 2 && out.filters[1].id == 1 && out.filters[1].values[0] == 6, "filters");
    CHECK(out.has_attributes && out.modified == 77 && out.permissions == 0, "attributes");
}

static void test_files_that_end(void)
{
    h5fast_header out;
    memcpy(file, good, FILE_BYTES);
    for (uint64_t size = 0; size < DATA + 48; size++)
        CHECK(!h5fast_header_read(fetch, NULL, size, HEADER, types, 1, &out), "its bytes lie behind the end at %llu",
              (unsigned long long)size);
    for (uint64_t address = 0; address < FILE_BYTES + 100; address++)
        CHECK(address == HEADER || !h5fast_header_read(fetch, NULL, FILE_BYTES, address, types, 1, &out), "at %llu",
              (unsigned long long)address);
}

static void test_damage(void)
{
    static const size_t begins[] = {HEADER, MORE, TREE}, lengths[] = {192, 64, 80};
    static const uint8_t odd[] = {0, 1, 2, 7, 127, 128, 254, 255};
    char *share = getenv("H5FAST_TEST_SHARE");
    int rounds = 1000000 / (share != NULL ? atoi(share) : 1), understood = 0;
    for (int round = 0; round < rounds; round++) {
        memcpy(file, good, FILE_BYTES);
        for (size_t changes = 1 + random_below(3); changes > 0; changes--) {
            size_t part = random_below(3), at = begins[part] + random_below(lengths[part]);
            file[at] = random_below(2) ? odd[random_below(sizeof odd)] : (uint8_t)random32();
        }
        h5fast_header *out = (h5fast_header *)(void *)guarded_place(memory, sizeof *out, AT_END);
        if (!read_header(out))
            continue;
        understood++;
        CHECK(out->rank == 1 && out->type == 0 && out->bytes == out->extents[0] && out->bytes > 0, "%d axes", out->rank);
        CHECK(out->address > 0 && out->stored <= FILE_BYTES && out->address <= FILE_BYTES - out->stored, "out of the file");
        CHECK(out->filter_count <= H5FAST_HEADER_FILTERS, "%u filters", out->filter_count);
    }
    CHECK(understood > 0 && understood < rounds, "%d of %d are understood", understood, rounds);
}

int main(void)
{
    memory = guarded_memory(sizeof(h5fast_header));
    make();
    test_a_good_one();
    test_files_that_end();
    test_damage();
    return 0;
}
