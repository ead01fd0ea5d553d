#ifndef H5FAST_CLAIM_H
#define H5FAST_CLAIM_H

#include <stddef.h>
#include <stdint.h>

/* The place of a key in a list in memory that processes share: where it stands, or the first free one, which it takes. Free
 * places hold 0; none is given up again. Any number of processes may call it at once, and all get the same place for the same
 * key. Returns -1 if all places are taken by others. */
static inline ptrdiff_t h5fast_claim(int64_t *places, ptrdiff_t count, int64_t key)
{
    for (ptrdiff_t at = 0; at < count; at++) {
        int64_t found = 0; /* what stands there, if it was not free */
        if (__atomic_compare_exchange_n(&places[at], &found, key, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) || found == key)
            return at;
    }
    return -1;
}

#endif
