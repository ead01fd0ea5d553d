/* A static mutex that a forked child finds unlocked: it is held across fork(), so that no other thread can be inside. */
#ifndef H5FAST_LOCKS_H
#define H5FAST_LOCKS_H

#include <pthread.h>

/* Defines `name` and lock_name(); `in_child` runs in the child after fork, with the lock held. */
#define H5FAST_FORK_SAFE_LOCK(name, in_child)                                                                          \
    static pthread_mutex_t name = PTHREAD_MUTEX_INITIALIZER;                                                           \
    static pthread_once_t name##_once = PTHREAD_ONCE_INIT;                                                             \
    static void name##_before(void) { pthread_mutex_lock(&name); }                                                     \
    static void name##_parent(void) { pthread_mutex_unlock(&name); }                                                   \
    static void name##_child(void)                                                                                     \
    {                                                                                                                  \
        in_child;                                                                                                      \
        pthread_mutex_unlock(&name);                                                                                   \
    }                                                                                                                  \
    static void name##_install(void) { pthread_atfork(name##_before, name##_parent, name##_child); }                   \
    static void lock_##name(void)                                                                                      \
    {                                                                                                                  \
        pthread_once(&name##_once, name##_install);                                                                    \
        pthread_mutex_lock(&name);                                                                                     \
    }

#endif
