/* What every C function of h5fast that can fail returns, and where it failed.
 *
 * Workers fill an h5fast_error, the calling thread raises it: only src/_gather.pyx turns a status into an exception.
 */
#ifndef H5FAST_STATUS_H
#define H5FAST_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define H5FAST_CHECKED __attribute__((warn_unused_result))
#else
#define H5FAST_CHECKED
#endif

typedef enum {
    H5FAST_OK = 0,
    H5FAST_CORRUPT,   /* encoded bytes do not decode; error.filter says which filter found out */
    H5FAST_SHORT,     /* decoded cleanly, but to fewer bytes than are needed */
    H5FAST_CHECKSUM,  /* stored and computed checksums differ */
    H5FAST_READ,      /* the operating system refused, error.sys_errno says why */
    H5FAST_TRUNCATED, /* the file ends before the bytes that the index promises */
    H5FAST_CHANGED,   /* the file was written to, or cut, after it was opened */
    H5FAST_MEMORY,    /* an allocation failed */
    H5FAST_CANCELLED  /* stopped on request; the output is incomplete and is thrown away */
} h5fast_status;

#endif
