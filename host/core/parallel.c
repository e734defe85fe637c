#include "host/core/parallel.h"
#include <omp.h>

void tp_threads_set(int n)
{
    omp_set_dynamic(0);
    omp_set_num_threads(n > 0 ? n : omp_get_num_procs());
}

int tp_threads(void)
{
    return omp_get_max_threads();
}

void tp_parallel(int64_t n, int64_t grain, void (*body)(void *ctx, int64_t begin, int64_t end), void *ctx)
{
    int64_t pieces = grain > 0 ? n / grain : n;
    const int threads = tp_threads();

    if (pieces > threads)
        pieces = threads;
    if (pieces <= 1) {
        if (n > 0)
            body(ctx, 0, n);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads((int)pieces)
    for (int64_t i = 0; i < pieces; i++)
        body(ctx, n * i / pieces, n * (i + 1) / pieces);
}
