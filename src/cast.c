#include "cast.h"

#include <string.h>

/* The compiler must not fuse x * scale + offset into one rounding: the result equals NumPy's two operations (the build
 * passes -ffp-contract=off). */

#define PLAIN(x) (x)
static inline uint8_t swap_u8(uint8_t x) { return x; }
static inline uint16_t swap_u16(uint16_t x) { return (uint16_t)(x >> 8 | x << 8); }
static inline uint32_t swap_u32(uint32_t x) { return __builtin_bswap32(x); }
static inline uint64_t swap_u64(uint64_t x) { return __builtin_bswap64(x); }

/* One element of FROM: loaded as bits (rows need not be aligned), put in native order, reinterpreted. */
#define DEFINE_LOAD(NAME, FROM, BITS, ORDER)                                                                           \
    static inline FROM load_##NAME(const uint8_t *from, uint64_t i)                                                    \
    {                                                                                                                  \
        BITS bits;                                                                                                     \
        FROM value;                                                                                                    \
        memcpy(&bits, from + i * sizeof bits, sizeof bits);                                                            \
        bits = ORDER(bits);                                                                                            \
        memcpy(&value, &bits, sizeof value);                                                                           \
        return value;                                                                                                  \
    }

/* Per tensor: one scale and one offset for the whole row. Leaving out the addition keeps negative zeros, as NumPy's
 * product alone does. */
#define DEFINE_FLAT(NAME, LOAD, TO)                                                                                    \
    static void flat_##NAME(const h5fast_cast *cast, const uint8_t *from, uint8_t *to)                                 \
    {                                                                                                                  \
        TO *out = (TO *)to;                                                                                            \
        const TO *scale = cast->scale, *offset = cast->offset;                                                         \
        uint64_t n = cast->elements;                                                                                   \
        if (scale != NULL && offset != NULL)                                                                           \
            for (uint64_t i = 0; i < n; i++)                                                                           \
                out[i] = (TO)load_##LOAD(from, i) * scale[0] + offset[0];                                              \
        else if (scale != NULL)                                                                                        \
            for (uint64_t i = 0; i < n; i++)                                                                           \
                out[i] = (TO)load_##LOAD(from, i) * scale[0];                                                          \
        else if (offset != NULL)                                                                                       \
            for (uint64_t i = 0; i < n; i++)                                                                           \
                out[i] = (TO)load_##LOAD(from, i) + offset[0];                                                         \
        else                                                                                                           \
            for (uint64_t i = 0; i < n; i++)                                                                           \
                out[i] = (TO)load_##LOAD(from, i);                                                                     \
    }

/* One channel of the row, `channels` elements apart, to a place with its own stride. */
#define DEFINE_CHANNEL(NAME, LOAD, TO)                                                                                 \
    static inline void channel_##NAME(const uint8_t *from, uint64_t c, uint64_t channels, uint64_t pixels, TO *out,    \
                                      uint64_t stride, const TO *scale, const TO *offset)                              \
    {                                                                                                                  \
        if (scale != NULL && offset != NULL)                                                                           \
            for (uint64_t i = 0; i < pixels; i++)                                                                      \
                out[i * stride] = (TO)load_##LOAD(from, i * channels + c) * scale[c] + offset[c];                      \
        else if (scale != NULL)                                                                                        \
            for (uint64_t i = 0; i < pixels; i++)                                                                      \
                out[i * stride] = (TO)load_##LOAD(from, i * channels + c) * scale[c];                                  \
        else if (offset != NULL)                                                                                       \
            for (uint64_t i = 0; i < pixels; i++)                                                                      \
                out[i * stride] = (TO)load_##LOAD(from, i * channels + c) + offset[c];                                 \
        else                                                                                                           \
            for (uint64_t i = 0; i < pixels; i++)                                                                      \
                out[i * stride] = (TO)load_##LOAD(from, i * channels + c);                                             \
    }                                                                                                                  \
    static void channels_##NAME(const h5fast_cast *cast, const uint8_t *from, uint8_t *to)                             \
    {                                                                                                                  \
        uint64_t channels = cast->channels, pixels = cast->elements / channels;                                        \
        for (uint64_t c = 0; c < channels; c++) {                                                                      \
            TO *out = (TO *)to + (cast->channels_first ? c * pixels : c);                                              \
            uint64_t stride = cast->channels_first ? 1 : channels;                                                     \
            if (channels == 3) /* a stride the compiler knows lets it vectorise colour images */                       \
                channel_##NAME(from, c, 3, pixels, out, cast->channels_first ? 1 : 3, cast->scale, cast->offset);      \
            else                                                                                                       \
                channel_##NAME(from, c, channels, pixels, out, stride, cast->scale, cast->offset);                     \
        }                                                                                                              \
    }

#define DEFINE_KERNELS(NAME, FROM, BITS, SWAP)                                                                         \
    DEFINE_LOAD(NAME##_plain, FROM, BITS, PLAIN)                                                                       \
    DEFINE_LOAD(NAME##_swapped, FROM, BITS, SWAP)                                                                      \
    DEFINE_FLAT(NAME##_f32, NAME##_plain, float)                                                                       \
    DEFINE_FLAT(NAME##_f64, NAME##_plain, double)                                                                      \
    DEFINE_FLAT(NAME##_swapped_f32, NAME##_swapped, float)                                                             \
    DEFINE_FLAT(NAME##_swapped_f64, NAME##_swapped, double)                                                            \
    DEFINE_CHANNEL(NAME##_f32, NAME##_plain, float)                                                                    \
    DEFINE_CHANNEL(NAME##_f64, NAME##_plain, double)                                                                   \
    DEFINE_CHANNEL(NAME##_swapped_f32, NAME##_swapped, float)                                                          \
    DEFINE_CHANNEL(NAME##_swapped_f64, NAME##_swapped, double)

DEFINE_KERNELS(i8, int8_t, uint8_t, swap_u8)
DEFINE_KERNELS(u8, uint8_t, uint8_t, swap_u8)
DEFINE_KERNELS(i16, int16_t, uint16_t, swap_u16)
DEFINE_KERNELS(u16, uint16_t, uint16_t, swap_u16)
DEFINE_KERNELS(i32, int32_t, uint32_t, swap_u32)
DEFINE_KERNELS(u32, uint32_t, uint32_t, swap_u32)
DEFINE_KERNELS(i64, int64_t, uint64_t, swap_u64)
DEFINE_KERNELS(u64, uint64_t, uint64_t, swap_u64)
DEFINE_KERNELS(f32, float, uint32_t, swap_u32)
DEFINE_KERNELS(f64, double, uint64_t, swap_u64)

/* [kind][swapped][output is double][per channel] */
#define ROW(NAME)                                                                                                      \
    {{{flat_##NAME##_f32, channels_##NAME##_f32}, {flat_##NAME##_f64, channels_##NAME##_f64}},                         \
     {{flat_##NAME##_swapped_f32, channels_##NAME##_swapped_f32},                                                      \
      {flat_##NAME##_swapped_f64, channels_##NAME##_swapped_f64}}}

static const h5fast_cast_kernel kernels[H5FAST_RAW][2][2][2] = {
    [H5FAST_I8] = ROW(i8),   [H5FAST_U8] = ROW(u8),   [H5FAST_I16] = ROW(i16), [H5FAST_U16] = ROW(u16),
    [H5FAST_I32] = ROW(i32), [H5FAST_U32] = ROW(u32), [H5FAST_I64] = ROW(i64), [H5FAST_U64] = ROW(u64),
    [H5FAST_F32] = ROW(f32), [H5FAST_F64] = ROW(f64),
};

/* NHWC to NCHW for elements of any size, untouched. */
#define DEFINE_TRANSPOSE(SIZE)                                                                                         \
    static void transpose_##SIZE(const h5fast_cast *cast, const uint8_t *from, uint8_t *to)                            \
    {                                                                                                                  \
        uint64_t channels = cast->channels, pixels = cast->elements / channels, size = (SIZE);                         \
        for (uint64_t c = 0; c < channels; c++)                                                                        \
            for (uint64_t i = 0; i < pixels; i++)                                                                      \
                memcpy(to + (c * pixels + i) * size, from + (i * channels + c) * size, size);                          \
    }
#define any cast->itemsize
DEFINE_TRANSPOSE(1)
DEFINE_TRANSPOSE(2)
DEFINE_TRANSPOSE(4)
DEFINE_TRANSPOSE(8)
DEFINE_TRANSPOSE(any)
#undef any

int h5fast_cast_choose(h5fast_cast *cast, h5fast_kind from, int swapped, h5fast_kind to)
{
    if (cast->channels == 0 || cast->elements % cast->channels != 0)
        return 0;
    if (to == H5FAST_RAW) {
        switch (cast->itemsize) {
        case 1: cast->kernel = transpose_1; break;
        case 2: cast->kernel = transpose_2; break;
        case 4: cast->kernel = transpose_4; break;
        case 8: cast->kernel = transpose_8; break;
        default: cast->kernel = transpose_any;
        }
        return cast->scale == NULL && cast->offset == NULL && cast->channels_first;
    }
    if (from >= H5FAST_RAW || (to != H5FAST_F32 && to != H5FAST_F64))
        return 0;
    cast->kernel = kernels[from][swapped != 0][to == H5FAST_F64][cast->channels > 1];
    return 1;
}
