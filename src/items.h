/* The items that a loader draws from, and the rows that they are: all rows of the files put end to end, some, or a list. */
#ifndef H5FAST_ITEMS_H
#define H5FAST_ITEMS_H

#include "status.h"

typedef struct {
    uint64_t count;
    uint64_t start, step;      /* item i is row start + i * step, step >= 1, where there is no list */
    const int64_t *rows;       /* or the list: the row of each item; NULL: there is none */
    const int64_t *by_row;     /* of the list: the items, ascending by row; NULL: the list itself ascends */
} h5fast_items;

static inline uint64_t h5fast_items_row(const h5fast_items *items, uint64_t item)
{
    return items->rows != NULL ? (uint64_t)items->rows[item] : items->start + item * items->step;
}

/* Items in order of their rows: the one at a rank, 0 <= rank < count. */
static inline uint64_t h5fast_items_ranked(const h5fast_items *items, uint64_t rank)
{
    return items->by_row != NULL ? (uint64_t)items->by_row[rank] : rank;
}

/* How many items are rows below `row`: the rank of the first that is this row or a later one. */
static inline uint64_t h5fast_items_below(const h5fast_items *items, uint64_t row)
{
    if (items->rows == NULL) {
        uint64_t below = row <= items->start ? 0 : (row - items->start + items->step - 1) / items->step;
        return below < items->count ? below : items->count;
    }
    uint64_t low = 0, high = items->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if ((uint64_t)items->rows[h5fast_items_ranked(items, middle)] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#endif
