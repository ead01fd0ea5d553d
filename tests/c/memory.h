/* For the C tests of the engine: allocations are counted, and one of them can be made to fail.
 *
 * Needs the linker's --wrap for malloc, calloc, realloc and free, so that the engine's own calls come here; one program
 * includes this in one file.
 */
#ifndef H5FAST_TEST_MEMORY_H
#define H5FAST_TEST_MEMORY_H

#include <stdatomic.h>

#include "engine.h"

static _Atomic long live, allocations;
static _Atomic long refused; /* number of the allocation that fails; 0: none does */

static int refuse(void)
{
    return atomic_fetch_add(&allocations, 1) + 1 == atomic_load(&refused);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *old);

static void *counted(void *made)
{
    atomic_fetch_add(&live, made != NULL);
    return made;
}

void *__wrap_malloc(size_t size) { return refuse() ? NULL : counted(__real_malloc(size)); }
void *__wrap_calloc(size_t count, size_t size) { return refuse() ? NULL : counted(__real_calloc(count, size)); }

void *__wrap_realloc(void *old, size_t size)
{
    if (refuse())
        return NULL;
    void *made = __real_realloc(old, size);
    return old == NULL ? counted(made) : made;
}

void __wrap_free(void *old)
{
    atomic_fetch_sub(&live, old != NULL);
    __real_free(old);
}

static h5fast_inflate_api library; /* as it was found; the engine gets functions that may fail */

static void *alloc_decompressor(void) { return refuse() ? NULL : counted(library.alloc_decompressor()); }

static void free_decompressor(void *old)
{
    atomic_fetch_sub(&live, 1);
    library.free_decompressor(old);
}

static int inflate_init(void *stream, const char *version, int size)
{
    return refuse() ? -4 : library.inflate_init(stream, version, size);
}

static const char *find_failing_deflate(void)
{
    const char *name = find_deflate();
    library = h5fast_inflate;
    h5fast_inflate.inflate_init = inflate_init;
    if (library.alloc_decompressor != NULL) {
        h5fast_inflate.alloc_decompressor = alloc_decompressor;
        h5fast_inflate.free_decompressor = free_decompressor;
    }
    return name;
}

#endif
