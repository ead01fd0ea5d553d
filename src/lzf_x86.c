/* LZF decoding for x86-64 with AVX2, or with AVX-512 VBMI; the instruction format stands at the top of lzf.c.
 *
 * Instructions are short (3.8 bytes of output on 64x64 photos, 29 % of them literal runs, in no predictable order): a
 * decoder that branches on their kind pays a misprediction for every third, and one that only reads its way from
 * control byte to control byte already spends 9.5 cycles on each. So the work is split in two, some hundred
 * instructions at a time:
 *     scan   finds where instructions start, for 16 or 64 input bytes at once, and takes them apart in vectors
 *     copy   moves the bytes without a branch on literal, near or far
 * That takes 8 (AVX2) or 6.2 (VBMI) cycles for an instruction where liblzf's loop takes 31.
 *
 * Touches only the buffers it is given and 2 KiB of stack; leaves every error to h5fast_lzf_exact.
 */
#include "lzf_internal.h"

#ifdef H5FAST_LZF_X86

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

/* SCAN bytes of input are scanned at a time; 256, 512 and 1,024 differ by 3 %, and the arrays stay in the L1 cache.
 * An instruction takes two bytes or more, hence at most TOKENS of them start in a scan. */
enum { SCAN = 512, TOKENS = SCAN / 2 };

/* Input that must follow a scan. A run of 32 literals may start at its last byte, so 32 would do; 64 is a vector. */
enum { SCAN_AHEAD = 64 };

/* Output room at the start of each group of GROUP instructions of at most 16 bytes. */
enum { GROUP = 4, GROUP_OUT = GROUP * 16 };

/* A match is near when its source lies in the last HISTORY bytes of output, which the copy loop has in a register. */
enum { HISTORY = 16 };

/* Instructions taken apart. Entry t: */
typedef struct {
    uint16_t len[TOKENS];  /* bytes of output, 1..264 */
    uint16_t used[TOKENS]; /* bytes of input, 2..33 */
    uint16_t far[TOKENS];  /* distance of a far match, 17..8192; 0 for a literal run or a near match */
    uint16_t near[TOKENS]; /* distance of a near match << 8 (0: none) | ((len - 1) & 15) << 4: a byte offset in NEXT */
} lzf_tokens;

/* NEXT[k][l]: which bytes of (the last 16 bytes of output, 16 bytes of source) are the last 16 after an instruction of
 * l + 1 bytes; k = 0 takes them from the source, k = 1..16 repeats the last k bytes of output. 0..15 stands for the
 * old output, 16..31 for the source. 4,352 bytes. */
#define BYTE(k, l, j)                                                                                                  \
    ((j) + (l) < 15 ? (j) + (l) + 1 : (k) ? 16 - (k) + ((j) + (l)-15) % ((k) ? (k) : 1) : (j) + (l) + 1)
#define ROW(k, l)                                                                                                      \
    {BYTE(k, l, 0),  BYTE(k, l, 1),  BYTE(k, l, 2),  BYTE(k, l, 3), BYTE(k, l, 4),  BYTE(k, l, 5),                     \
     BYTE(k, l, 6),  BYTE(k, l, 7),  BYTE(k, l, 8),  BYTE(k, l, 9), BYTE(k, l, 10), BYTE(k, l, 11),                    \
     BYTE(k, l, 12), BYTE(k, l, 13), BYTE(k, l, 14), BYTE(k, l, 15)}
#define ROWS(k)                                                                                                        \
    {ROW(k, 0), ROW(k, 1), ROW(k, 2),  ROW(k, 3),  ROW(k, 4),  ROW(k, 5),  ROW(k, 6),  ROW(k, 7),                      \
     ROW(k, 8), ROW(k, 9), ROW(k, 10), ROW(k, 11), ROW(k, 12), ROW(k, 13), ROW(k, 14), ROW(k, 15)}
static const uint8_t NEXT[HISTORY + 1][16][16] __attribute__((aligned(64))) = {
    ROWS(0), ROWS(1), ROWS(2),  ROWS(3),  ROWS(4),  ROWS(5),  ROWS(6),  ROWS(7), ROWS(8),
    ROWS(9), ROWS(10), ROWS(11), ROWS(12), ROWS(13), ROWS(14), ROWS(15), ROWS(16)};
#undef ROWS
#undef ROW
#undef BYTE

#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline))

AVX2 INLINE __m128i load16(const void *from) { return _mm_loadu_si128((const __m128i *)from); }
AVX2 INLINE void store16(void *to, __m128i v) { _mm_storeu_si128((__m128i *)to, v); }

/* Bytes of instructions, fetched exactly once: the empty asm keeps the compiler from going back to memory for them. */
AVX2 INLINE __m256i fetch32(const uint8_t *at)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)at);
    __asm__("" : "+x"(v));
    return v;
}

VBMI INLINE __m512i fetch64(const uint8_t *at)
{
    __m512i v = _mm512_loadu_si512(at);
    __asm__("" : "+v"(v));
    return v;
}

/* The last 16 bytes of output after an instruction; `row` is a byte offset in NEXT. _mm_shuffle_epi8 gives 0 where bit
 * 7 of the index is set: + 0x70 sets it for 16..31 (the source), - 16 for 0..15 (the old output). */
AVX2 INLINE __m128i next_history(__m128i history, __m128i source, size_t row)
{
    __m128i from = _mm_load_si128((const __m128i *)((const uint8_t *)NEXT + row));
    return _mm_or_si128(_mm_shuffle_epi8(history, _mm_add_epi8(from, _mm_set1_epi8(0x70))),
                        _mm_shuffle_epi8(source, _mm_sub_epi8(from, _mm_set1_epi8(16))));
}

/* An instruction of more than 16 bytes (0.3 % on photos, most of them on flat images). Writes up to 15 bytes beyond. */
AVX2 static __m128i copy_long(__m128i history, const uint8_t *source, size_t near, uint8_t *to, size_t len)
{
    if (near == 0) {
        for (size_t z = 0; z < len; z += 16)
            store16(to + z, load16(source + z));
    } else {
        __m128i pattern = next_history(history, history, near << 8 | 15 << 4);
        for (size_t z = 0; z < len; z += 16 - 16 % near)
            store16(to + z, pattern);
    }
    return load16(to + len - 16);
}

/* Carries out `count` scanned instructions, a multiple of GROUP; false if it had to leave one to h5fast_lzf_exact.
 *
 * The last 16 bytes of output live in a register: a load that spans several stores just made waits until they have
 * reached the cache, and 29 % of the matches on photos would be such loads (3.9 -> 5.0 times liblzf). It also lets
 * an instruction end its store at its own last byte, so only the long ones write beyond it, and ask for the room.
 * Requires s->o >= HISTORY, thus a near match never starts before the output. */
AVX2 static bool copy_tokens(lzf_state *s, const lzf_tokens *t, size_t count, size_t need)
{
    const uint8_t *literal = s->in + s->i + 1;
    uint8_t *out = s->out;
    size_t o = s->o;
    bool done = false;
    __m128i history = load16(out + o - HISTORY);
    for (size_t j = 0; j < count; j += GROUP) {
        if (o + GROUP_OUT > need)
            goto leave;
#pragma GCC unroll 4
        for (size_t u = j; u < j + GROUP; u++) {
            size_t len = t->len[u], far = t->far[u];
            if (far > o)
                goto leave;
            const uint8_t *source = out + (o - far);
            source = far ? source : literal;
            if (__builtin_expect(len > 16, 0)) {
                if (o + len + GROUP_OUT > need)
                    goto leave;
                history = copy_long(history, source, t->near[u] >> 8, out + o, len);
                o += len;
            } else {
                history = next_history(history, load16(source), t->near[u]);
                o += len;
                store16(out + o - 16, history);
            }
            literal += t->used[u];
        }
    }
    done = true;
leave:
    s->i = (size_t)(literal - 1 - s->in);
    s->o = o;
    return done;
}

/* For each of 16 places in a lane: the place `table` leads to from there; places beyond the lane stay what they are. */
AVX2 INLINE __m256i hop(__m256i table, __m256i at)
{
    return _mm256_max_epu8(at, _mm256_shuffle_epi8(table, _mm256_adds_epu8(at, _mm256_set1_epi8(0x70))));
}

AVX2 INLINE __m256i select16(__m256i no, __m256i yes, __m256i mask) { return _mm256_blendv_epi8(no, yes, mask); }

/* Stores the first `low` of eight tokens of the lower lane, followed by the eight of the upper one. */
AVX2 INLINE void store_lanes(uint16_t *to, size_t low, __m256i v)
{
    store16(to, _mm256_castsi256_si128(v));
    store16(to + low, _mm256_extracti128_si256(v, 1));
}

/* Takes instructions apart: bytes 0..7 of each lane of c, b, b2 hold their first, second and third bytes. */
AVX2 INLINE void split_avx2(lzf_tokens *t, size_t at, size_t low, __m256i c, __m256i b, __m256i b2)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi16(1), two = _mm256_set1_epi16(2);
    c = _mm256_unpacklo_epi8(c, zero);
    b = _mm256_unpacklo_epi8(b, zero);
    b2 = _mm256_unpacklo_epi8(b2, zero);
    __m256i is_literal = _mm256_cmpgt_epi16(_mm256_set1_epi16(32), c);
    __m256i is_long = _mm256_cmpgt_epi16(c, _mm256_set1_epi16(223));
    __m256i less_1 = _mm256_add_epi16(_mm256_srli_epi16(c, 5), one); /* len - 1 */
    less_1 = select16(_mm256_add_epi16(less_1, _mm256_and_si256(b, is_long)), c, is_literal);
    __m256i distance = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(c, _mm256_set1_epi16(31)), 8),
                                       select16(b, b2, is_long));
    distance = _mm256_andnot_si256(is_literal, _mm256_add_epi16(distance, one));
    __m256i is_far = _mm256_cmpgt_epi16(distance, _mm256_set1_epi16(HISTORY));
    __m256i row = _mm256_or_si256(_mm256_slli_epi16(_mm256_andnot_si256(is_far, distance), 8),
                                  _mm256_slli_epi16(_mm256_and_si256(less_1, _mm256_set1_epi16(15)), 4));
    store_lanes(t->len + at, low, _mm256_add_epi16(less_1, one));
    store_lanes(t->used + at, low,
                _mm256_add_epi16(two, _mm256_sub_epi16(_mm256_and_si256(is_literal, c), is_long)));
    store_lanes(t->far + at, low, _mm256_and_si256(is_far, distance));
    store_lanes(t->near + at, low, row);
}

/* Finds and takes apart the instructions that start in in[0..len), len a multiple of 32, in[0] being a control byte.
 *
 * As if every byte were a control byte, next1 holds where the next one would then be; next1 applied to itself tells
 * where the second next is, and so on: a lane of 16 bytes needs three steps for its at most eight instructions. Only
 * `start`, where the first instruction of a lane is, waits for the lane before (5 cycles for 6.5 instructions). */
AVX2 static size_t scan_avx2(const uint8_t *in, size_t len, lzf_tokens *t)
{
    const __m256i places = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m256i lane = _mm256_set1_epi8(16);
    __m256i start = _mm256_setzero_si256();
    size_t count = 0;
    for (const uint8_t *end = in + len; in < end; in += 32) {
        __m256i c = fetch32(in);
        __m256i b = fetch32(in + 1);
        __m256i b2 = fetch32(in + 2);
        __m256i is_literal = _mm256_cmpeq_epi8(_mm256_min_epu8(c, _mm256_set1_epi8(31)), c);
        __m256i is_long = _mm256_cmpeq_epi8(_mm256_max_epu8(c, _mm256_set1_epi8((char)224)), c);
        __m256i used = _mm256_sub_epi8(_mm256_add_epi8(_mm256_and_si256(c, is_literal), _mm256_set1_epi8(2)), is_long);
        __m256i next1 = _mm256_add_epi8(places, used);
        __m256i next2 = hop(next1, next1), next4 = hop(next2, next2), next8 = hop(next4, next4);

        __m256i upper = _mm256_sub_epi8(hop(next8, start), lane);
        __m256i at = _mm256_permute2x128_si256(start, upper, 0x20);
        start = _mm256_sub_epi8(hop(_mm256_permute2x128_si256(next8, next8, 0x11), upper), lane);
        at = select16(at, hop(next1, at), _mm256_set1_epi16((short)0xff00));
        at = _mm256_blend_epi16(at, hop(next2, at), 0xaa);
        at = _mm256_blend_epi16(at, hop(next4, at), 0xcc);

        unsigned inside = (unsigned)_mm256_movemask_epi8(_mm256_cmpgt_epi8(lane, at));
        size_t low = (size_t)__builtin_popcount(inside & 0xff);
        split_avx2(t, count, low, _mm256_shuffle_epi8(c, at), _mm256_shuffle_epi8(b, at), _mm256_shuffle_epi8(b2, at));
        count += low + (size_t)__builtin_popcount(inside & 0xff0000);
    }
    return count;
}

/* As split_avx2, for the lower 32 bytes of c, b and b2. */
VBMI INLINE void split_vbmi(lzf_tokens *t, size_t at, __m512i c8, __m512i b8, __m512i b28)
{
    const __m512i one = _mm512_set1_epi16(1), two = _mm512_set1_epi16(2);
    __m512i c = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(c8));
    __m512i b = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(b8));
    __m512i b2 = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(b28));
    __mmask32 is_literal = _mm512_cmplt_epu16_mask(c, _mm512_set1_epi16(32));
    __mmask32 is_long = _mm512_cmpge_epu16_mask(c, _mm512_set1_epi16(224));
    __m512i less_1 = _mm512_add_epi16(_mm512_srli_epi16(c, 5), one); /* len - 1 */
    less_1 = _mm512_mask_add_epi16(less_1, is_long, less_1, b);
    less_1 = _mm512_mask_mov_epi16(less_1, is_literal, c);
    __m512i distance = _mm512_or_si512(_mm512_slli_epi16(_mm512_and_si512(c, _mm512_set1_epi16(31)), 8),
                                       _mm512_mask_mov_epi16(b, is_long, b2));
    distance = _mm512_maskz_add_epi16(~is_literal, distance, one);
    __mmask32 is_far = _mm512_cmpgt_epu16_mask(distance, _mm512_set1_epi16(HISTORY));
    __m512i row = _mm512_or_si512(_mm512_maskz_slli_epi16(~is_far, distance, 8),
                                  _mm512_slli_epi16(_mm512_and_si512(less_1, _mm512_set1_epi16(15)), 4));
    __m512i used = _mm512_mask_add_epi16(_mm512_mask_add_epi16(two, is_long, two, one), is_literal, two, c);
    _mm512_storeu_si512(t->len + at, _mm512_add_epi16(less_1, one));
    _mm512_storeu_si512(t->used + at, used);
    _mm512_storeu_si512(t->far + at, _mm512_maskz_mov_epi16(is_far, distance));
    _mm512_storeu_si512(t->near + at, row);
}

/* As scan_avx2, with one lane of 64 bytes and five steps for its at most 32 instructions; len a multiple of 64. A
 * permutation of two tables takes 128 indices: `stay`, the second one, keeps places beyond the lane what they are. */
VBMI static size_t scan_vbmi(const uint8_t *in, size_t len, lzf_tokens *t)
{
    static const uint8_t PLACES[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                       16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                       32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                       48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    const __m512i places = _mm512_loadu_si512(PLACES), lane = _mm512_set1_epi8(64), two = _mm512_set1_epi8(2);
    const __m512i stay = _mm512_add_epi8(places, lane);
    __m512i start = _mm512_setzero_si512();
    size_t count = 0;
    for (const uint8_t *end = in + len; in < end; in += 64) {
        __m512i c = fetch64(in), b = fetch64(in + 1), b2 = fetch64(in + 2);
        __m512i used = _mm512_mask_add_epi8(two, _mm512_cmplt_epu8_mask(c, _mm512_set1_epi8(32)), two, c);
        used = _mm512_mask_mov_epi8(used, _mm512_cmpge_epu8_mask(c, _mm512_set1_epi8((char)224)), _mm512_set1_epi8(3));
        __m512i next1 = _mm512_add_epi8(places, used);
        __m512i next2 = _mm512_permutex2var_epi8(next1, next1, stay);
        __m512i next4 = _mm512_permutex2var_epi8(next2, next2, stay);
        __m512i next8 = _mm512_permutex2var_epi8(next4, next4, stay);
        __m512i next16 = _mm512_permutex2var_epi8(next8, next8, stay);
        __m512i next32 = _mm512_permutex2var_epi8(next16, next16, stay);

        __m512i at = start;
        start = _mm512_sub_epi8(_mm512_permutex2var_epi8(next32, start, stay), lane);
        at = _mm512_mask_mov_epi8(at, 0xaaaaaaaa, _mm512_permutex2var_epi8(next1, at, stay));
        at = _mm512_mask_mov_epi8(at, 0xcccccccc, _mm512_permutex2var_epi8(next2, at, stay));
        at = _mm512_mask_mov_epi8(at, 0xf0f0f0f0, _mm512_permutex2var_epi8(next4, at, stay));
        at = _mm512_mask_mov_epi8(at, 0xff00ff00, _mm512_permutex2var_epi8(next8, at, stay));
        at = _mm512_mask_mov_epi8(at, 0xffff0000, _mm512_permutex2var_epi8(next16, at, stay));

        split_vbmi(t, count, _mm512_permutexvar_epi8(at, c), _mm512_permutexvar_epi8(at, b),
                   _mm512_permutexvar_epi8(at, b2));
        count += (size_t)__builtin_popcount((uint32_t)_mm512_cmplt_epu8_mask(at, lane));
    }
    return count;
}

/* Scans and copies while there is room, then finishes exactly. */
INLINE h5fast_status decode_scanned(size_t (*scan)(const uint8_t *, size_t, lzf_tokens *), lzf_state s, size_t need,
                                    size_t *produced, size_t *consumed)
{
    lzf_tokens tokens;
    bool going = need >= HISTORY + GROUP_OUT && h5fast_lzf_exact(&s, HISTORY) == H5FAST_OK;
    while (going && s.in_len - s.i >= SCAN_AHEAD + 64) {
        size_t len = (s.in_len - s.i - SCAN_AHEAD) & ~(size_t)63;
        size_t count = scan(s.in + s.i, len < SCAN ? len : SCAN, &tokens);
        count &= ~(size_t)(GROUP - 1);
        going = count > 0 && copy_tokens(&s, &tokens, count, need);
    }
    return h5fast_lzf_finish(&s, need, produced, consumed);
}

h5fast_status h5fast_lzf_avx2(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                              size_t *produced, size_t *consumed)
{
    return decode_scanned(scan_avx2, (lzf_state){in, in_len, out, capacity, 0, 0}, need, produced, consumed);
}

h5fast_status h5fast_lzf_vbmi(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                              size_t *produced, size_t *consumed)
{
    return decode_scanned(scan_vbmi, (lzf_state){in, in_len, out, capacity, 0, 0}, need, produced, consumed);
}

#endif /* H5FAST_LZF_X86 */
