/* cast.cu - float32 to bfloat16 and back: 6 bytes an element, four elements a thread and step. */
#include "kernels/elementwise/cast.cuh"
#include "kernels/pack.cuh"

#define EACH 4 /* elements */

template <typename To, typename From> __global__ void cast_stored(To *y, const From *x, int64_t n)
{
    TP_GRID_LOOP (i, n / EACH)
        tp_store_pack(y + i * EACH, tp_load_pack<EACH>(x + i * EACH));
    TP_GRID_LOOP (i, n % EACH)
        tp_store(y, n / EACH * EACH + i, tp_load(x, n / EACH * EACH + i));
}

template <typename To, typename From> static tp_status cast(const tp_call *c, To *y, const From *x, int64_t n)
{
    TP_LAUNCH((cast_stored<To, From>), tp_cuda_blocks(c, (n + EACH - 1) / EACH), TP_THREADS, 0, c, y, x, n);
    return TP_OK;
}

tp_status tp_cuda_narrow(const tp_call *c, uint16_t *y, const float *x, int64_t n)
{
    return cast(c, y, x, n);
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

    return c->in[0].dtype == TP_BF16 ? cast(c, tp_out_f32(c, 0), tp_in_as<uint16_t>(c, 0), n)
                                     : tp_cuda_narrow(c, tp_out_as<uint16_t>(c, 0), tp_in_f32(c, 0), n);
}

static const tp_impl cast_own = {"own", cast_prepare, cast_run, nullptr, 0};
TP_CUDA_IMPLS(cast, &cast_own);
