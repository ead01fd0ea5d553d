/* Fletcher-32 (filter 3): the checksum that HDF5 appends to a chunk, four little-endian bytes. */
#ifndef H5FAST_FLETCHER32_H
#define H5FAST_FLETCHER32_H

#include "status.h"

/* The checksum of len bytes, as HDF5 computes it: 16-bit big-endian words, an odd last byte in the high half. */
uint32_t h5fast_fletcher32(const uint8_t *data, size_t len);

/* Checks in[0..in_len), whose last four bytes are the checksum, and sets *payload to in_len - 4.
 * Accepts the byte-swapped value that HDF5 before 1.6.3 wrote. H5FAST_SHORT if in_len < 4, H5FAST_CHECKSUM if wrong. */
h5fast_status h5fast_fletcher32_check(const uint8_t *in, size_t in_len, size_t *payload) H5FAST_CHECKED;

#endif
