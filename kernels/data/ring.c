/* ring.c - per-step values in rings on the device (a learning rate in, losses out), and the step counter that
 * says which entry is meant. */
#include "kernels/op.h"

static int64_t step_of(const tp_tensor *counter, int64_t length)
{
    return (int64_t)(((const uint64_t *)counter->data)[1] % (uint64_t)length);
}

static tp_status check_counter(const tp_infer *x, int i)
{
    TP_CHECK(x->dtype[i] == TP_U64 && tp_shape_len(x->shape[i]) == 2, TP_ESHAPE,
             "counter must be uint64 (2)");
    return TP_OK;
}

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

/* ---- ring_read ---- */

static tp_status infer_ring_read(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd == 1 && x->shape[0].d[0] > 0, TP_ESHAPE,
             "ring must be float (L), L > 0");
    TP_TRY(check_counter(x, 1));
    x->out_shape[0] = (tp_shape){1, {1}};
    return TP_OK;
}

static tp_status ring_read_run(const tp_call *c)
{
    tp_set(&c->out[0], 0, tp_get(&c->in[0], step_of(&c->in[1], tp_len(&c->in[0]))));
    return TP_OK;
}

static tp_cost cost_ring_read(const tp_call *c)
{
    (void)c;
    return (tp_cost){.bytes = 24};
}

static const tp_case cases_ring_read[] = {{"1,2:u64", -1.0, 1.0, 1000, NULL, 0, TP_CASE_NO_GRAD},
                                          {"64,2:u64", -1.0, 1.0, 1000, NULL, 0, TP_CASE_NO_GRAD}};
static const tp_impl ring_read_cpu_ref = {"ref", accept_any, ring_read_run, NULL, 0};
const tp_op tp_op_ring_read = {.name = "ring_read",
                               .min_in = 2,
                               .max_in = 2,
                               .n_out = 1,
                               .flags = TP_OP_STOP,
                               .infer = infer_ring_read,
                               .cost = cost_ring_read,
                               .cpu = TP_IMPLS(&ring_read_cpu_ref),
                               .cases = cases_ring_read,
                               .n_cases = TP_COUNT(cases_ring_read)};

tp_val tp_ring_read(tp_graph *g, tp_val ring, tp_val counter)
{
    return tp_graph_add(g, &tp_op_ring_read, 2, (const tp_val[]){ring, counter}, NULL);
}

/* ---- ring_write ---- */

static tp_status infer_ring_write(tp_infer *x)
{
    int64_t n = 0;

    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd == 2 && x->shape[0].d[0] > 0, TP_ESHAPE,
             "ring must be float (L,K), L > 0");
    TP_TRY(check_counter(x, 1));
    for (int i = 2; i < x->n_in; i++) {
        TP_CHECK(x->dtype[i] == x->dtype[0], TP_ESHAPE, "value %d is %s, the ring %s", i - 2,
                 tp_dtype_name(x->dtype[i]), tp_dtype_name(x->dtype[0]));
        n += tp_shape_len(x->shape[i]);
    }
    TP_CHECK(n == x->shape[0].d[1], TP_ESHAPE, "%lld elements for rows of %lld", (long long)n,
             (long long)x->shape[0].d[1]);
    return TP_OK;
}

static tp_status ring_write_run(const tp_call *c)
{
    const tp_shape ring = c->in[0].shape;
    int64_t at = step_of(&c->in[1], ring.d[0]) * ring.d[1];

    for (int i = 2; i < c->n_in; i++)
        for (int64_t k = 0, n = tp_len(&c->in[i]); k < n; k++)
            tp_set(&c->in[0], at++, tp_get(&c->in[i], k));
    return TP_OK;
}

static tp_cost cost_ring_write(const tp_call *c)
{
    return (tp_cost){.bytes = 2.0 * (double)c->in[0].shape.d[1] * (double)tp_dtype_size(c->in[0].dtype) + 16};
}

static const tp_case cases_ring_write[] = {{"5x1,2:u64,()", -1.0, 1.0, 1000, NULL, 0, 0},
                                           {"64x4,2:u64,(),1,2", -1.0, 1.0, 1000, NULL, 0, 0},
                                           {"3x300,2:u64,290,2x5", -1.0, 1.0, 1000, NULL, 0, 0}};
static const tp_impl ring_write_cpu_ref = {"ref", accept_any, ring_write_run, NULL, 0};
const tp_op tp_op_ring_write = {.name = "ring_write",
                                .min_in = 3,
                                .max_in = 2 + TP_MAX_RING,
                                .n_out = 0,
                                .flags = TP_OP_EFFECT,
                                .infer = infer_ring_write,
                                .cost = cost_ring_write,
                                .cpu = TP_IMPLS(&ring_write_cpu_ref),
                                .cases = cases_ring_write,
                                .n_cases = TP_COUNT(cases_ring_write)};

void tp_ring_write(tp_graph *g, tp_val ring, tp_val counter, int n, const tp_val *values)
{
    tp_val in[2 + TP_MAX_RING] = {ring, counter};

    if (n < 1 || n > TP_MAX_RING) {
        if (tp_graph_ok(g))
            (void)tp_graph_fail(g, TP_EINVAL, "ring_write: %d values, want 1 to %d", n, TP_MAX_RING);
        return;
    }
    for (int i = 0; i < n; i++)
        in[2 + i] = values[i];
    (void)tp_graph_add(g, &tp_op_ring_write, 2 + n, in, NULL);
}

/* ---- advance ---- */

static tp_status infer_advance(tp_infer *x)
{
    return check_counter(x, 0);
}

static tp_status advance_run(const tp_call *c)
{
    ((uint64_t *)c->in[0].data)[1]++;
    return TP_OK;
}

static tp_cost cost_advance(const tp_call *c)
{
    (void)c;
    return (tp_cost){.flops = 1, .bytes = 16};
}

static const tp_case cases_advance[] = {{"2:u64", 0, 1, 1000, NULL, 0, 0}};
static const tp_impl advance_cpu_ref = {"ref", accept_any, advance_run, NULL, 0};
const tp_op tp_op_advance = {.name = "advance",
                             .min_in = 1,
                             .max_in = 1,
                             .n_out = 0,
                             .flags = TP_OP_EFFECT,
                             .infer = infer_advance,
                             .cost = cost_advance,
                             .cpu = TP_IMPLS(&advance_cpu_ref),
                             .cases = cases_advance,
                             .n_cases = TP_COUNT(cases_advance)};

void tp_advance(tp_graph *g, tp_val counter)
{
    (void)tp_graph_add(g, &tp_op_advance, 1, &counter, NULL);
}
