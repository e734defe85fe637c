/* clock.h - the time since some moment, in seconds, which never goes back. */
#ifndef TP_CORE_CLOCK_H
#define TP_CORE_CLOCK_H
#include <time.h>

static inline double tp_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
