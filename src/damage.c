#include "filler.h"

#include <stdlib.h>
#include <string.h>

/* Where a group stands, or would stand, in the ascending list of those that do not decode. */
static uint64_t place_of(const h5fast_damage *damage, uint64_t group)
{
    uint64_t low = 0, high = damage->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (damage->groups[middle] < group)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int is_noted(const h5fast_damage *damage, uint64_t group)
{
    uint64_t place = place_of(damage, group);
    return place < damage->count && damage->groups[place] == group;
}

void h5fast_damage_leave_out(h5fast_filler *f, uint32_t number)
{
    const h5fast_field *field = f->given.fields[number];
    const h5fast_damage *damage = &f->damage[number];
    if (damage->count == 0)
        return;
    for (uint64_t i = 0; i < f->count; i++)
        if (f->is_missing[i] && is_noted(damage, h5fast_group_of(field, f->rows[i]))) {
            f->is_missing[i] = 0;
            f->is_damaged[i] = 1;
        }
}

static uint64_t failed_group(const h5fast_part *part, uint64_t chunk)
{
    uint64_t across = 1;
    for (int axis = 1; axis < part->storage->rank; axis++)
        across *= part->storage->grid[axis];
    return chunk / across - part->offset / part->group_rows + part->first_group;
}

int h5fast_damage_note(h5fast_filler *f, uint32_t number, h5fast_status status)
{
    if (!f->given.skip_damaged || (status != H5FAST_CORRUPT && status != H5FAST_SHORT && status != H5FAST_CHECKSUM))
        return 0;
    h5fast_damage *damage = &f->damage[number];
    uint64_t group = failed_group(&f->given.fields[number]->parts[f->error->part], f->error->what.number);
    if (is_noted(damage, group)) /* it was not to be read again */
        return 0;
    uint64_t *grown = realloc(damage->groups, (damage->count + 1) * sizeof *grown);
    if (grown == NULL)
        return 0;
    damage->groups = grown;
    uint64_t place = place_of(damage, group);
    memmove(grown + place + 1, grown + place, (damage->count++ - place) * sizeof *grown);
    grown[place] = group;
    f->error->what.status = H5FAST_OK;
    return 1;
}

uint64_t h5fast_damage_close_gaps(h5fast_filler *f, uint8_t *const *outs)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < f->count; i++) {
        if (f->is_damaged[i])
            continue;
        for (uint32_t n = 0; n < f->given.field_count && kept != i; n++) {
            uint64_t size = f->given.fields[n]->out_bytes;
            memcpy(outs[n] + kept * size, outs[n] + i * size, size);
        }
        f->items[kept++] = f->items[i];
    }
    return kept;
}
