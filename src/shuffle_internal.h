/* What both directions of the shuffle are made of; nothing else includes it. */
#ifndef H5FAST_SHUFFLE_INTERNAL_H
#define H5FAST_SHUFFLE_INTERNAL_H

#include <stdint.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* g is a constant wherever these loops are inlined. gcc keeps v in memory unless it is told to unroll them completely
 * (size 8: 11 instead of 42 GB/s); clang does it unasked, and told to, does worse. */
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

#if defined(__GNUC__)

/* Sixteen bytes; on x86-64 and aarch64 each interleaving below is one instruction. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));

#if defined(__clang__)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (bytes16){__VA_ARGS__})
#endif

INLINE bytes16 low_halves(bytes16 a, bytes16 b)
{
    return INTERLEAVE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

INLINE bytes16 high_halves(bytes16 a, bytes16 b)
{
    return INTERLEAVE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

#endif /* __GNUC__ */

#endif
