/* LZF decoding: the careful byte-exact loop that decides every question of errors and of where to stop, a plain fast
 * loop in front of it for any CPU, and the choice between that and src/lzf_x86.c.
 *
 * An LZF instruction is a control byte c and what follows it:
 *     c < 32          c + 1 literal bytes follow
 *     32 <= c < 224   one byte b follows: copy (c >> 5) + 2 bytes from ((c & 31) << 8 | b) + 1 bytes back
 *     c >= 224        two bytes b, b2 follow: copy b + 9 bytes from ((c & 31) << 8 | b2) + 1 bytes back
 *
 * Touches only the buffers it is given; never allocates. Every input byte is fetched once for each role it may have
 * (control, second or third byte), and what was checked is what is used: another thread or process that changes the
 * input meanwhile can change the output, not where it goes.
 */
#include "lzf.h"

#include <string.h>

#include "lzf_internal.h"
#include "variants.h"

h5fast_status h5fast_lzf_exact(lzf_state *s, size_t goal)
{
    const uint8_t *in = s->in;
    uint8_t *out = s->out;
    while (s->o < goal) {
        size_t left = s->in_len - s->i, room = s->capacity - s->o;
        if (left == 0)
            return H5FAST_SHORT;
        unsigned control = lzf_fetch(in + s->i);
        if (control < 32) {
            size_t len = control + 1;
            if (len >= left || len > room)
                return H5FAST_CORRUPT;
            memcpy(out + s->o, in + s->i + 1, len);
            s->i += len + 1;
            s->o += len;
            continue;
        }
        size_t used = control >= 224 ? 3 : 2;
        if (used > left)
            return H5FAST_CORRUPT;
        size_t len = (control >> 5) + 2 + (used == 3 ? lzf_fetch(in + s->i + 1) : 0u);
        size_t distance = ((control & 31) << 8 | lzf_fetch(in + s->i + used - 1)) + 1;
        if (distance > s->o || len > room)
            return H5FAST_CORRUPT;
        for (size_t z = 0; z < len; z++)
            out[s->o + z] = out[s->o + z - distance];
        s->i += used;
        s->o += len;
    }
    return H5FAST_OK;
}

h5fast_status h5fast_lzf_finish(lzf_state *s, size_t need, size_t *produced, size_t *consumed)
{
    h5fast_status status = h5fast_lzf_exact(s, need);
    *produced = s->o;
    *consumed = s->i;
    return status;
}

/* Room that decode_wide keeps ahead: the longest instruction (264 bytes of output, 33 of input) and 8 bytes more. */
enum { WIDE_OUT = 264 + 8, WIDE_IN = 33 + 8 };

/* Keeps the compiler from turning the selection by mask below back into a branch (1.2 instead of 1.6 times liblzf). */
static inline size_t opaque(size_t x)
{
#if defined(__GNUC__)
    __asm__("" : "+r"(x));
#endif
    return x;
}

/* A match from 1..7 bytes back, byte by byte; the first four unasked (most are of three or four), so up to one byte
 * too many is written. */
static inline void copy_near(uint8_t *to, size_t distance, size_t len)
{
    const uint8_t *from = to - distance;
    to[0] = from[0];
    to[1] = from[1];
    to[2] = from[2];
    to[3] = from[3];
    for (size_t z = 4; z < len; z++)
        to[z] = from[z];
}

/* For CPUs without a decoder of their own: as h5fast_lzf_exact, but 8 bytes at a time while there is room to
 * overshoot, and without a branch between literal runs and matches. */
static void decode_wide(lzf_state *s, size_t need)
{
    const uint8_t *in = s->in;
    uint8_t *out = s->out;
    size_t i = s->i, o = s->o;
    while (s->in_len - i >= WIDE_IN && o + WIDE_OUT <= need) {
        unsigned control = lzf_fetch(in + i), low = lzf_fetch(in + i + 1);
        size_t used = 2, len = (control >> 5) + 2;
        if (control >= 224) {
            used = 3;
            len = low + 9;
            low = lzf_fetch(in + i + 2);
        }
        size_t if_literal = opaque(control < 32 ? SIZE_MAX : 0);
        size_t distance = (((control & 31) << 8 | low) + 1) & ~if_literal; /* 0: literal run */
        len = (len & ~if_literal) | ((control + 1) & if_literal);
        used += control & if_literal;
        if (distance > o)
            break;
        if (distance - 1 < 7) {
            copy_near(out + o, distance, len);
        } else {
            uintptr_t match = (uintptr_t)(out + o - distance), literal = (uintptr_t)(in + i + 1);
            const uint8_t *from = (const uint8_t *)((match & ~if_literal) | (literal & if_literal));
            for (size_t z = 0; z < len; z += 8)
                memcpy(out + o + z, from + z, 8);
        }
        i += used;
        o += len;
    }
    s->i = i;
    s->o = o;
}

static h5fast_status lzf_portable(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                                  size_t *produced, size_t *consumed)
{
    lzf_state s = {in, in_len, out, capacity, 0, 0};
    decode_wide(&s, need);
    return h5fast_lzf_finish(&s, need, produced, consumed);
}

size_t h5fast_lzf_variants(h5fast_lzf_variant list[H5FAST_MAX_VARIANTS])
{
    size_t count = 0;
    list[count++] = (h5fast_lzf_variant){"portable", lzf_portable};
#ifdef H5FAST_LZF_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
        list[count++] = (h5fast_lzf_variant){"avx2", h5fast_lzf_avx2};
        if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl"))
            list[count++] = (h5fast_lzf_variant){"vbmi", h5fast_lzf_vbmi};
    }
#endif
    return count;
}

/* The CPU is asked on every call: that is a load and a test of what libgcc found out at start, and no state of ours. */
h5fast_status h5fast_lzf_decode(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                                size_t *produced, size_t *consumed)
{
    h5fast_lzf_variant list[H5FAST_MAX_VARIANTS];
    size_t count = h5fast_lzf_variants(list);
    return list[count - 1].decode(in, in_len, out, need, capacity, produced, consumed);
}
