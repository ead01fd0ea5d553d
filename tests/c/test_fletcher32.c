/* Fletcher-32 against libhdf5's procedure, word by word, and against checksums that h5py 3.16 wrote.
 *
 * Prevents: sums that differ for all-0xff data, odd lengths, or data longer than the 32-bit sums can take.
 */
#include "guard.h"

#include "../../src/fletcher32.h"

enum { MAX_BYTES = 3000000 };

static guarded memory;

/* Big-endian words; fold the sums to 16 bits after every 360 words, an odd byte is a high byte, fold again at the end. */
static uint32_t reference(const uint8_t *data, size_t len)
{
    uint32_t sum1 = 0, sum2 = 0;
    for (size_t i = 0; i + 1 < len; i += 2) {
        sum1 += (uint32_t)(data[i] << 8 | data[i + 1]);
        sum2 += sum1;
        if (i / 2 % 360 == 359 || i + 3 >= len) {
            sum1 = (sum1 & 0xffff) + (sum1 >> 16);
            sum2 = (sum2 & 0xffff) + (sum2 >> 16);
        }
    }
    if (len % 2) {
        sum1 += (uint32_t)data[len - 1] << 8;
        sum2 += sum1;
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    sum1 = (sum1 & 0xffff) + (sum1 >> 16);
    sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    return sum2 << 16 | sum1;
}

static void compare(size_t len, int place)
{
    const uint8_t *data = guarded_place(memory, len, place);
    uint32_t got = h5fast_fletcher32(data, len), want = reference(data, len);
    CHECK(got == want, "%zu bytes: 0x%08x, expected 0x%08x", len, got, want);
}

static void fill(int what)
{
    for (size_t i = 0; i < memory.size; i++)
        memory.start[i] = what < 0 ? (uint8_t)random32() : (uint8_t)what;
}

static void test_lengths(void)
{
    static const int contents[] = {-1, 0, 0xff, 1, 0x80};
    for (size_t c = 0; c < sizeof contents / sizeof *contents; c++) {
        fill(contents[c]);
        for (size_t len = 0; len <= 3000; len++)
            compare(len, (int)(len % PLACES));
        for (size_t len = 5700; len <= 5900; len++)
            compare(len, AT_END);
        for (int round = 0; round < 20; round++)
            compare(random_below(MAX_BYTES), round % PLACES);
    }
}

/* One word that differs in otherwise empty data: the sums stay what they are, or wrap exactly at 65535. */
static void test_single_words(void)
{
    fill(0);
    for (unsigned word = 0; word < 65536; word++) {
        uint8_t *at = guarded_place(memory, 100, AT_END) + 2 * (word % 50);
        at[0] = (uint8_t)(word >> 8);
        at[1] = (uint8_t)word;
        compare(100, AT_END);
        at[0] = at[1] = 0;
    }
}

static void test_known_checksums(void)
{
    uint8_t data[20001];
    for (unsigned i = 0; i < 256; i++)
        data[i] = (uint8_t)i;
    CHECK(h5fast_fletcher32(data, 256) == 0x5575c03f, "0..255");
    CHECK(h5fast_fletcher32(data + 250, 6) == reference(data + 250, 6), "250..255");
    for (unsigned i = 0; i < 7; i++)
        data[i] = (uint8_t)(250 + i);
    CHECK(h5fast_fletcher32(data, 7) == 0xe0e9f6f9, "250..255, 0");
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7919u >> 3);
    CHECK(h5fast_fletcher32(data, sizeof data) == 0xad35b9da, "20,001 bytes");
}

static void test_check(void)
{
    size_t payload = 0;
    uint8_t chunk[260];
    for (unsigned i = 0; i < 256; i++)
        chunk[i] = (uint8_t)i;
    memcpy(chunk + 256, "\x3f\xc0\x75\x55", 4);
    CHECK(h5fast_fletcher32_check(chunk, 260, &payload) == H5FAST_OK && payload == 256, "as HDF5 writes it");
    memcpy(chunk + 256, "\xc0\x3f\x55\x75", 4);
    CHECK(h5fast_fletcher32_check(chunk, 260, &payload) == H5FAST_OK && payload == 256, "as HDF5 before 1.6.3 did");
    memcpy(chunk + 256, "\x55\x75\xc0\x3f", 4);
    CHECK(h5fast_fletcher32_check(chunk, 260, &payload) == H5FAST_CHECKSUM, "big-endian is neither");
    memcpy(chunk + 256, "\x3f\xc0\x75\x55", 4);
    for (size_t bit = 0; bit < 260 * 8; bit++) {
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(h5fast_fletcher32_check(chunk, 260, &payload) == H5FAST_CHECKSUM, "bit %zu", bit);
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < 4; len++)
        CHECK(h5fast_fletcher32_check(chunk, len, &payload) == H5FAST_SHORT, "%zu bytes", len);
    CHECK(h5fast_fletcher32_check((const uint8_t[]){0, 0, 0, 0}, 4, &payload) == H5FAST_OK && payload == 0, "no payload");
}

int main(void)
{
    memory = guarded_memory(MAX_BYTES);
    test_lengths();
    test_single_words();
    test_known_checksums();
    test_check();
    puts("fletcher32: ok");
}
