/* Copying the part of a chunk that a selection takes into the output: nested strided loops around one contiguous run.
 *
 * Pure functions of what they are given, from any thread; nothing is allocated, and no pointer may be NULL.
 */
#ifndef H5FAST_BOX_H
#define H5FAST_BOX_H

#include "plan.h"

/* The range axes' share of one chunk. Loops are listed from the outermost to the innermost. */
typedef struct {
    int loops;
    uint64_t count[H5FAST_MAX_RANK];
    uint64_t from_stride[H5FAST_MAX_RANK]; /* bytes in the chunk */
    int64_t to_stride[H5FAST_MAX_RANK];    /* bytes in the output */
    uint64_t run;                          /* contiguous bytes moved at a time */
    uint64_t from;                         /* byte of the chunk where the first run starts, for a point at its origin */
    uint64_t extent;                       /* bytes from there to the end of the last run */
    int64_t to;                            /* output offset of the first run, for point 0 */
    int empty;                             /* the selection's step jumps over this chunk */
} h5fast_box;

/* The box of the chunk at these grid coordinates. */
void h5fast_box_make(h5fast_box *box, const h5fast_plan *plan, const uint64_t *coordinates);

/* The part of a box below its outer `depth` loops (at most all of them), for a first run at byte `from` of the chunk and an
 * output that begins with that run. `inner` is another box. */
void h5fast_box_inner(const h5fast_box *box, int depth, uint64_t from, h5fast_box *inner);

/* Copies one point's share. `chunk` is where byte 0 of the chunk lies, moved by the point's own offset. */
void h5fast_box_copy(const h5fast_box *box, const uint8_t *chunk, uint8_t *out);

/* The same with the fill value, for chunks that are not allocated. */
void h5fast_box_fill(const h5fast_box *box, const h5fast_storage *storage, uint8_t *out);

/* Repeats the fill value over `run` bytes, as they stand `from` bytes into a chunk. */
void h5fast_fill_run(const h5fast_storage *storage, uint64_t from, uint64_t run, uint8_t *to);

/* The byte strides of a chunk's axes. */
void h5fast_chunk_strides(const h5fast_storage *storage, uint64_t *strides);

#endif
