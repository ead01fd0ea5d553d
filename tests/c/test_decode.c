/* Filter pipelines in any order, with masks, short chunks, wanted ranges and hostile bytes.
 *
 * Prevents: an order of filters that only some files have and that decodes to something else, a filter that the mask
 * skips being undone, bytes outside a buffer being touched, and bytes that nobody wrote being handed out.
 */
#include "engine.h"

#include "../../src/decode.h"

enum { MOST_CHUNK = 300000, MOST_STORED = 8 * MOST_CHUNK };

static uint8_t data[MOST_CHUNK + 100], stored[MOST_STORED], spare[MOST_STORED];
static guarded stored_memory, whole_memory;
static int has_deflate;
static size_t outcomes[H5FAST_CANCELLED + 1];

typedef struct {
    h5fast_storage storage;
    uint32_t mask;
    h5fast_want want;
    int keep_planes, into_whole;
    h5fast_decoded decoded;
} scene;

static void random_scene(scene *s)
{
    unsigned size = 1 + (unsigned)random_below(chance(80) ? 8 : 40);
    memset(s, 0, sizeof *s);
    s->storage.itemsize = size;
    s->storage.chunk_bytes = size * (1 + random_below(chance(3) ? MOST_CHUNK / 40 : 300));
    random_filters(&s->storage, size, has_deflate);
    s->mask = chance(50) ? 0 : chance(20) ? UINT32_MAX : random32() & random32();
    size_t chunk = (size_t)s->storage.chunk_bytes;
    s->want.first = chance(30) ? 0 : random_below(chunk);
    s->want.end = chance(30) ? chunk : s->want.first + 1 + random_below(chunk - (size_t)s->want.first);
    s->keep_planes = chance(50);
    s->into_whole = chance(30);
}

static void random_data(size_t len)
{
    int calm = chance(50);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(calm ? i / 40 * chance(90) : random32());
}

static h5fast_status decode(scene *s, size_t size)
{
    h5fast_scratch *scratch = h5fast_scratch_take();
    CHECK(scratch != NULL, "scratch");
    uint8_t *in = guarded_place(stored_memory, size, AT_END), *whole = NULL;
    if (s->into_whole)
        whole = guarded_place(whole_memory, (size_t)s->storage.chunk_bytes, chance(50) ? AT_END : AT_START);
    memcpy(in, stored, size);
    h5fast_status status = h5fast_decode_chunk(&s->storage, scratch, in, size, s->mask, s->want, whole, s->keep_planes,
                                               &s->decoded);
    h5fast_scratch_return(scratch); /* its bytes stay valid until the next decode */
    outcomes[status]++;
    return status;
}

static uint8_t byte_at(const h5fast_decoded *decoded, uint64_t at)
{
    if (decoded->chunk != NULL)
        return decoded->chunk[at];
    return decoded->planes[at % decoded->element_size * decoded->elements + at / decoded->element_size];
}

static void check_wanted(const scene *s)
{
    CHECK(s->decoded.chunk != NULL || s->keep_planes, "no chunk");
    CHECK(s->decoded.chunk != NULL || s->want.end <= s->decoded.elements * s->decoded.element_size, "planes too short");
    for (uint64_t at = s->want.first; at < s->want.end; at++)
        CHECK(byte_at(&s->decoded, at) == data[at], "byte %llu of %llu", (unsigned long long)at,
              (unsigned long long)s->storage.chunk_bytes);
}

/* Looks at every wanted byte, so that a sanitizer or valgrind sees those that lie outside or were never written. */
static void touch_wanted(const scene *s)
{
    static unsigned long ones;
    for (uint64_t at = s->want.first; at < s->want.end; at++)
        if (byte_at(&s->decoded, at) & 1)
            ones++;
}

static void test_pipelines(void)
{
    for (int round = 0, end = rounds(40000); round < end; round++) {
        scene s;
        random_scene(&s);
        random_data((size_t)s.storage.chunk_bytes);
        size_t size = encode(&s.storage, s.mask, data, (size_t)s.storage.chunk_bytes, stored, spare);
        h5fast_status status = decode(&s, size);
        CHECK(status == H5FAST_OK && s.decoded.filter == 0, "status %d of filter %d", status, s.decoded.filter);
        check_wanted(&s);
    }
}

/* A chunk that holds less than its shape is fine where what is wanted is there; one that holds more is refused, unless
 * the decoder stops before it can know. */
static void test_wrong_lengths(void)
{
    for (int round = 0, end = rounds(20000); round < end; round++) {
        scene s;
        random_scene(&s);
        size_t chunk = (size_t)s.storage.chunk_bytes, len = 1 + random_below(chance(50) ? chunk : chunk + 100);
        random_data(len > chunk ? len : chunk);
        size_t size = encode(&s.storage, s.mask, data, len, stored, spare);
        h5fast_status status = decode(&s, size);
        if (status == H5FAST_OK)
            check_wanted(&s);
        if (len <= chunk)
            CHECK(status == (s.want.end <= len ? H5FAST_OK : H5FAST_SHORT), "status %d, %zu of %zu", status, len, chunk);
        else
            CHECK(status == H5FAST_OK || status == H5FAST_CORRUPT, "status %d, %zu of %zu", status, len, chunk);
    }
}

static size_t damage(size_t size)
{
    size_t how = random_below(5);
    if (how == 0)
        return random_below(size + 1);
    if (how == 1)
        for (size_t i = 0; i < size; i++)
            stored[i] = (uint8_t)random32();
    if (how == 2 && size + 10 < MOST_STORED)
        for (size_t i = 0; i < 10; i++)
            stored[size++] = (uint8_t)random32();
    for (size_t i = 0, changes = how < 3 ? 0 : random_below(5); i < changes && size > 0; i++)
        stored[random_below(size)] = (uint8_t)random32();
    return size;
}

static void test_hostile(void)
{
    for (int round = 0, end = rounds(40000); round < end; round++) {
        scene s;
        random_scene(&s);
        random_data((size_t)s.storage.chunk_bytes);
        size_t size = damage(encode(&s.storage, s.mask, data, (size_t)s.storage.chunk_bytes, stored, spare));
        if (chance(10))
            s.mask = random32(); /* a mask that is not the one it was written with */
        h5fast_status status = decode(&s, size);
        CHECK(status <= H5FAST_CHECKSUM, "status %d", status);
        CHECK(status == H5FAST_OK || status == H5FAST_SHORT || s.decoded.filter != 0, "no filter named");
        if (status == H5FAST_OK)
            touch_wanted(&s);
    }
}

/* Where Fletcher-32 was written last, no changed bit gets past it. */
static void test_checksum_first(void)
{
    for (int round = 0, end = rounds(20000); round < end; round++) {
        scene s;
        random_scene(&s);
        s.storage.filters[s.storage.filter_count++] = (h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL};
        s.mask = 0;
        random_data((size_t)s.storage.chunk_bytes);
        size_t size = encode(&s.storage, 0, data, (size_t)s.storage.chunk_bytes, stored, spare), bit = random_below(8 * size);
        stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
        h5fast_status status = decode(&s, size);
        CHECK(status == H5FAST_CHECKSUM && s.decoded.filter == H5FAST_FILTER_FLETCHER32, "status %d", status);
    }
}

static h5fast_status decode_one(h5fast_filter filter, size_t size, size_t chunk)
{
    scene s;
    memset(&s, 0, sizeof s);
    s.storage.itemsize = 1;
    s.storage.chunk_bytes = chunk;
    s.storage.filter_count = 1;
    s.storage.filters[0] = filter;
    s.want.end = chunk;
    return decode(&s, size);
}

static void test_shuffle_parameters(void)
{
    static const unsigned none = 0, huge = UINT32_MAX;
    random_data(100);
    memcpy(stored, data, 100);
    CHECK(decode_one((h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &none}, 100, 100) == H5FAST_CORRUPT, "size 0");
    CHECK(decode_one((h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 0, NULL}, 100, 100) == H5FAST_CORRUPT, "no size");
    CHECK(decode_one((h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &huge}, 100, 100) == H5FAST_OK, "a huge size");
    CHECK(decode_one((h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &huge}, 0, 100) == H5FAST_SHORT, "no bytes");
    CHECK(decode_one((h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL}, 3, 100) == H5FAST_SHORT, "three bytes");
}

enum { FAILS, NEGATIVE, BEYOND_BUFFER, TOO_LARGE, LOSES_BUFFER, GROWS, PLUGIN_MODES };

/* A plugin that misbehaves as cd_values[0] says. */
static size_t odd_plugin(unsigned flags, size_t cd_nelmts, const unsigned *cd_values, size_t nbytes, size_t *buffer_size,
                         void **buffer)
{
    (void)cd_nelmts;
    CHECK(flags == 0x0100, "flags 0x%x", flags);
    switch (cd_values[0]) {
    case FAILS: return 0;
    case NEGATIVE: return (size_t)-5;
    case BEYOND_BUFFER: return nbytes + 1;
    default: free(*buffer);
    }
    size_t size = cd_values[0] == TOO_LARGE ? 1000000 : 200;
    *buffer = cd_values[0] == LOSES_BUFFER ? NULL : calloc(1, size);
    *buffer_size = size;
    return size;
}

static void test_plugins(void)
{
    for (unsigned mode = 0; mode < PLUGIN_MODES; mode++) {
        h5fast_status status = decode_one((h5fast_filter){FILTER_XOR + 1, odd_plugin, 1, &mode}, 100, 200);
        CHECK(status == (mode == GROWS ? H5FAST_OK : H5FAST_CORRUPT), "mode %u: status %d", mode, status);
    }
}

int main(void)
{
    const char *library = find_deflate();
    has_deflate = library != NULL;
    stored_memory = guarded_memory(MOST_STORED);
    whole_memory = guarded_memory(MOST_CHUNK);
    test_pipelines();
    test_wrong_lengths();
    test_hostile();
    test_checksum_first();
    test_shuffle_parameters();
    test_plugins();
    h5fast_scratch_trim();
    CHECK(h5fast_scratch_bytes() == 0, "scratch left");
    printf("decode: deflate by %s; %zu decoded, %zu corrupt, %zu short, %zu of wrong checksum: ok\n",
           library != NULL ? library : "nobody", outcomes[H5FAST_OK], outcomes[H5FAST_CORRUPT], outcomes[H5FAST_SHORT],
           outcomes[H5FAST_CHECKSUM]);
}
