/* random.cu - uniform and normal numbers, and dropout, from Philox: a draw gives the four numbers of a pack
 * of 16 bytes. The same numbers as random.c; normals in double, as there. */
#include "host/core/rng.h"
#include "kernels/elementwise/map.cuh"
#include "kernels/random/normal.h"

#define DRAW    4 /* numbers of a draw, elements of a pack */
#define DROPOUT 4 /* packs of a thread: their loads are under way together */

/* What counter holds, read once: y could be its memory for all the compiler knows. */
struct draws {
    uint64_t seed, step;
    uint32_t purpose;
    __device__ draws(const uint64_t *counter, uint32_t stream)
        : seed(counter[0]), step(counter[1]), purpose(TP_RNG_OP + stream)
    {
    }
    __device__ tp_rng4 operator()(int64_t block) const
    {
        return tp_rng_draw(seed, purpose, (uint64_t)block, step);
    }
};

/* Number k of a draw as what is asked for. */
struct uniform_number {
    double lo, range;
    __device__ float operator()(const tp_rng4 &r, int k) const
    {
        return (float)(lo + range * (double)tp_rng_uniform(r.v[k]));
    }
};
struct normal_number {
    double mean, std;
    __device__ float operator()(const tp_rng4 &r, int k) const
    {
        return (float)(mean + std * tp_normal(&r, k));
    }
};

template <typename F>
__global__ void random_packs(float *y, const uint64_t *counter, uint32_t stream, int64_t n, F number)
{
    const draws draw(counter, stream);

    TP_GRID_LOOP (b, (n + DRAW - 1) / DRAW) {
        const tp_rng4 r = draw(b);
        tp_pack<float, DRAW> v;
        for (int k = 0; k < DRAW; k++)
            v.v[k] = number(r, k);
        if (b < n / DRAW)
            tp_store_pack(y + b * DRAW, v);
        else
            for (int k = 0; k < DRAW; k++)
                if (k < n % DRAW)
                    y[b * DRAW + k] = v.v[k];
    }
}

/* Kept when the 32 random bits reach limit. y may be x's memory. */
template <int UNROLL, typename T>
__global__ void dropout_packs(T *y, const T *x, const uint64_t *counter, uint32_t stream, int64_t n,
                              uint32_t limit, float scale)
{
    const int64_t first = (int64_t)blockIdx.x * (UNROLL * TP_THREADS) + threadIdx.x;
    const draws draw(counter, stream);
    tp_pack<float, DRAW> v[UNROLL];

    for (int u = 0; u < UNROLL; u++)
        if (first + u * TP_THREADS < n / DRAW)
            v[u] = tp_load_pack<DRAW>(x + (first + u * TP_THREADS) * DRAW);
    for (int u = 0; u < UNROLL; u++)
        if (first + u * TP_THREADS < n / DRAW) {
            const tp_rng4 r = draw(first + u * TP_THREADS);
            for (int k = 0; k < DRAW; k++)
                v[u].v[k] = r.v[k] >= limit ? v[u].v[k] * scale : 0.0f;
            tp_store_pack(y + (first + u * TP_THREADS) * DRAW, v[u]);
        }
    if (first == 0) {
        const tp_rng4 r = draw(n / DRAW);
        for (int k = 0; k < DRAW; k++)
            if (k < n % DRAW)
                tp_store(y, n / DRAW * DRAW + k,
                         r.v[k] >= limit ? tp_load(x, n / DRAW * DRAW + k) * scale : 0.0f);
    }
}

template <typename F> static tp_status random_run(const tp_call *c, F number)
{
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(random_packs<F>, tp_cuda_blocks(c, (n + DRAW - 1) / DRAW), TP_THREADS, 0, c, tp_out_f32(c, 0),
              static_cast<const uint64_t *>(c->in[0].data),
              static_cast<const tp_random_attr *>(c->attr)->stream, n, number);
    return TP_OK;
}

static tp_status random_uniform_run(const tp_call *c)
{
    const tp_random_attr *a = static_cast<const tp_random_attr *>(c->attr);
    return random_run(c, uniform_number{a->a, a->b - a->a});
}

static tp_status random_normal_run(const tp_call *c)
{
    const tp_random_attr *a = static_cast<const tp_random_attr *>(c->attr);
    return random_run(c, normal_number{a->a, a->b});
}

template <int UNROLL> static tp_status dropout_launch(const tp_call *c)
{
    const tp_dropout_attr *a = static_cast<const tp_dropout_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH((dropout_packs<UNROLL, float>), tp_tiles(n / DRAW, UNROLL * TP_THREADS), TP_THREADS, 0, c,
              tp_out_f32(c, 0), tp_in_f32(c, 0), static_cast<const uint64_t *>(c->in[1].data), a->stream, n,
              tp_dropout_limit(a->rate), (float)(1.0 / (1.0 - a->rate)));
    return TP_OK;
}

static tp_status dropout_run(const tp_call *c)
{
    return tp_map_is_small(c, tp_len(&c->out[0]) / DRAW) ? dropout_launch<1>(c) : dropout_launch<DROPOUT>(c);
}

static const tp_impl random_uniform_own = {"own", tp_accept_f32, random_uniform_run, nullptr, 0};
static const tp_impl random_normal_own = {"own", tp_accept_f32, random_normal_run, nullptr, 0};
static const tp_impl dropout_own = {"own", tp_accept_f32, dropout_run, nullptr, 0};
TP_CUDA_IMPLS(random_uniform, &random_uniform_own);
TP_CUDA_IMPLS(random_normal, &random_normal_own);
TP_CUDA_IMPLS(dropout, &dropout_own);
