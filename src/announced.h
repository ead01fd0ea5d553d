/* What an encoded chunk announces, looked at before a plugin believes it.
 *
 * Plugins allocate whatever size the first bytes claim, and some walk their input by lengths that lie in it, without
 * knowing where it ends. */
#ifndef H5FAST_ANNOUNCED_H
#define H5FAST_ANNOUNCED_H

#include "storage.h"

/* Whether the plugin of `filter` may be given these bytes: the size they announce is at most `most`, and the lengths that
 * its own code would follow stay inside them. True for filters and bytes whose plugin does its own checks, and for all that
 * an encoder wrote. Reads nothing beyond in[len - 1]; any bytes are allowed. */
int h5fast_announces_sound(const h5fast_filter *filter, const uint8_t *in, size_t len, size_t most);

#endif
