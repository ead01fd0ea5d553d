/* For the C tests: memory that ends, or begins, exactly where touching it is fatal; a random source; a check that stays
 * in every build. */
#ifndef H5FAST_TEST_GUARD_H
#define H5FAST_TEST_GUARD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                           \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* `size` usable bytes with an inaccessible page on either side. */
typedef struct {
    uint8_t *start;
    size_t size;
} guarded;

static inline guarded guarded_memory(size_t at_least)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (at_least + page) / page * page;
    uint8_t *all = mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED, "mmap");
    CHECK(mprotect(all + page, size, PROT_READ | PROT_WRITE) == 0, "mprotect");
    return (guarded){all + page, size};
}

enum { AT_START, AT_END, PLACES };

/* Where a buffer of len bytes lies that has the guard right in front of it (AT_START) or right behind it (AT_END). */
static inline uint8_t *guarded_place(guarded g, size_t len, int place)
{
    CHECK(len <= g.size, "%zu of %zu", len, g.size);
    return place == AT_START ? g.start : g.start + g.size - len;
}

/* xorshift64*: the same numbers on every run. */
static uint64_t random_state = 88172645463325252u;

static inline uint32_t random32(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 2685821657736338717u) >> 32);
}

static inline size_t random_below(size_t limit) { return random32() % limit; }

#endif
