/* cast.cu - float32 to bfloat16 and back: 6 bytes an element, four elements a thread and step. */
#include "kernels/cuda.cuh"

__global__ void cast_widen(float *y, const uint16_t *x, int64_t n)
{
    TP_GRID_LOOP (i, n / 4) {
        const uint2 v = reinterpret_cast<const uint2 *>(x)[i];
        reinterpret_cast<float4 *>(y)[i] =
            make_float4(tp_bf16_to_f32((uint16_t)v.x), tp_bf16_to_f32((uint16_t)(v.x >> 16)),
                        tp_bf16_to_f32((uint16_t)v.y), tp_bf16_to_f32((uint16_t)(v.y >> 16)));
    }
    TP_GRID_LOOP (i, n % 4)
        y[n / 4 * 4 + i] = tp_bf16_to_f32(x[n / 4 * 4 + i]);
}

__device__ static uint32_t two(float lower, float upper)
{
    return tp_bf16_from_f32(lower) | (uint32_t)tp_bf16_from_f32(upper) << 16;
}

__global__ void cast_narrow(uint16_t *y, const float *x, int64_t n)
{
    TP_GRID_LOOP (i, n / 4) {
        const float4 v = reinterpret_cast<const float4 *>(x)[i];
        reinterpret_cast<uint2 *>(y)[i] = {two(v.x, v.y), two(v.z, v.w)};
    }
    TP_GRID_LOOP (i, n % 4)
        y[n / 4 * 4 + i] = tp_bf16_from_f32(x[n / 4 * 4 + i]);
}

static tp_status cast_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_stored(c, scratch));
    TP_CHECK(c->in[0].dtype != c->out[0].dtype, TP_EUNSUP, "nothing to cast");
    return TP_OK;
}

static tp_status cast_run(const tp_call *c)
{
    const int64_t n = tp_len(&c->out[0]);

    if (c->in[0].dtype == TP_BF16)
        TP_LAUNCH(cast_widen, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c, tp_out_f32(c, 0),
                  static_cast<const uint16_t *>(c->in[0].data), n);
    else
        TP_LAUNCH(cast_narrow, tp_cuda_blocks(c, (n + 3) / 4), TP_THREADS, 0, c,
                  static_cast<uint16_t *>(c->out[0].data), tp_in_f32(c, 0), n);
    return TP_OK;
}

static const tp_impl cast_own = {"own", cast_prepare, cast_run, nullptr, 0};
TP_CUDA_IMPLS(cast, &cast_own);
