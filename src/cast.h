/* Casting, scaling and transposing one row on its way to the output: out = (T)x * scale + offset, NHWC to NCHW. */
#ifndef H5FAST_CAST_H
#define H5FAST_CAST_H

#include "status.h"

typedef enum {
    H5FAST_I8, H5FAST_U8, H5FAST_I16, H5FAST_U16, H5FAST_I32, H5FAST_U32, H5FAST_I64, H5FAST_U64,
    H5FAST_F32, H5FAST_F64,
    H5FAST_RAW /* no arithmetic: elements are moved as they are */
} h5fast_kind;

typedef struct h5fast_cast h5fast_cast;
typedef void (*h5fast_cast_kernel)(const h5fast_cast *cast, const uint8_t *from, uint8_t *to);

struct h5fast_cast {
    uint64_t elements;  /* in a row */
    uint64_t channels;  /* length of the last axis, which scale and offset run along; divides elements */
    uint64_t itemsize;  /* of an element of the file, for H5FAST_RAW */
    int channels_first; /* the last axis becomes the first of the row */
    const void *scale;  /* `channels` values of the output type, or NULL */
    const void *offset; /* likewise */
    h5fast_cast_kernel kernel;
};

/* Sets cast->kernel for elements of kind `from`, byte-swapped or not, and output H5FAST_F32, H5FAST_F64 or, for
 * H5FAST_RAW, the element itself. 0 where there is no such kernel. */
int h5fast_cast_choose(h5fast_cast *cast, h5fast_kind from, int swapped, h5fast_kind to) H5FAST_CHECKED;

#endif
