/* Every LZF decoder of this CPU against a byte-at-a-time reference, with guard pages around input and output.
 *
 * Prevents: reading outside the input, writing outside the output, and decoders that disagree about hostile streams.
 */
#include "guard.h"

#include "../../src/lzf.h"
#include "../../src/variants.h"

enum { MAX_STREAM = 40000, MAX_OUTPUT = 70000, FLAVOURS = 5 };

static guarded input, output;
static h5fast_lzf_variant variants[H5FAST_MAX_VARIANTS + 1];
static size_t variant_count;

typedef struct {
    h5fast_status status;
    size_t produced, consumed;
} result;

/* The contract of lzf.h, in the plainest words. */
static result reference(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity)
{
    size_t i = 0, o = 0;
    while (o < need) {
        if (i == in_len)
            return (result){H5FAST_SHORT, o, i};
        size_t next = i, len, distance = 0;
        unsigned control = in[next++];
        if (control < 32) {
            len = control + 1;
            if (in_len - next < len)
                return (result){H5FAST_CORRUPT, o, i};
        } else {
            len = (control >> 5) + 2;
            if (control >> 5 == 7) {
                if (next == in_len)
                    return (result){H5FAST_CORRUPT, o, i};
                len += in[next++];
            }
            if (next == in_len)
                return (result){H5FAST_CORRUPT, o, i};
            distance = ((control & 31) << 8) + in[next++] + 1;
            if (distance > o)
                return (result){H5FAST_CORRUPT, o, i};
        }
        if (capacity - o < len)
            return (result){H5FAST_CORRUPT, o, i};
        for (size_t z = 0; z < len; z++, o++)
            out[o] = distance ? out[o - distance] : in[next++];
        i = next;
    }
    return (result){H5FAST_OK, o, i};
}

/* Runs every variant on the stream, which is in `stream`, in each placement, and compares with the reference. */
static void compare_at(const uint8_t *stream, size_t in_len, size_t need, size_t capacity, int place)
{
    static uint8_t expected[MAX_OUTPUT];
    result want = reference(stream, in_len, expected, need, capacity);
    uint8_t *in = guarded_place(input, in_len, place), *out = guarded_place(output, capacity, place);
    memcpy(in, stream, in_len);
    for (size_t v = 0; v < variant_count; v++) {
        result got = {0, SIZE_MAX, SIZE_MAX};
        memset(out, 0xa5, capacity);
        got.status = variants[v].decode(in, in_len, out, need, capacity, &got.produced, &got.consumed);
        CHECK(got.status == want.status && got.produced == want.produced && got.consumed == want.consumed,
              "%s, in_len %zu, need %zu, capacity %zu: status %d, %zu out, %zu in; expected %d, %zu, %zu", variants[v].name,
              in_len, need, capacity, got.status, got.produced, got.consumed, want.status, want.produced, want.consumed);
        CHECK(memcmp(out, expected, want.produced) == 0, "%s, in_len %zu, need %zu: other bytes", variants[v].name,
              in_len, need);
    }
    CHECK(memcmp(in, stream, in_len) == 0, "the input was written to");
}

static void compare(const uint8_t *stream, size_t in_len, size_t need, size_t capacity)
{
    for (int place = 0; place < PLACES; place++)
        compare_at(stream, in_len, need, capacity, place);
}

/* Writes a random instruction that is valid after `o` bytes of output; returns its length, adds its output to *o.
 * `flavour` shifts the mix: 0 photos (short, near and far), 1 runs (long), 2 anything, 3 literals, 4 16 bytes and sometimes
 * more: the most that decoders take without asking for room each time. */
static size_t random_instruction(uint8_t *to, size_t *o, int flavour)
{
    size_t kind = random_below(10);
    if (*o == 0 || flavour == 3 || kind < 3) {
        size_t len = flavour == 4 ? 16 : 1 + random_below(flavour == 0 && kind ? 4 : 32);
        to[0] = (uint8_t)(len - 1);
        for (size_t z = 0; z < len; z++)
            to[1 + z] = (uint8_t)random32();
        *o += len;
        return len + 1;
    }
    size_t farthest = *o < 8192 ? *o : 8192;
    size_t distance = 1 + random_below(kind < 6 && farthest > 20 ? 20 : farthest);
    size_t len = flavour == 0 && kind < 9 ? 3 + random_below(6) : 3 + random_below(flavour == 1 || kind == 9 ? 262 : 30);
    if (flavour == 4)
        len = kind == 9 ? 17 + random_below(20) : 16;
    size_t used = 0;
    to[used++] = (uint8_t)((len - 2 < 7 ? len - 2 : 7) << 5 | (distance - 1) >> 8);
    if (len - 2 >= 7)
        to[used++] = (uint8_t)(len - 2 - 7);
    to[used++] = (uint8_t)(distance - 1);
    *o += len;
    return used;
}

/* A valid stream of about `wanted` bytes of output; returns its length and sets *produced. */
static size_t random_stream(uint8_t *stream, size_t wanted, int flavour, size_t *produced)
{
    size_t i = 0;
    *produced = 0;
    while (*produced < wanted && i + 40 < MAX_STREAM && *produced + 300 < MAX_OUTPUT)
        i += random_instruction(stream + i, produced, flavour);
    return i;
}

/* A real compressor, small and greedy: streams as liblzf makes them. */
static size_t compress(const uint8_t *data, size_t len, uint8_t *to)
{
    static size_t last[65536]; /* position + 1 of the last occurrence of three bytes, by hash */
    memset(last, 0, sizeof last);
    size_t used = 0, literals = 0, i = 0;
    while (i < len) {
        size_t run = 0, distance = 0;
        if (i + 3 <= len) {
            size_t *slot = &last[(data[i] * 40503u ^ data[i + 1] * 2654u ^ data[i + 2] * 31u) & 65535];
            distance = i + 1 - *slot;
            if (*slot && distance <= 8192)
                while (run < 264 && i + run < len && data[i + run] == data[i + run - distance])
                    run++;
            *slot = i + 1;
        }
        if (run >= 3) {
            literals = 0;
            to[used++] = (uint8_t)((run - 2 < 7 ? run - 2 : 7) << 5 | (distance - 1) >> 8);
            if (run - 2 >= 7)
                to[used++] = (uint8_t)(run - 2 - 7);
            to[used++] = (uint8_t)(distance - 1);
            i += run;
            continue;
        }
        if (literals == 0)
            to[used++] = 0;
        to[used - literals - 1] = (uint8_t)literals;
        to[used++] = data[i++];
        literals = (literals + 1) % 32;
    }
    return used;
}

static void test_round_trips(void)
{
    static uint8_t data[30000], stream[MAX_STREAM], out[sizeof data];
    for (int round = 0; round < 60; round++) {
        size_t len = random_below(sizeof data), period = 1 + random_below(300), noise = random_below(4);
        for (size_t i = 0; i < len; i++)
            data[i] = i >= period && random_below(8) >= noise ? data[i - period] : (uint8_t)random_below(20);
        size_t in_len = compress(data, len, stream), produced, consumed;
        CHECK(h5fast_lzf_decode(stream, in_len, out, len, len, &produced, &consumed) == H5FAST_OK, "%zu", len);
        CHECK(produced == len && consumed == in_len && memcmp(out, data, len) == 0, "round trip of %zu bytes", len);
        compare(stream, in_len, len, len);
    }
}

static void test_random_streams(void)
{
    static uint8_t stream[MAX_STREAM];
    for (int round = 0; round < 3000; round++) {
        size_t produced, in_len = random_stream(stream, random_below(round % 10 ? 3000 : 30000), round % FLAVOURS, &produced);
        compare(stream, in_len, produced, produced);
        compare(stream, in_len, random_below(produced + 1), produced);
        compare(stream, in_len, produced, produced + random_below(400));
        compare(stream, in_len, produced + 1, produced + 1 + random_below(400)); /* ends short */
        size_t less = random_below(produced + 1);
        compare(stream, in_len, less, less); /* an instruction may cross the end of the output */
    }
}

/* A chunk that was cut off by a full disk or an interrupted copy. */
static void test_every_truncation(void)
{
    static uint8_t stream[MAX_STREAM];
    for (int flavour = 0; flavour < FLAVOURS; flavour++) {
        size_t produced, in_len = random_stream(stream, 4000, flavour, &produced);
        for (size_t cut = 0; cut <= in_len; cut++)
            compare(stream, cut, produced, produced);
    }
}

static void test_every_need(void)
{
    static uint8_t stream[MAX_STREAM];
    for (int flavour = 0; flavour < FLAVOURS; flavour++) {
        size_t produced, in_len = random_stream(stream, 2500, flavour, &produced);
        for (size_t need = 0; need <= produced; need++) {
            compare(stream, in_len, need, produced);
            compare(stream, in_len, need, need);
        }
    }
}

static void test_damaged_streams(void)
{
    static uint8_t stream[MAX_STREAM];
    for (int round = 0; round < 6000; round++) {
        size_t produced, in_len = random_stream(stream, 200 + random_below(3000), round % FLAVOURS, &produced);
        for (size_t hits = 1 + random_below(4); hits > 0; hits--)
            stream[random_below(in_len)] = (uint8_t)random32();
        compare(stream, in_len, produced, produced);
        compare(stream, in_len, produced + 2000, produced + 2000);
    }
}

static void test_random_bytes(void)
{
    static uint8_t stream[2000];
    for (int round = 0; round < 10000; round++) {
        size_t in_len = random_below(round % 2 ? 60 : sizeof stream), capacity = random_below(5000);
        unsigned ceiling = round % 3 == 0 ? 256 : round % 3 == 1 ? 40 : 3;
        for (size_t i = 0; i < in_len; i++)
            stream[i] = (uint8_t)random_below(ceiling);
        compare(stream, in_len, random_below(capacity + 1), capacity);
    }
}

/* All streams of up to four bytes of an alphabet that holds the edges of every field, each with all needs and room. */
static void test_small_exhaustively(void)
{
    static const uint8_t edges[] = {0, 1, 2, 31, 32, 33, 64, 192, 223, 224, 225, 255};
    enum { EDGES = sizeof edges, LONGEST = 4, ROOM = 14 };
    uint8_t stream[LONGEST];
    for (size_t in_len = 0, streams = 1; in_len <= LONGEST; in_len++, streams *= EDGES)
        for (size_t number = 0; number < streams; number++) {
            for (size_t i = 0, rest = number; i < in_len; i++, rest /= EDGES)
                stream[i] = edges[rest % EDGES];
            for (size_t capacity = 0; capacity <= ROOM; capacity++)
                for (size_t need = 0; need <= capacity; need++)
                    compare_at(stream, in_len, need, capacity, AT_END);
        }
}

int main(void)
{
    input = guarded_memory(MAX_STREAM);
    output = guarded_memory(MAX_OUTPUT);
    variant_count = h5fast_lzf_variants(variants);
    for (size_t v = 0; v < variant_count; v++)
        printf("lzf variant: %s\n", variants[v].name);
    variants[variant_count++] = (h5fast_lzf_variant){"h5fast_lzf_decode", h5fast_lzf_decode};
    test_small_exhaustively();
    test_round_trips();
    test_random_streams();
    test_every_truncation();
    test_every_need();
    test_damaged_streams();
    test_random_bytes();
    puts("lzf: ok");
}
