/* parallel.h - one way to use several threads: a static split of [0, n) into contiguous pieces (OpenMP).
 * Results never depend on the number of threads, because a piece writes only its own outputs. */
#ifndef TP_CORE_PARALLEL_H
#define TP_CORE_PARALLEL_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of threads used from now on: n >= 1; 0 = one for each core this process may run on. */
void tp_threads_set(int n);
int tp_threads(void);

/* Calls body(ctx, begin, end) on pieces of [0, n). A piece has at least `grain` items, so small work stays on
 * the calling thread. Does not allocate. */
void tp_parallel(int64_t n, int64_t grain, void (*body)(void *ctx, int64_t begin, int64_t end), void *ctx);

#ifdef __cplusplus
}
#endif
#endif
