/* unary.cu - y = f(x) and the gradients that need x or y and dy: 8 or 12 bytes an element, four elements a
 * thread and step; a grid loop. Bitwise the loops of unary.c. y may be x's memory. */
#include "kernels/cuda.cuh"
#include "kernels/elementwise/expressions.h"

template <typename F> __global__ void unary_map(float *y, const float *x, int64_t n, F f)
{
    const float4 *x4 = reinterpret_cast<const float4 *>(x);
    float4 *y4 = reinterpret_cast<float4 *>(y);

    TP_GRID_LOOP (i, n / 4) {
        const float4 v = x4[i];
        y4[i] = make_float4(f(v.x), f(v.y), f(v.z), f(v.w));
    }
    TP_GRID_LOOP (i, n % 4)
        y[n / 4 * 4 + i] = f(x[n / 4 * 4 + i]);
}

template <typename F>
__global__ void unary_grad_map(float *dx, const float *x, const float *dy, int64_t n, F f)
{
    const float4 *x4 = reinterpret_cast<const float4 *>(x), *dy4 = reinterpret_cast<const float4 *>(dy);
    float4 *dx4 = reinterpret_cast<float4 *>(dx);

    TP_GRID_LOOP (i, n / 4) {
        const float4 v = x4[i], d = dy4[i];
        dx4[i] = make_float4(f(v.x, d.x), f(v.y, d.y), f(v.z, d.z), f(v.w, d.w));
    }
    TP_GRID_LOOP (i, n % 4)
        dx[n / 4 * 4 + i] = f(x[n / 4 * 4 + i], dy[n / 4 * 4 + i]);
}

static tp_unary_attr attr_of(const tp_call *c)
{
    const tp_unary_attr none = {0.0, 0.0};
    return c->attr != nullptr ? *static_cast<const tp_unary_attr *>(c->attr) : none;
}

/* Several elements a thread: a quarter of the blocks does. */
static unsigned blocks_of(const tp_call *c)
{
    return tp_cuda_blocks(c, (tp_len(&c->out[0]) + 3) / 4);
}

#define UNARY(name, fast, exact)                                                                             \
    struct name##_fn {                                                                                       \
        float a, b;                                                                                          \
        __device__ float operator()(float x) const                                                           \
        {                                                                                                    \
            return (fast);                                                                                   \
        }                                                                                                    \
    };                                                                                                       \
    static tp_status name##_run(const tp_call *c)                                                            \
    {                                                                                                        \
        const tp_unary_attr attr = attr_of(c);                                                               \
        const name##_fn f = {(float)attr.a, (float)attr.b};                                                  \
        TP_LAUNCH(unary_map<name##_fn>, blocks_of(c), TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0),   \
                  tp_len(&c->out[0]), f);                                                                    \
        return TP_OK;                                                                                        \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_f32, name##_run, nullptr, 0};                        \
    TP_CUDA_IMPLS(name, &name##_own);
TP_UNARY_OPS(UNARY)

#define UNARY_GRAD(name, fast, exact)                                                                        \
    struct name##_fn {                                                                                       \
        float a, b;                                                                                          \
        __device__ float operator()(float x, float dy) const                                                 \
        {                                                                                                    \
            return (fast);                                                                                   \
        }                                                                                                    \
    };                                                                                                       \
    static tp_status name##_run(const tp_call *c)                                                            \
    {                                                                                                        \
        const tp_unary_attr attr = attr_of(c);                                                               \
        const name##_fn f = {(float)attr.a, (float)attr.b};                                                  \
        TP_LAUNCH(unary_grad_map<name##_fn>, blocks_of(c), TP_THREADS, 0, c, tp_out_f32(c, 0),               \
                  tp_in_f32(c, 0), tp_in_f32(c, 1), tp_len(&c->out[0]), f);                                  \
        return TP_OK;                                                                                        \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_f32, name##_run, nullptr, 0};                        \
    TP_CUDA_IMPLS(name, &name##_own);
TP_UNARY_GRAD_OPS(UNARY_GRAD)
