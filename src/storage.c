#include "storage.h"

static h5fast_chunk find_sorted(const h5fast_index *index, uint64_t number)
{
    uint64_t low = 0, high = index->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (index->numbers[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < index->count && index->numbers[low] == number)
        return index->chunks[low];
    return (h5fast_chunk){0, 0, 0};
}

/* A contiguous dataset is cut into virtual chunks that are contiguous in the file: extent 1 on the leading axes, some
 * length on one axis, all of the axes behind it. */
static h5fast_chunk cut_contiguous(const h5fast_storage *storage, const h5fast_index *index, const uint64_t *coordinates)
{
    uint64_t first = 0, elements = 1;
    for (int axis = 0; axis < storage->rank; axis++) {
        uint64_t start = coordinates[axis] * storage->chunk[axis];
        uint64_t left = storage->shape[axis] - start;
        first = first * storage->shape[axis] + start;
        elements *= left < storage->chunk[axis] ? left : storage->chunk[axis];
    }
    uint64_t address = index->base + first * storage->itemsize;
    if (address < index->base)
        address = UINT64_MAX; /* a base that cannot be: no file holds this */
    return (h5fast_chunk){address, elements * storage->itemsize, 0};
}

h5fast_chunk h5fast_index_find(const h5fast_storage *storage, const h5fast_index *index, uint64_t number,
                               const uint64_t *coordinates)
{
    if (index->kind == H5FAST_INDEX_CONTIGUOUS)
        return cut_contiguous(storage, index, coordinates);
    if (index->kind == H5FAST_INDEX_SORTED)
        return find_sorted(index, number);
    return number < index->count ? index->chunks[number] : (h5fast_chunk){0, 0, 0};
}
