/* unary.cu - y = f(x) and the gradients that need x or y and dy: 8 or 12 bytes an element, by packs
 * (map.cuh). Bitwise the loops of unary.c. y may be x's memory. */
#include "kernels/elementwise/expressions.h"
#include "kernels/elementwise/map.cuh"

static tp_unary_attr attr_of(const tp_call *c)
{
    const tp_unary_attr none = {0.0, 0.0};
    return c->attr != nullptr ? *static_cast<const tp_unary_attr *>(c->attr) : none;
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
        return tp_map_stored<1>(c, f);                                                                       \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_stored, name##_run, nullptr, 0};                     \
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
        return tp_map_stored<2>(c, f);                                                                       \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_stored, name##_run, nullptr, 0};                     \
    TP_CUDA_IMPLS(name, &name##_own);
TP_UNARY_GRAD_OPS(UNARY_GRAD)
