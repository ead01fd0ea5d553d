/* What an epoch would decode, without reading anything: the rule of fill.c on numbers alone. */
#ifndef H5FAST_SIMULATE_H
#define H5FAST_SIMULATE_H

#include "schedule.h"

/* Groups that an epoch decodes, where group g has the items [starts[g], starts[g + 1]), all of `groups` together those of the
 * schedules, and `slots` decoded rows can be kept (0: none). schedules: of `epochs` epochs in a row, and of one more; decodes[e]
 * becomes the count of each of them. H5FAST_MEMORY */
h5fast_status h5fast_simulate(const h5fast_schedule *const *schedules, uint64_t epochs, const uint64_t *starts, uint64_t groups,
                              uint64_t slots, uint64_t *decodes) H5FAST_CHECKED;

#endif
