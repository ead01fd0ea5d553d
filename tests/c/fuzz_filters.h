/* For fuzz targets: a filter pipeline taken from an input, with what decodes gzip. */
#ifndef H5FAST_FUZZ_FILTERS_H
#define H5FAST_FUZZ_FILTERS_H

#include "engine.h"
#include "fuzz_input.h"

static inline void take_filters(fuzz_input *in, h5fast_storage *storage)
{
    static const int ids[] = {H5FAST_FILTER_DEFLATE, H5FAST_FILTER_LZF, H5FAST_FILTER_SHUFFLE, H5FAST_FILTER_FLETCHER32, FILTER_XOR};
    static unsigned values[H5FAST_MAX_FILTERS];
    static int has_deflate = -1;
    if (has_deflate < 0)
        has_deflate = find_deflate() != NULL;
    storage->filter_count = (int)take_below(in, 6);
    for (int i = 0; i < storage->filter_count; i++) {
        int id = ids[take_below(in, 5)];
        id = id == H5FAST_FILTER_DEFLATE && !has_deflate ? H5FAST_FILTER_LZF : id;
        values[i] = (unsigned)take(in, 1);
        values[i] = values[i] == 255 ? UINT32_MAX : values[i];
        storage->filters[i] = (h5fast_filter){id, id == FILTER_XOR ? decode_xor : NULL, take_below(in, 8) > 0, &values[i]};
    }
}

#endif
