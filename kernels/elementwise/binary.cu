/* binary.cu - two inputs (three for where), broadcast against each other: 12 or 16 bytes an element where
 * nothing is broadcast. A grid loop over the output; inputs of one shape go four elements a thread and step,
 * others find each element by its strides (walk.h). Bitwise the loops of binary.c, pow excepted. */
#include "kernels/cuda.cuh"
#include "kernels/elementwise/expressions.h"
#include "kernels/elementwise/walk.h"

template <typename F> __global__ void binary_map(float *y, const float *a, const float *b, int64_t n, F f)
{
    const float4 *a4 = reinterpret_cast<const float4 *>(a), *b4 = reinterpret_cast<const float4 *>(b);
    float4 *y4 = reinterpret_cast<float4 *>(y);

    TP_GRID_LOOP (i, n / 4) {
        const float4 p = a4[i], q = b4[i];
        y4[i] = make_float4(f(p.x, q.x), f(p.y, q.y), f(p.z, q.z), f(p.w, q.w));
    }
    TP_GRID_LOOP (i, n % 4)
        y[n / 4 * 4 + i] = f(a[n / 4 * 4 + i], b[n / 4 * 4 + i]);
}

template <typename F>
__global__ void binary_broadcast(float *y, const float *a, const float *b, tp_walk w, int64_t n, F f)
{
    TP_GRID_LOOP (i, n) {
        int64_t at[TP_WALK_ARGS];
        tp_walk_offsets(&w, i, at);
        y[i] = f(a[at[0]], b[at[1]]);
    }
}

__global__ void where_broadcast(float *y, const float *cond, const float *a, const float *b, tp_walk w,
                                int64_t n)
{
    TP_GRID_LOOP (i, n) {
        int64_t at[TP_WALK_ARGS];
        tp_walk_offsets(&w, i, at);
        y[i] = cond[at[0]] != 0.0f ? a[at[1]] : b[at[2]];
    }
}

template <typename F> static tp_status binary_run(const tp_call *c, F f)
{
    const int64_t n = tp_len(&c->out[0]);
    tp_walk w;

    if (tp_shape_equal(c->in[0].shape, c->in[1].shape)) {
        TP_LAUNCH(binary_map<F>, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c, tp_out_f32(c, 0),
                  tp_in_f32(c, 0), tp_in_f32(c, 1), n, f);
        return TP_OK;
    }
    tp_walk_init(&w, c);
    TP_LAUNCH(binary_broadcast<F>, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0),
              tp_in_f32(c, 1), w, n, f);
    return TP_OK;
}

#define BINARY(name, fast, exact)                                                                            \
    struct name##_fn {                                                                                       \
        __device__ float operator()(float a, float b) const                                                  \
        {                                                                                                    \
            return (fast);                                                                                   \
        }                                                                                                    \
    };                                                                                                       \
    static tp_status name##_run(const tp_call *c)                                                            \
    {                                                                                                        \
        return binary_run(c, name##_fn());                                                                   \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_f32, name##_run, nullptr, 0};                        \
    TP_CUDA_IMPLS(name, &name##_own);
TP_BINARY_OPS(BINARY)

static tp_status where_run(const tp_call *c)
{
    const int64_t n = tp_len(&c->out[0]);
    tp_walk w;

    tp_walk_init(&w, c);
    TP_LAUNCH(where_broadcast, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0),
              tp_in_f32(c, 1), tp_in_f32(c, 2), w, n);
    return TP_OK;
}

static const tp_impl where_own = {"own", tp_accept_f32, where_run, nullptr, 0};
TP_CUDA_IMPLS(where, &where_own);
