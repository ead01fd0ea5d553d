/* The LZF encoder: what it writes decodes to what it was given, with guard pages around input and output.
 *
 * Prevents: reading or writing outside, output that no decoder reads or that depends on what was encoded before, and an
 * encoder that gives up although there was room.
 */
#include "guard.h"

#include "../../src/lzf.h"
#include "../../src/lzf_encode.h"

enum { MOST = 100000 };

static guarded input, output;
static uint8_t data[MOST], back[MOST], first[2 * MOST];
static h5fast_lzf_table table;

/* Kinds of data: 0 noise, 1 zeros, 2 periodic with errors, 3 few values, 4 long repeats far back, 5 noise then zeros. */
static void make_data(size_t len, int kind)
{
    size_t period = 1 + random_below(kind == 4 ? 9000 : 300), errors = random_below(20);
    for (size_t i = 0; i < len; i++)
        switch (kind) {
        case 0: data[i] = (uint8_t)random32(); break;
        case 1: data[i] = 0; break;
        case 3: data[i] = (uint8_t)(random_below(3) * 7); break;
        case 5: data[i] = (uint8_t)(i < len / 2 ? random32() : 0); break;
        default: data[i] = i >= period && random_below(50) >= errors ? data[i - period] : (uint8_t)random32(); break;
        }
}

/* Encodes into exactly `capacity` bytes, input and output next to a guard. */
static size_t encode(size_t len, size_t capacity, int place, uint8_t **out)
{
    uint8_t *in = guarded_place(input, len, place);
    *out = guarded_place(output, capacity, place);
    memcpy(in, data, len);
    memset(&table, (int)random32(), sizeof table); /* what it holds must not matter */
    return h5fast_lzf_encode(&table, in, len, *out, capacity);
}

static void check_decodes(const uint8_t *out, size_t size, size_t len)
{
    size_t produced, consumed;
    memset(back, 0xee, len);
    CHECK(h5fast_lzf_decode(out, size, back, len, len, &produced, &consumed) == H5FAST_OK, "%zu bytes from %zu", len, size);
    CHECK(produced == len && consumed == size && memcmp(back, data, len) == 0, "%zu bytes from %zu: others", len, size);
}

/* Enough room, just enough, and every kind of too little. */
static void check_encoding(size_t len)
{
    uint8_t *out;
    size_t size = encode(len, 2 * MOST, AT_END, &out);
    CHECK((size > 0) == (len > 0) && size <= len + (len + 31) / 32, "%zu bytes take %zu", len, size);
    memcpy(first, out, size);
    if (len > 0)
        check_decodes(first, size, len);
    for (int place = 0; place < PLACES; place++) {
        CHECK(encode(len, size, place, &out) == size && memcmp(out, first, size) == 0, "%zu bytes into just %zu", len, size);
        for (int round = 0; round < 3 && size > 0; round++) {
            size_t less = round == 0 ? size - 1 : random_below(size);
            CHECK(encode(len, less, place, &out) == 0, "%zu bytes that take %zu into %zu", len, size, less);
        }
        size_t more = size + random_below(50);
        CHECK(encode(len, more, place, &out) == size && memcmp(out, first, size) == 0, "%zu bytes into %zu", len, more);
    }
}

static void test_short(void)
{
    for (size_t len = 0; len < 400; len++)
        for (int kind = 0; kind < 6; kind++) {
            make_data(len, kind);
            check_encoding(len);
        }
}

static void test_long(void)
{
    for (int round = 0; round < 600; round++) {
        size_t len = random_below(round % 10 ? 20000 : MOST);
        make_data(len, round % 6);
        check_encoding(len);
    }
}

/* Positions are kept as 16 bits: a repeat from 65,536 bytes back and its neighbours must not be taken for a near one. */
static void test_far_repeats(void)
{
    for (size_t distance = 65530; distance < 65545; distance++) {
        make_data(MOST, 0);
        for (size_t i = distance; i < MOST; i++)
            data[i] = data[i - distance];
        check_encoding(MOST);
    }
    for (size_t distance = 8185; distance < 8200; distance++) {
        make_data(20000, 0);
        for (size_t i = distance; i < 20000; i++)
            data[i] = data[i - distance];
        uint8_t *out;
        size_t size = encode(20000, 2 * MOST, AT_END, &out);
        CHECK((size < 9000) == (distance <= 8192), "a repeat from %zu bytes back takes %zu", distance, size);
        check_encoding(20000);
    }
}

int main(void)
{
    input = guarded_memory(MOST);
    output = guarded_memory(2 * MOST);
    test_short();
    test_long();
    test_far_repeats();
    puts("lzf_encode: ok");
}
