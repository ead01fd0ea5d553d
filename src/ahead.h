/* Reading ahead: the disk and the caches are told what comes next while a thread is busy with what is there.
 *
 * Hints only: they change no bytes and report nothing. Both take a worker as the pattern for one of their own, which they
 * point at other jobs, and leave it alone; the thread that calls them is the worker's. No pointer may be NULL.
 */
#ifndef H5FAST_AHEAD_H
#define H5FAST_AHEAD_H

#include "worker.h"

/* The first thread that meets bytes which are not in memory announces all later reads of the window, so that the disk
 * works on many at once; the others go on meanwhile. Each helping of units is looked at once: `from` is its first. */
void h5fast_advise_window(const h5fast_worker *w, h5fast_window *window, uint64_t from);

/* Rows of a mapped file are scattered over pages that neither the caches nor the TLB know, and hardware prefetchers stop at
 * the end of a page. So the start of each page of a later job is touched while this one is copied. The source must be
 * mapped, and the storage unfiltered. */
void h5fast_prefetch_job(const h5fast_worker *w, const h5fast_job *job);

#endif
