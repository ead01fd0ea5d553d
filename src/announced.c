#include "announced.h"

enum { BLOSC = 32001, LZ4 = 32004, BITSHUFFLE = 32008, ZSTD = 32015 };

static uint64_t big_endian(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | in[i];
    return value;
}

static uint64_t little_endian(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | in[i];
    return value;
}

/* Total size, block size, then each block behind its stored size. The plugin follows these blindly: with a block size of
 * zero for ever, with a large one out of its input. */
static int lz4_is_sound(const uint8_t *in, size_t len, size_t most)
{
    if (len < 12)
        return 0;
    uint64_t left = big_endian(in, 8), block = big_endian(in + 8, 4);
    if (left > most || (left > 0 && block == 0))
        return 0;
    size_t place = 12;
    while (left > 0) {
        if (len - place < 4)
            return 0;
        uint64_t stored = big_endian(in + place, 4);
        place += 4;
        if (stored > len - place)
            return 0;
        place += stored;
        left -= block < left ? block : left;
    }
    return 1;
}

/* Compressed blocks (cd_values[4]) follow the total size and the block size; without, the chunk is as large as its bytes.
 * cd_values[2] is the element size, which the plugin divides by. */
static int bitshuffle_is_sound(const h5fast_filter *filter, const uint8_t *in, size_t len, size_t most)
{
    if (filter->cd_nelmts > 2 && filter->cd_values[2] == 0)
        return 0;
    if (filter->cd_nelmts < 5 || filter->cd_values[4] == 0)
        return 1;
    return len >= 12 && big_endian(in, 8) <= most;
}

/* Bytes 4 to 7 are the size, 12 to 15 the stored size, which the plugin takes for the length of its input. */
static int blosc_is_sound(const uint8_t *in, size_t len, size_t most)
{
    return len >= 16 && little_endian(in + 4, 4) <= most && little_endian(in + 12, 4) <= len;
}

/* RFC 8878, 3.1.1.1: magic number, descriptor, window byte unless single segment, dictionary id, content size. Frames
 * without a content size, and all that is no frame, the plugin refuses itself. */
static int zstd_is_sound(const uint8_t *in, size_t len, size_t most)
{
    static const int id_bytes[4] = {0, 1, 2, 4};
    if (len < 5 || little_endian(in, 4) != 0xFD2FB528u)
        return 1;
    int descriptor = in[4], single = descriptor >> 5 & 1, flag = descriptor >> 6;
    int bytes = flag > 0 ? 1 << flag : single;
    size_t place = 5 + (size_t)!single + (size_t)id_bytes[descriptor & 3];
    if (bytes == 0 || len < place + (size_t)bytes)
        return 1;
    return little_endian(in + place, bytes) + (bytes == 2 ? 256 : 0) <= most;
}

int h5fast_announces_sound(const h5fast_filter *filter, const uint8_t *in, size_t len, size_t most)
{
    switch (filter->id) {
    case BLOSC:
        return blosc_is_sound(in, len, most);
    case LZ4:
        return lz4_is_sound(in, len, most);
    case BITSHUFFLE:
        return bitshuffle_is_sound(filter, in, len, most);
    case ZSTD:
        return zstd_is_sound(in, len, most);
    default:
        return 1;
    }
}
