/* What the files of the LZF decoder share; nothing else includes it. */
#ifndef H5FAST_LZF_INTERNAL_H
#define H5FAST_LZF_INTERNAL_H

#include "lzf.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define H5FAST_LZF_X86 1
#endif

/* How far decoding has come. Invariant: i <= in_len, o <= capacity, out[0..o) is valid, in[i] starts an instruction. */
typedef struct {
    const uint8_t *in;
    size_t in_len;
    uint8_t *out;
    size_t capacity;
    size_t i, o;
} lzf_state;

/* One byte of an instruction, fetched exactly once: the compiler may not go back to memory after it was checked. */
static inline unsigned lzf_fetch(const uint8_t *at) { return *(const volatile uint8_t *)at; }

/* Decodes until at least `goal` bytes are out (H5FAST_OK) or the input ends (H5FAST_SHORT); at H5FAST_CORRUPT it stands
 * in front of the bad instruction. */
h5fast_status h5fast_lzf_exact(lzf_state *s, size_t goal) H5FAST_CHECKED;

/* Runs h5fast_lzf_exact to the end and reports. Every variant ends with it, so all agree on errors and the end. */
h5fast_status h5fast_lzf_finish(lzf_state *s, size_t need, size_t *produced, size_t *consumed) H5FAST_CHECKED;

#ifdef H5FAST_LZF_X86
/* As h5fast_lzf_decode, for CPUs with AVX2 and BMI2, and for those that have AVX-512 VBMI, BW and VL as well. */
h5fast_status h5fast_lzf_avx2(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                              size_t *produced, size_t *consumed) H5FAST_CHECKED;
h5fast_status h5fast_lzf_vbmi(const uint8_t *in, size_t in_len, uint8_t *out, size_t need, size_t capacity,
                              size_t *produced, size_t *consumed) H5FAST_CHECKED;
#endif

#endif
