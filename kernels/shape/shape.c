/* shape.c - ops that move elements and compute nothing: reshape and detach are views; expand, transpose,
 * slice, concat and pad copy. slice takes any dtype, the rest floats. Copies are byte moves, so "ref" is the
 * only implementation of the rarer ones. */
#include "kernels/cpu.h"
#include "kernels/elementwise/broadcast.h"
#include <string.h>

static tp_status want_float(const tp_infer *x)
{
    for (int i = 0; i < x->n_in; i++)
        TP_CHECK(tp_is_float(x->dtype[i]) && x->dtype[i] == x->dtype[0], TP_ESHAPE,
                 "input %d is %s, want every input of one float dtype", i, tp_dtype_name(x->dtype[i]));
    return TP_OK;
}

/* ---- views ---- */

static tp_status infer_reshape(tp_infer *x)
{
    const tp_expand_attr *attr = x->attr;
    tp_shape out = attr->shape;
    int64_t known = 1;
    int open = -1;

    for (int i = 0; i < out.nd; i++) {
        TP_CHECK(out.d[i] >= -1 && (out.d[i] != -1 || open < 0), TP_ESHAPE,
                 "dimension %d of the new shape is %lld", i, (long long)out.d[i]);
        if (out.d[i] == -1)
            open = i;
        else
            known *= out.d[i];
    }
    const int64_t n = tp_shape_len(x->shape[0]);
    if (open >= 0)
        out.d[open] = known > 0 ? n / known : 0;
    TP_CHECK(tp_shape_len(out) == n, TP_ESHAPE, "%lld elements do not fit the new shape of %lld",
             (long long)n, (long long)tp_shape_len(out));
    x->out_shape[0] = out;
    return TP_OK;
}

static void grad_reshape(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_reshape(g, dy[0], tp_val_shape(g, n->in[0]));
}

static const tp_expand_attr reshape_6x2 = {{2, {6, 2}}}, reshape_open = {{2, {-1, 5}}};
static const tp_case cases_reshape[] = {{"3x4", -1.0, 1.0, 0, &reshape_6x2, 0, 0},
                                        {"2x5x3", -1.0, 1.0, 0, &reshape_open, 0, 0}};
const tp_op tp_op_reshape = {.name = "reshape",
                             .onnx = "Reshape",
                             .min_in = 1,
                             .max_in = 1,
                             .n_out = 1,
                             .flags = TP_OP_VIEW,
                             .attr_size = sizeof(tp_expand_attr),
                             .infer = infer_reshape,
                             .grad = grad_reshape,
                             .cases = cases_reshape,
                             .n_cases = TP_COUNT(cases_reshape)};

tp_val tp_reshape(tp_graph *g, tp_val x, tp_shape shape)
{
    if (x != 0 && tp_shape_equal(tp_val_shape(g, x), shape))
        return x;
    return tp_graph_add(g, &tp_op_reshape, 1, &x, &(const tp_expand_attr){shape});
}

tp_val tp_flatten(tp_graph *g, tp_val x, int axis)
{
    const tp_shape s = tp_val_shape(g, x);
    tp_shape out = {.nd = 2, .d = {1, 1}};
    for (int i = 0; i < s.nd; i++)
        out.d[i >= axis] *= s.d[i];
    return tp_reshape(g, x, out);
}

static const tp_case cases_detach[] = {{"7", -1.0, 1.0, 0, NULL, 0, TP_CASE_NO_GRAD}};
const tp_op tp_op_detach = {.name = "detach",
                            .onnx = "Identity",
                            .min_in = 1,
                            .max_in = 1,
                            .n_out = 1,
                            .flags = TP_OP_VIEW | TP_OP_STOP,
                            .cases = cases_detach,
                            .n_cases = TP_COUNT(cases_detach)};

tp_val tp_detach(tp_graph *g, tp_val x)
{
    return tp_graph_add(g, &tp_op_detach, 1, &x, NULL);
}

/* ---- a strided copy serves expand, transpose and slice ---- */

typedef struct copy_job {
    int nd;
    int64_t d[TP_MAX_DIMS], stride[TP_MAX_DIMS]; /* output dimensions; input strides in elements */
    size_t size;
    char *y;
    const char *x;
} copy_job;

TP_SIMD static void gather4(uint32_t *y, const uint32_t *x, int64_t n, int64_t stride)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i * stride];
}

static void copy_row(const copy_job *j, char *y, const char *x, int64_t n, int64_t stride)
{
    if (stride == 1)
        memcpy(y, x, (size_t)n * j->size);
    else if (j->size == 4)
        gather4((uint32_t *)(void *)y, (const uint32_t *)(const void *)x, n, stride);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy(y + (size_t)i * j->size, x + i * stride * (int64_t)j->size, j->size);
}

static void copy_piece(void *ctx, int64_t begin, int64_t end)
{
    const copy_job *j = ctx;
    const int64_t inner = j->nd > 0 ? j->d[j->nd - 1] : 1, stride = j->nd > 0 ? j->stride[j->nd - 1] : 1;

    for (int64_t row = begin; row < end; row++) {
        int64_t at = row, offset = 0;
        for (int k = j->nd - 2; k >= 0; k--) {
            offset += at % j->d[k] * j->stride[k];
            at /= j->d[k];
        }
        copy_row(j, j->y + (size_t)(row * inner) * j->size, j->x + offset * (int64_t)j->size, inner, stride);
    }
}

static void dense_strides(tp_shape s, int64_t *stride)
{
    int64_t step = 1;
    for (int i = s.nd - 1; i >= 0; i--) {
        stride[i] = step;
        step *= s.d[i];
    }
}

static void copy_run(const tp_call *c, const int64_t *stride, int64_t offset)
{
    const tp_shape out = c->out[0].shape;
    copy_job j = {.nd = out.nd, .size = tp_dtype_size(c->out[0].dtype), .y = c->out[0].data};
    int64_t rows = 1;

    j.x = (const char *)c->in[0].data + offset * (int64_t)j.size;
    for (int i = 0; i < out.nd; i++) {
        j.d[i] = out.d[i];
        j.stride[i] = stride[i];
        rows *= i + 1 < out.nd ? out.d[i] : 1;
    }
    const int64_t inner = out.nd > 0 ? out.d[out.nd - 1] : 1;
    if (inner > 0)
        tp_parallel(rows, 1 + TP_GRAIN / (inner + 1), copy_piece, &j);
}

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

/* expand */

static tp_status infer_expand(tp_infer *x)
{
    const tp_expand_attr *attr = x->attr;
    tp_shape both;

    TP_TRY(want_float(x));
    TP_TRY(tp_broadcast_shapes(x->shape[0], attr->shape, &both));
    TP_CHECK(tp_shape_equal(both, attr->shape), TP_ESHAPE, "x is larger than the shape it is expanded to");
    x->out_shape[0] = attr->shape;
    return TP_OK;
}

static tp_status expand_run(const tp_call *c)
{
    const tp_shape in = c->in[0].shape, out = c->out[0].shape;
    int64_t dense[TP_MAX_DIMS], stride[TP_MAX_DIMS];

    dense_strides(in, dense);
    for (int i = 0; i < out.nd; i++) {
        const int k = in.nd - out.nd + i;
        stride[i] = k >= 0 && in.d[k] > 1 ? dense[k] : 0;
    }
    copy_run(c, stride, 0);
    return TP_OK;
}

static void grad_expand(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_sum_to(g, dy[0], tp_val_shape(g, n->in[0]));
}

static const tp_expand_attr expand_a = {{2, {5, 7}}}, expand_b = {{3, {4, 3, 6}}},
                            expand_c = {{3, {9, 5, 48}}};
static const tp_case cases_expand[] = {
    {"()", -1.0, 1.0, 0, &expand_a, 0, 0},  {"7", -1.0, 1.0, 0, &expand_a, 0, 0},
    {"5x1", -1.0, 1.0, 0, &expand_a, 0, 0}, {"3x1", -1.0, 1.0, 0, &expand_b, 0, 0},
    {"5x1", -1.0, 1.0, 0, &expand_c, 0, 0}, {"9x1x48", -1.0, 1.0, 0, &expand_c, 0, 0}};

/* transpose */

static tp_status infer_transpose(tp_infer *x)
{
    const tp_transpose_attr *attr = x->attr;
    const tp_shape in = x->shape[0];
    uint32_t seen = 0;

    TP_TRY(want_float(x));
    for (int i = 0; i < in.nd; i++) {
        TP_CHECK(attr->perm[i] >= 0 && attr->perm[i] < in.nd && !((seen >> attr->perm[i]) & 1u), TP_ESHAPE,
                 "perm[%d] is %d, want each of 0 to %d once", i, attr->perm[i], in.nd - 1);
        seen |= 1u << attr->perm[i];
        x->out_shape[0].d[i] = in.d[attr->perm[i]];
    }
    return TP_OK;
}

static tp_status transpose_run(const tp_call *c)
{
    const tp_transpose_attr *attr = c->attr;
    int64_t dense[TP_MAX_DIMS], stride[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, dense);
    for (int i = 0; i < c->in[0].shape.nd; i++)
        stride[i] = dense[attr->perm[i]];
    copy_run(c, stride, 0);
    return TP_OK;
}

static void grad_transpose(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_transpose_attr *attr = n->attr;
    int inverse[TP_MAX_DIMS] = {0};
    (void)need;
    for (int i = 0; i < tp_val_shape(g, n->in[0]).nd; i++)
        inverse[attr->perm[i]] = i;
    dx[0] = tp_transpose(g, dy[0], inverse);
}

static const tp_transpose_attr perm_10 = {{1, 0}}, perm_0231 = {{0, 2, 3, 1}}, perm_201 = {{2, 0, 1}},
                               perm_021 = {{0, 2, 1}}, perm_0213 = {{0, 2, 1, 3}}, perm_210 = {{2, 1, 0}},
                               perm_2103 = {{2, 1, 0, 3}};
static const tp_case cases_transpose[] = {
    {"1x1", -1.0, 1.0, 0, &perm_10, 0, 0},
    {"17x33", -1.0, 1.0, 0, &perm_10, 0, 0},
    {"2x3x5x7", -1.0, 1.0, 0, &perm_0231, 0, 0},
    {"4x5x6", -1.0, 1.0, 0, &perm_201, 0, 0},
    {"3x70x45", -1.0, 1.0, 0, &perm_021, 0, 0},
    /* narrow matrices, whole and in parts; runs; three that change places */
    {"5x40x3x3", -1.0, 1.0, 0, &perm_0231, 0, 0},
    {"2x9x1000", -1.0, 1.0, 0, &perm_021, 0, 0},
    {"1000x7", -1.0, 1.0, 0, &perm_10, 0, 0},
    {"3001x2", -1.0, 1.0, 0, &perm_10, 0, TP_CASE_NO_GRAD},
    {"2x3001", -1.0, 1.0, 0, &perm_10, 0, TP_CASE_NO_GRAD},
    {"131x66", -1.0, 1.0, 0, &perm_10, 0, 0},
    {"2x5x3x8", -1.0, 1.0, 0, &perm_0213, 0, 0},
    {"2x5x3x7", -1.0, 1.0, 0, &perm_2103, 0, 0},
    {"70x3x68", -1.0, 1.0, 0, &perm_210, 0, 0}};

/* slice */

static tp_status infer_slice(tp_infer *x)
{
    const tp_slice_attr *a = x->attr;

    TP_CHECK(a->axis >= 0 && a->axis < x->shape[0].nd, TP_ESHAPE, "axis is %d, want 0 to %d", a->axis,
             x->shape[0].nd - 1);
    TP_CHECK(a->begin >= 0 && a->begin < a->end && a->end <= x->shape[0].d[a->axis], TP_ESHAPE,
             "range [%lld, %lld) does not lie in the %lld entries of axis %d", (long long)a->begin,
             (long long)a->end, (long long)x->shape[0].d[a->axis], a->axis);
    x->out_shape[0].d[a->axis] = a->end - a->begin;
    return TP_OK;
}

static tp_status slice_run(const tp_call *c)
{
    const tp_slice_attr *a = c->attr;
    int64_t stride[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, stride);
    copy_run(c, stride, a->begin * stride[a->axis]);
    return TP_OK;
}

static void grad_slice(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_slice_attr *a = n->attr;
    int64_t before[TP_MAX_DIMS] = {0}, after[TP_MAX_DIMS] = {0};
    (void)need;
    before[a->axis] = a->begin;
    after[a->axis] = tp_val_shape(g, n->in[0]).d[a->axis] - a->end;
    dx[0] = tp_pad(g, dy[0], before, after, 0.0);
}

static const tp_slice_attr slice_0 = {0, 1, 4}, slice_1 = {1, 2, 3}, slice_2 = {2, 0, 5},
                           slice_8 = {1, 4, 12}, slice_rows = {0, 2, 90};
static const tp_case cases_slice[] = {{"5", -1.0, 1.0, 0, &slice_0, 0, 0},
                                      {"6x7", -1.0, 1.0, 0, &slice_1, 0, 0},
                                      {"5x7", -1.0, 1.0, 0, &slice_0, 0, 0},
                                      {"6x7:u8", -1.0, 1.0, 99, &slice_1, 0, TP_CASE_NO_GRAD},
                                      {"6x7:i16", -1.0, 1.0, 99, &slice_1, 0, TP_CASE_NO_GRAD},
                                      {"6x7:i64", -1.0, 1.0, 99, &slice_1, 0, TP_CASE_NO_GRAD},
                                      {"3x4x9", -1.0, 1.0, 0, &slice_2, 0, 0},
                                      /* units of 16, 8 and 2 bytes, and more than one block */
                                      {"5x16", -1.0, 1.0, 0, &slice_8, 0, 0},
                                      {"5x14x1", -1.0, 1.0, 0, &slice_8, 0, 0},
                                      {"5x14:u8", -1.0, 1.0, 99, &slice_8, 0, TP_CASE_NO_GRAD},
                                      {"92x60", -1.0, 1.0, 0, &slice_rows, 0, TP_CASE_NO_GRAD}};

/* pad */

static tp_status infer_pad(tp_infer *x)
{
    const tp_pad_attr *a = x->attr;

    TP_TRY(want_float(x));
    for (int i = 0; i < x->shape[0].nd; i++) {
        TP_CHECK(a->before[i] >= 0 && a->after[i] >= 0, TP_ESHAPE,
                 "padding of axis %d is %lld and %lld, want >= 0", i, (long long)a->before[i],
                 (long long)a->after[i]);
        x->out_shape[0].d[i] += a->before[i] + a->after[i];
    }
    return TP_OK;
}

static tp_status pad_run(const tp_call *c)
{
    const tp_pad_attr *a = c->attr;
    const tp_shape in = c->in[0].shape, out = c->out[0].shape;
    const size_t size = tp_dtype_size(c->in[0].dtype);
    const int64_t inner = in.nd > 0 ? in.d[in.nd - 1] : 1;
    int64_t stride[TP_MAX_DIMS] = {0};

    dense_strides(out, stride);
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++)
        tp_set(&c->out[0], i, a->value);
    for (int64_t row = 0, rows = inner > 0 ? tp_len(&c->in[0]) / inner : 0; row < rows; row++) {
        int64_t at = row, offset = in.nd > 0 ? a->before[in.nd - 1] : 0;
        for (int k = in.nd - 2; k >= 0; k--) {
            offset += (at % in.d[k] + a->before[k]) * stride[k];
            at /= in.d[k];
        }
        memcpy((char *)c->out[0].data + (size_t)offset * size,
               (const char *)c->in[0].data + (size_t)(row * inner) * size, (size_t)inner * size);
    }
    return TP_OK;
}

static void grad_pad(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_pad_attr *a = n->attr;
    const tp_shape in = tp_val_shape(g, n->in[0]);
    (void)need;
    dx[0] = dy[0];
    for (int i = 0; i < in.nd; i++)
        if (a->before[i] != 0 || a->after[i] != 0)
            dx[0] = tp_slice(g, dx[0], i, a->before[i], a->before[i] + in.d[i]);
}

static const tp_pad_attr pad_a = {{2}, {3}, 0.5}, pad_b = {{0, 1, 2}, {1, 0, 2}, 0.0},
                         pad_c = {{0, 1, 4}, {0, 2, 8}, -2.0},
                         pad_all = {{1, 1, 1, 1, 1, 1, 1, 1}, {0, 0, 1, 0, 0, 1, 0, 0}, 0.25};
static const tp_case cases_pad[] = {{"5", -1.0, 1.0, 0, &pad_a, 0, 0},
                                    {"2x3x5", -1.0, 1.0, 0, &pad_b, 0, 0},
                                    {"3x7x12", -1.0, 1.0, 0, &pad_c, 0, 0},
                                    {"7x90x4", -1.0, 1.0, 0, &pad_b, 0, TP_CASE_NO_GRAD},
                                    {"3x30x11x12", -1.0, 1.0, 0, &pad_c, 0, TP_CASE_NO_GRAD},
                                    {"2x1x2x1x3x1x2x1", -1.0, 1.0, 0, &pad_all, 0, 0}};

#define COPY_OP(opname, onnx_name, attr_bytes)                                                               \
    static const tp_impl opname##_cpu_ref = {"ref", accept_any, opname##_run, NULL, 0};                      \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .onnx = onnx_name,                                                         \
                                  .min_in = 1,                                                               \
                                  .max_in = 1,                                                               \
                                  .n_out = 1,                                                                \
                                  .attr_size = attr_bytes,                                                   \
                                  .infer = infer_##opname,                                                   \
                                  .grad = grad_##opname,                                                     \
                                  .cost = tp_cost_stream,                                                    \
                                  .cpu = TP_IMPLS(&opname##_cpu_ref),                                        \
                                  .cases = cases_##opname,                                                   \
                                  .n_cases = TP_COUNT(cases_##opname)};

COPY_OP(expand, "Expand", sizeof(tp_expand_attr))
COPY_OP(transpose, "Transpose", sizeof(tp_transpose_attr))
COPY_OP(slice, "Slice", sizeof(tp_slice_attr))
COPY_OP(pad, "Pad", sizeof(tp_pad_attr))

tp_val tp_expand(tp_graph *g, tp_val x, tp_shape shape)
{
    if (x != 0 && tp_shape_equal(tp_val_shape(g, x), shape))
        return x;
    return tp_graph_add(g, &tp_op_expand, 1, &x, &(const tp_expand_attr){shape});
}

tp_val tp_transpose(tp_graph *g, tp_val x, const int *perm)
{
    tp_transpose_attr attr = {{0}};
    for (int i = 0; i < tp_val_shape(g, x).nd; i++)
        attr.perm[i] = perm[i];
    return tp_graph_add(g, &tp_op_transpose, 1, &x, &attr);
}

tp_val tp_slice(tp_graph *g, tp_val x, int axis, int64_t begin, int64_t end)
{
    const tp_shape s = tp_val_shape(g, x);

    if (x != 0 && axis >= 0 && axis < s.nd && begin == 0 && end == s.d[axis])
        return x;
    return tp_graph_add(g, &tp_op_slice, 1, &x, &(const tp_slice_attr){axis, begin, end});
}

void tp_split(tp_graph *g, tp_val x, int axis, int n, const int64_t *sizes, tp_val *out)
{
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        out[i] = tp_slice(g, x, axis, at, at + sizes[i]);
        at += sizes[i];
    }
}

tp_val tp_pad(tp_graph *g, tp_val x, const int64_t *before, const int64_t *after, double value)
{
    tp_pad_attr attr = {.value = value};
    for (int i = 0; i < tp_val_shape(g, x).nd; i++) {
        attr.before[i] = before[i];
        attr.after[i] = after[i];
    }
    return tp_graph_add(g, &tp_op_pad, 1, &x, &attr);
}

/* ---- concat ---- */

static tp_status infer_concat(tp_infer *x)
{
    const tp_concat_attr *a = x->attr;
    tp_shape out = x->shape[0];

    TP_TRY(want_float(x));
    TP_CHECK(a->axis >= 0 && a->axis < out.nd, TP_ESHAPE, "axis is %d, want 0 to %d", a->axis, out.nd - 1);
    for (int i = 1; i < x->n_in; i++) {
        const tp_shape s = x->shape[i];
        TP_CHECK(s.nd == out.nd, TP_ESHAPE, "input %d has %d dimensions, want %d", i, s.nd, out.nd);
        for (int k = 0; k < s.nd; k++)
            TP_CHECK(k == a->axis || s.d[k] == out.d[k], TP_ESHAPE,
                     "input %d has %lld entries in dimension %d, want %lld", i, (long long)s.d[k], k,
                     (long long)out.d[k]);
        out.d[a->axis] += s.d[a->axis];
    }
    x->out_shape[0] = out;
    return TP_OK;
}

static tp_status concat_run(const tp_call *c)
{
    const tp_concat_attr *a = c->attr;
    const tp_shape out = c->out[0].shape;
    int64_t outer = 1, inner = (int64_t)tp_dtype_size(c->out[0].dtype), at = 0;

    for (int i = 0; i < out.nd; i++)
        if (i < a->axis)
            outer *= out.d[i];
        else if (i > a->axis)
            inner *= out.d[i];
    for (int i = 0; i < c->n_in; i++) {
        const int64_t bytes = c->in[i].shape.d[a->axis] * inner;
        for (int64_t o = 0; o < outer; o++)
            memcpy((char *)c->out[0].data + o * out.d[a->axis] * inner + at,
                   (const char *)c->in[i].data + o * bytes, (size_t)bytes);
        at += bytes;
    }
    return TP_OK;
}

static void grad_concat(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_concat_attr *a = n->attr;
    int64_t at = 0;
    for (int i = 0; i < n->n_in; i++) {
        const int64_t size = tp_val_shape(g, n->in[i]).d[a->axis];
        if (need[i])
            dx[i] = tp_slice(g, dy[0], a->axis, at, at + size);
        at += size;
    }
}

static const tp_concat_attr concat_0 = {0}, concat_1 = {1};
static const tp_case cases_concat[] = {{"3,5", -1.0, 1.0, 0, &concat_0, 0, 0},
                                       {"4x3,4x1,4x7", -1.0, 1.0, 0, &concat_1, 0, 0},
                                       {"2x3x5,2x2x5", -1.0, 1.0, 0, &concat_1, 0, 0},
                                       {"9x3x8,9x2x8,9x60x8", -1.0, 1.0, 0, &concat_1, 0, 0}};
static const tp_impl concat_cpu_ref = {"ref", accept_any, concat_run, NULL, 0};
const tp_op tp_op_concat = {.name = "concat",
                            .onnx = "Concat",
                            .min_in = 1,
                            .max_in = -1,
                            .n_out = 1,
                            .attr_size = sizeof(tp_concat_attr),
                            .infer = infer_concat,
                            .grad = grad_concat,
                            .cost = tp_cost_stream,
                            .cpu = TP_IMPLS(&concat_cpu_ref),
                            .cases = cases_concat,
                            .n_cases = TP_COUNT(cases_concat)};

tp_val tp_concat(tp_graph *g, int n, const tp_val *x, int axis)
{
    return tp_graph_add(g, &tp_op_concat, n, x, &(const tp_concat_attr){axis});
}
