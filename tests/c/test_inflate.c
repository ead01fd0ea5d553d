/* Deflate through libdeflate (H5FAST_DEFLATE_SO names it) and zlib, between guard pages.
 *
 * Prevents: an inflate that stops early and hands out bytes it never wrote, a broken stream that passes, a write beyond
 * the buffer, and a different answer from the library that happens to be installed.
 */
#include "engine.h"

enum { MOST_BYTES = 200000, MOST_STORED = 2 * MOST_BYTES + 64 };

static uint8_t data[MOST_BYTES], encoded[MOST_STORED];
static guarded in_memory, out_memory;
static size_t checked;

typedef struct {
    h5fast_status status;
    size_t produced;
} outcome;

static outcome inflate(void *decompressor, size_t in_len, size_t need, size_t capacity, int early)
{
    outcome o = {H5FAST_OK, 0};
    uint8_t *in = guarded_place(in_memory, in_len, AT_END), *out = guarded_place(out_memory, capacity, AT_END);
    memcpy(in, encoded, in_len);
    memset(out, 0xa5, capacity);
    o.status = h5fast_inflate_decode(decompressor, in, in_len, out, need, capacity, early, &o.produced);
    checked++;
    if (o.status == H5FAST_OK || o.status == H5FAST_SHORT)
        CHECK(o.produced <= capacity && (o.status == H5FAST_OK) == (o.produced >= need), "%zu produced", o.produced);
    else
        CHECK(o.status == H5FAST_CORRUPT, "status %d", o.status);
    return o;
}

/* What came out is what went in. */
static void check_content(outcome o, size_t capacity)
{
    CHECK(memcmp(guarded_place(out_memory, capacity, AT_END), data, o.produced) == 0, "content differs");
}

/* Bytes that compress well, badly, and in turns. */
static void random_data(size_t len)
{
    size_t kind = random_below(4);
    for (size_t i = 0; i < len; i++) {
        size_t now = kind == 3 ? i / 5000 % 3 : kind;
        data[i] = (uint8_t)(now == 0 ? random32() : now == 1 ? i / 100 : random_below(4));
    }
}

static size_t random_length(void)
{
    static const size_t special[] = {0, 1, 2, 65534, 65535, 65536, 131070, 131071};
    return chance(20) ? special[random_below(8)] : random_below(chance(50) ? 2000 : MOST_BYTES);
}

static void test_whole_streams(void *decompressor)
{
    for (int round = 0, end = rounds(200); round < end; round++) {
        size_t len = random_length();
        random_data(len);
        size_t stored = encode_deflate(data, len, encoded);
        outcome exact = inflate(decompressor, stored, len, len > 0 ? len : 1, 0);
        CHECK(exact.status == H5FAST_OK && exact.produced == len, "status %d, %zu bytes", exact.status, exact.produced);
        check_content(exact, len > 0 ? len : 1);
        outcome roomy = inflate(decompressor, stored, len, len + 100, 0);
        CHECK(roomy.status == H5FAST_OK && roomy.produced == len, "status %d", roomy.status);
        outcome less = inflate(decompressor, stored, len + 10, len + 10, 0);
        CHECK(less.status == H5FAST_SHORT && less.produced == len, "status %d", less.status);
        check_content(less, len + 10);
        if (len > 1)
            CHECK(inflate(decompressor, stored, len - 1, len - 1, 0).status == H5FAST_CORRUPT, "more than capacity passes");
    }
}

static void test_early_stops(void *decompressor)
{
    for (int round = 0, end = rounds(400); round < end; round++) {
        size_t len = random_length(), need = random_below(len + 2);
        random_data(len);
        size_t stored = encode_deflate(data, len, encoded), capacity = need + H5FAST_INFLATE_MARGIN + random_below(10);
        outcome o = inflate(decompressor, stored, need, capacity, 1);
        CHECK(o.status == (need <= len ? H5FAST_OK : H5FAST_SHORT), "status %d, need %zu of %zu", o.status, need, len);
        check_content(o, capacity);
        capacity = need + 1 + random_below(chance(50) ? 300 : H5FAST_INFLATE_MARGIN); /* too little room to stop early */
        o = inflate(decompressor, stored, need, capacity, 1);
        CHECK(o.status != H5FAST_CORRUPT || capacity < len, "status %d, need %zu of %zu", o.status, need, len);
        if (o.status != H5FAST_CORRUPT)
            check_content(o, capacity);
    }
}

/* Every stream that is cut short is broken, unless it was stopped before the cut. */
static void test_truncated(void *decompressor)
{
    for (int round = 0, end = rounds(400); round < end; round++) {
        size_t len = 1 + random_below(3000);
        random_data(len);
        size_t stored = encode_deflate(data, len, encoded), kept = random_below(stored);
        CHECK(inflate(decompressor, kept, len, len, 0).status == H5FAST_CORRUPT, "%zu of %zu", kept, stored);
        size_t need = random_below(len), capacity = need + H5FAST_INFLATE_MARGIN;
        outcome o = inflate(decompressor, kept, need, capacity, 1);
        if (o.status == H5FAST_OK)
            check_content(o, capacity);
    }
}

/* A changed bit is found, or changed nothing. */
static void test_changed_bits(void *decompressor)
{
    for (int round = 0, end = rounds(20000); round < end; round++) {
        size_t len = 1 + random_below(300);
        random_data(len);
        size_t stored = encode_deflate(data, len, encoded), bit = random_below(stored * 8);
        encoded[bit / 8] ^= (uint8_t)(1u << bit % 8);
        outcome o = inflate(decompressor, stored, len, len + random_below(3), 0);
        CHECK(o.status != H5FAST_OK || o.produced == len, "%zu bytes of %zu", o.produced, len);
        CHECK(o.status == H5FAST_OK || o.status == H5FAST_CORRUPT, "status %d", o.status);
    }
}

static void test_hostile(void *decompressor)
{
    for (int round = 0, end = rounds(20000); round < end; round++) {
        size_t len = random_below(80), need = random_below(400);
        int early = chance(50);
        for (size_t i = 0; i < len; i++)
            encoded[i] = (uint8_t)random32();
        if (len >= 2 && chance(95))
            encoded[0] = 0x78, encoded[1] = 0x9c;
        if (len >= 3 && chance(50))
            encoded[2] = (uint8_t)(chance(50) ? 3 : 5); /* the last block: fixed codes, dynamic codes */
        inflate(decompressor, len, need, need + (early ? H5FAST_INFLATE_MARGIN : random_below(300)), early);
    }
}

static int never_init(void *stream, const char *version, int size)
{
    (void)stream, (void)version, (void)size;
    return -4;
}

static void test_no_memory(void)
{
    h5fast_inflate_api kept = h5fast_inflate;
    size_t produced = 0;
    h5fast_inflate.inflate_init = never_init;
    h5fast_status status = h5fast_inflate_decode(NULL, encoded, 10, data, 1, 10, 0, &produced);
    CHECK(status == H5FAST_MEMORY, "status %d", status);
    h5fast_inflate = kept;
}

static void test_all(void *decompressor)
{
    test_whole_streams(decompressor);
    test_early_stops(decompressor);
    test_truncated(decompressor);
    test_changed_bits(decompressor);
    test_hostile(decompressor);
}

int main(void)
{
    in_memory = guarded_memory(MOST_STORED);
    out_memory = guarded_memory(MOST_BYTES + H5FAST_INFLATE_MARGIN + 100);
    if (find_zlib(&h5fast_inflate)) {
        test_all(NULL);
        test_no_memory();
        printf("inflate: zlib, %zu streams: ok\n", checked);
    }
    checked = 0;
    if (find_libdeflate(&h5fast_inflate)) {
        void *decompressor = h5fast_inflate.alloc_decompressor();
        CHECK(decompressor != NULL, "alloc_decompressor");
        test_all(decompressor);
        h5fast_inflate.free_decompressor(decompressor);
        printf("inflate: libdeflate, %zu streams: ok\n", checked);
    }
}
