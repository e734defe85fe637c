#include "kernels/op.h"

int tp_is_float(tp_dtype dtype)
{
    return dtype == TP_F32 || dtype == TP_F64 || dtype == TP_BF16;
}

int tp_is_int(tp_dtype dtype)
{
    return dtype >= TP_I8 && dtype <= TP_U64;
}

tp_status tp_accept_float(tp_call *c, size_t *scratch)
{
    (void)c;
    (void)scratch;
    return TP_OK;
}

static tp_status only_f32(const tp_tensor *t, int n)
{
    for (int i = 0; i < n; i++)
        TP_CHECK(!tp_is_float(t[i].dtype) || t[i].dtype == TP_F32, TP_EUNSUP, "dtype %s, want float32",
                 tp_dtype_name(t[i].dtype));
    return TP_OK;
}

tp_status tp_accept_f32(tp_call *c, size_t *scratch)
{
    (void)scratch;
    TP_TRY(only_f32(c->in, c->n_in));
    return only_f32(c->out, c->n_out);
}

tp_status tp_accept_stored(tp_call *c, size_t *scratch)
{
    (void)scratch;
    for (int i = 0; i < c->n_in; i++)
        TP_CHECK(c->in[i].dtype != TP_F64, TP_EUNSUP, "dtype float64, want float32 or bfloat16");
    return TP_OK;
}

tp_dtype tp_sums_dtype(tp_dtype dtype)
{
    return dtype == TP_BF16 ? TP_F32 : dtype;
}

tp_cost tp_cost_stream(const tp_call *c)
{
    tp_cost cost = {0};
    for (int i = 0; i < c->n_in; i++)
        cost.bytes += (double)tp_tensor_bytes(&c->in[i]);
    for (int i = 0; i < c->n_out; i++) {
        cost.bytes += (double)tp_tensor_bytes(&c->out[i]);
        cost.flops += (double)tp_len(&c->out[i]);
    }
    return cost;
}
