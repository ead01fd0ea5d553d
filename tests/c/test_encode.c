/* Chunks through random filter pipelines and back, alone and in runs by several threads.
 *
 * Prevents: a chunk that does not decode to what it was, a mask that does not say what was left out, bytes beyond the bound, a
 * chunk that grew, and threads that share what they must not.
 */
#include "engine.h"

#include "../../src/decode.h"
#include "../../src/encode.h"
#include "../../src/encoder.h"

enum { MOST_CHUNK = 200000 };

static uint8_t data[MOST_CHUNK];
static guarded in_memory, out_memory;
static int has_deflate;

static void find_compressors(void)
{
    has_deflate = find_deflate() != NULL && compress2_found != NULL;
    h5fast_deflate.compress2 = compress2_found;
    const char *path = getenv("H5FAST_DEFLATE_SO");
    void *library = path != NULL && *path != 0 ? dlopen(path, RTLD_NOW) : NULL;
    if (library == NULL)
        return;
    *(void **)&h5fast_deflate.alloc_compressor = dlsym(library, "libdeflate_alloc_compressor");
    *(void **)&h5fast_deflate.free_compressor = dlsym(library, "libdeflate_free_compressor");
    *(void **)&h5fast_deflate.zlib_compress = dlsym(library, "libdeflate_zlib_compress");
}

/* A plugin that makes runs of equal bytes shorter: (byte, count) pairs. */
static size_t pairs_plugin(unsigned flags, size_t count, const unsigned *values, size_t len, size_t *buffer_size, void **buffer)
{
    (void)count, (void)values;
    uint8_t *in = *buffer, *out = malloc(flags & 0x0100 ? 256 * len + 1 : 2 * len + 1);
    size_t at = 0;
    if (out == NULL)
        return 0;
    if (flags & 0x0100) {
        for (size_t i = 0; i + 1 < len; i += 2)
            for (int n = in[i + 1]; n > 0; n--)
                out[at++] = in[i];
    } else {
        for (size_t i = 0, n; i < len; i += n) {
            for (n = 1; n < 255 && i + n < len && in[i + n] == in[i]; n++)
                ;
            out[at++] = in[i], out[at++] = (uint8_t)n;
        }
    }
    free(*buffer);
    *buffer = out;
    *buffer_size = at;
    return at;
}

static void random_pipeline(h5fast_storage *s)
{
    static unsigned shuffle_sizes[16], levels[16];
    memset(s, 0, sizeof *s);
    s->itemsize = 1 + random_below(chance(80) ? 8 : 40);
    s->chunk_bytes = s->itemsize * (1 + random_below(chance(3) ? MOST_CHUNK / 40 : 400));
    s->filter_count = (int)random_below(5);
    for (int i = 0; i < s->filter_count; i++) {
        h5fast_filter *filter = &s->filters[i];
        size_t kind = random_below(5);
        shuffle_sizes[i] = chance(90) ? (unsigned)s->itemsize : 1 + (unsigned)random_below(20);
        levels[i] = (unsigned)random_below(10);
        if (kind == 0) {
            *filter = (h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &shuffle_sizes[i]};
        } else if (kind == 1) {
            *filter = (h5fast_filter){H5FAST_FILTER_FLETCHER32, NULL, 0, NULL};
        } else if (kind == 2 && has_deflate) {
            *filter = (h5fast_filter){H5FAST_FILTER_DEFLATE, NULL, 1, &levels[i]};
        } else if (kind == 3) {
            *filter = (h5fast_filter){40001, pairs_plugin, 0, NULL};
        } else {
            *filter = (h5fast_filter){H5FAST_FILTER_LZF, NULL, 0, NULL};
        }
    }
}

static void random_data(size_t len)
{
    int kind = (int)random_below(4);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(kind == 0 ? random32() : kind == 1 ? 0 : kind == 2 ? i / 40 : i % 7 * chance(95));
}

static void check_decodes(const h5fast_storage *s, const uint8_t *bytes, size_t size, uint32_t mask, const uint8_t *expected)
{
    h5fast_scratch *scratch = h5fast_scratch_take();
    h5fast_decoded decoded;
    h5fast_want all = {0, s->chunk_bytes};
    CHECK(scratch != NULL, "scratch");
    h5fast_status status = h5fast_decode_chunk(s, scratch, bytes, size, mask, all, NULL, 0, &decoded);
    CHECK(status == H5FAST_OK && decoded.chunk != NULL, "status %d of filter %d", status, decoded.filter);
    CHECK(memcmp(decoded.chunk, expected, s->chunk_bytes) == 0, "another chunk");
    h5fast_scratch_return(scratch);
}

/* Only compressors and the shuffles for them may be left out. */
static void check_mask(const h5fast_storage *s, uint32_t mask)
{
    CHECK(mask >> s->filter_count == 0, "mask %x of %d filters", mask, s->filter_count);
    for (int i = 0; i < s->filter_count; i++)
        CHECK(!(mask >> i & 1) || s->filters[i].id != H5FAST_FILTER_FLETCHER32, "a checksum was left out");
}

static void test_pipelines(void)
{
    static h5fast_encode_scratch scratch;
    size_t left_out = 0;
    for (int round = 0, end = rounds(20000); round < end; round++) {
        h5fast_storage s;
        random_pipeline(&s);
        size_t len = (size_t)s.chunk_bytes, bound = h5fast_encode_bound(&s), size = 0;
        random_data(len);
        int place = chance(50) ? AT_END : AT_START;
        uint8_t *in = guarded_place(in_memory, len, place), *out = guarded_place(out_memory, bound, place);
        const uint8_t *bytes = NULL;
        uint32_t mask = 0;
        memcpy(in, data, len);
        h5fast_status status = h5fast_encode_chunk(&s, &scratch, in, out, &bytes, &size, &mask);
        CHECK(status == H5FAST_OK && size <= bound && (bytes == in || bytes == out), "status %d, %zu of %zu", status, size, bound);
        CHECK(memcmp(in, data, len) == 0, "the chunk was written to");
        check_mask(&s, mask);
        check_decodes(&s, bytes, size, mask, data);
        left_out += mask != 0;
    }
    CHECK(left_out > 10, "no filter was ever left out");
    h5fast_encode_scratch_clear(&scratch);
}

static void test_shuffle_of_nothing_is_refused(void)
{
    static h5fast_encode_scratch scratch;
    unsigned none = 0;
    h5fast_storage s = {.itemsize = 4, .chunk_bytes = 400, .filter_count = 1};
    s.filters[0] = (h5fast_filter){H5FAST_FILTER_SHUFFLE, NULL, 1, &none};
    const uint8_t *bytes;
    size_t size;
    uint32_t mask;
    CHECK(h5fast_encode_chunk(&s, &scratch, data, out_memory.start, &bytes, &size, &mask) == H5FAST_CORRUPT, "it was taken");
    h5fast_encode_scratch_clear(&scratch);
}

static void run_to_the_end(h5fast_encoder *encoder)
{
    while (!h5fast_encoder_help(encoder, 0.01))
        ;
}

static void test_runs(void)
{
    enum { MOST_RUN = 40 };
    for (int round = 0, end = rounds(400); round < end; round++) {
        h5fast_storage s;
        do
            random_pipeline(&s);
        while (s.chunk_bytes > MOST_CHUNK / MOST_RUN);
        size_t chunk = (size_t)s.chunk_bytes;
        h5fast_encoder *encoder = h5fast_encoder_make(&s, MOST_RUN);
        CHECK(encoder != NULL && h5fast_encoder_help(encoder, 0.01), "an idle encoder is done");
        for (int run = 0; run < 3; run++) {
            uint64_t count = 1 + random_below(MOST_RUN);
            random_data(count * chunk);
            h5fast_encoder_start(encoder, data, count, 1 + (int)random_below(4), (int)random_below(11) - 1);
            int stopped = chance(10);
            if (stopped)
                h5fast_encoder_cancel(encoder);
            run_to_the_end(encoder);
            for (uint64_t number = 0; number < count; number++) {
                const h5fast_encoded *found = h5fast_encoder_chunk(encoder, number);
                if (stopped && found->status == H5FAST_CANCELLED)
                    continue;
                CHECK(found->status == H5FAST_OK, "status %d", found->status);
                check_decodes(&s, found->bytes, found->size, found->mask, data + number * chunk);
            }
        }
        h5fast_encoder_free(encoder);
    }
    h5fast_storage huge = {.itemsize = 1, .chunk_bytes = 1u << 30};
    CHECK(h5fast_encoder_make(&huge, UINT64_MAX / 2) == NULL, "more chunks than can be counted");
    h5fast_encoder_free(NULL);
}

int main(void)
{
    in_memory = guarded_memory(MOST_CHUNK);
    out_memory = guarded_memory(MOST_CHUNK + 64);
    find_compressors();
    printf("deflate: %s\n", h5fast_deflate.alloc_compressor ? "libdeflate" : has_deflate ? "zlib" : "none");
    test_pipelines();
    test_shuffle_of_nothing_is_refused();
    test_runs();
    h5fast_scratch_trim();
    puts("encode: ok");
}
