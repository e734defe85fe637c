/* random.cu - uniform and normal numbers, and dropout, from Philox: a thread draws four numbers for the four
 * elements it writes. The same numbers as random.c; normals in double, as there. */
#include "host/core/rng.h"
#include "kernels/cuda.cuh"
#include "kernels/random/normal.h"

__device__ static tp_rng4 draw(const uint64_t *counter, uint32_t stream, int64_t block)
{
    return tp_rng_draw(counter[0], TP_RNG_OP + stream, (uint64_t)block, counter[1]);
}

__global__ void random_uniform_blocks(float *y, const uint64_t *counter, uint32_t stream, int64_t n,
                                      double lo, double hi)
{
    TP_GRID_LOOP (b, (n + 3) / 4) {
        const tp_rng4 r = draw(counter, stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            y[4 * b + k] = (float)(lo + (hi - lo) * (double)tp_rng_uniform(r.v[k]));
    }
}

__global__ void random_normal_blocks(float *y, const uint64_t *counter, uint32_t stream, int64_t n,
                                     double mean, double std)
{
    TP_GRID_LOOP (b, (n + 3) / 4) {
        const tp_rng4 r = draw(counter, stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            y[4 * b + k] = (float)(mean + std * tp_normal(&r, k));
    }
}

/* Kept when the 32 random bits reach limit. y may be x's memory. */
__global__ void dropout_blocks(float *y, const float *x, const uint64_t *counter, uint32_t stream, int64_t n,
                               uint32_t limit, float scale)
{
    TP_GRID_LOOP (b, (n + 3) / 4) {
        const tp_rng4 r = draw(counter, stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            y[4 * b + k] = r.v[k] >= limit ? x[4 * b + k] * scale : 0.0f;
    }
}

static tp_status random_uniform_run(const tp_call *c)
{
    const tp_random_attr *a = static_cast<const tp_random_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(random_uniform_blocks, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c, tp_out_f32(c, 0),
              static_cast<const uint64_t *>(c->in[0].data), a->stream, n, a->a, a->b);
    return TP_OK;
}

static tp_status random_normal_run(const tp_call *c)
{
    const tp_random_attr *a = static_cast<const tp_random_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(random_normal_blocks, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c, tp_out_f32(c, 0),
              static_cast<const uint64_t *>(c->in[0].data), a->stream, n, a->a, a->b);
    return TP_OK;
}

static tp_status dropout_run(const tp_call *c)
{
    const tp_dropout_attr *a = static_cast<const tp_dropout_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(dropout_blocks, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), static_cast<const uint64_t *>(c->in[1].data), a->stream, n,
              tp_dropout_limit(a->rate), (float)(1.0 / (1.0 - a->rate)));
    return TP_OK;
}

static const tp_impl random_uniform_own = {"own", tp_accept_f32, random_uniform_run, nullptr, 0};
static const tp_impl random_normal_own = {"own", tp_accept_f32, random_normal_run, nullptr, 0};
static const tp_impl dropout_own = {"own", tp_accept_f32, dropout_run, nullptr, 0};
TP_CUDA_IMPLS(random_uniform, &random_uniform_own);
TP_CUDA_IMPLS(random_normal, &random_normal_own);
TP_CUDA_IMPLS(dropout, &dropout_own);
