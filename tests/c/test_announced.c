/* What is checked of an encoded chunk before a plugin sees it.
 *
 * Prevents: a plugin that allocates what a damaged header claims, or that follows lengths out of its input.
 */
#include "guard.h"

#include "../../src/announced.h"

static guarded memory;

static int sound(int id, const uint8_t *bytes, size_t len, size_t most)
{
    static const unsigned values[5] = {0, 4, 4, 0, 2}; /* bitshuffle: 4-byte elements, compressed with lz4 */
    h5fast_filter filter = {id, NULL, 5, values};
    uint8_t *place = guarded_place(memory, len, AT_END);
    memcpy(place, bytes, len);
    return h5fast_announces_sound(&filter, place, len, most);
}

static void every_truncation_is_read_within_bounds(int id, const uint8_t *bytes, size_t len)
{
    for (size_t cut = 0; cut <= len; cut++)
        (void)sound(id, bytes, cut, 1000);
}

static void test_lz4(void)
{
    /* 20 bytes in blocks of 16: one of 3 stored bytes, one of 4. */
    uint8_t frame[] = {0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 16, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 4, 1, 2, 3, 4};
    CHECK(sound(32004, frame, sizeof frame, 20), "whole");
    CHECK(!sound(32004, frame, sizeof frame, 19), "announces too much");
    for (size_t cut = 0; cut < sizeof frame; cut++)
        CHECK(!sound(32004, frame, cut, 20), "cut at %zu", cut);
    frame[11] = 0;
    CHECK(!sound(32004, frame, sizeof frame, 20), "blocks of nothing");
    frame[11] = 16, frame[12] = 0xff;
    CHECK(!sound(32004, frame, sizeof frame, 20), "a block beyond the input");
}

static void test_bitshuffle(void)
{
    uint8_t head[12] = {0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 32, 0};
    CHECK(sound(32008, head, 12, 512) && !sound(32008, head, 12, 511), "size");
    h5fast_filter without_size = {32008, NULL, 3, (const unsigned[]){0, 4, 0}};
    CHECK(!h5fast_announces_sound(&without_size, head, 12, 512), "elements of no size");
}

static void test_blosc(void)
{
    uint8_t head[20] = {2, 1, 0x21, 4, 0, 2, 0, 0, 0, 2, 0, 0, 20, 0, 0, 0};
    CHECK(sound(32001, head, 20, 512) && !sound(32001, head, 20, 511), "size");
    CHECK(!sound(32001, head, 19, 512), "stored size beyond the input");
}

static void test_zstd(void)
{
    uint8_t sizes[][13] = {{0x28, 0xb5, 0x2f, 0xfd, 0x20, 200}, {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x2c, 1},
                           {0x28, 0xb5, 0x2f, 0xfd, 0x81, 0, 7, 0x2c, 1, 0, 0}, {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0x2c, 1}};
    size_t announced[] = {200, 556, 300, 300};
    for (int i = 0; i < 4; i++) {
        CHECK(sound(32015, sizes[i], 13, announced[i]) && !sound(32015, sizes[i], 13, announced[i] - 1), "%d", i);
        every_truncation_is_read_within_bounds(32015, sizes[i], 13);
    }
}

int main(void)
{
    memory = guarded_memory(4096);
    test_lz4();
    test_bitshuffle();
    test_blosc();
    test_zstd();
    uint8_t noise[64];
    for (int round = 0; round < 100000; round++) {
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = random_below(4) ? 0 : (uint8_t)random32();
        static const int ids[] = {307, 32001, 32004, 32008, 32015, 32026};
        (void)sound(ids[round % 6], noise, random_below(sizeof noise), 1000);
    }
    return 0;
}
