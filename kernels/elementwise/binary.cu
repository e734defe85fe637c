/* binary.cu - two inputs (three for where), broadcast against each other: 12 or 16 bytes an element where
 * nothing is broadcast. By packs (map.cuh): inputs of one shape straight on, others by the places of their
 * rows. Bitwise the loops of binary.c, pow excepted. y may be the first input's memory. */
#include "kernels/elementwise/expressions.h"
#include "kernels/elementwise/map.cuh"

template <int ARGS, typename F> static tp_status map_any(const tp_call *c, F f)
{
    for (int a = 0; a < ARGS; a++)
        if (!tp_shape_equal(c->in[a].shape, c->out[0].shape))
            return c->in[a].dtype == TP_BF16 ? tp_map_broadcast<uint16_t, ARGS>(c, f)
                                             : tp_map_broadcast<float, ARGS>(c, f);
    return tp_map_stored<ARGS>(c, f);
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
        return map_any<2>(c, name##_fn());                                                                   \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_stored, name##_run, nullptr, 0};                     \
    TP_CUDA_IMPLS(name, &name##_own);
TP_BINARY_OPS(BINARY)

struct where_fn {
    __device__ float operator()(float cond, float a, float b) const
    {
        return cond != 0.0f ? a : b;
    }
};

static tp_status where_run(const tp_call *c)
{
    return map_any<3>(c, where_fn());
}

static const tp_impl where_own = {"own", tp_accept_stored, where_run, nullptr, 0};
TP_CUDA_IMPLS(where, &where_own);
