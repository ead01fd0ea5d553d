/* Writing at an offset, and asking for what was written to be on its way to the disk. */
#ifndef H5FAST_BACKING_H
#define H5FAST_BACKING_H

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

static inline int64_t h5fast_pwrite(int descriptor, const void *data, size_t count, int64_t offset)
{
    return pwrite(descriptor, data, count, offset);
}

/* Begins to write these bytes to the disk, where the system can be asked to; waits for nothing, promises nothing. */
static inline int h5fast_write_back(int descriptor, int64_t offset, int64_t count)
{
#ifdef SYNC_FILE_RANGE_WRITE
    return sync_file_range(descriptor, offset, count, SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor, (void)offset, (void)count;
    return 0;
#endif
}

#endif
