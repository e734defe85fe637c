/* linear.c - matmul and gemm: y = act(op(a) op(b) + c), the gradient of what a gemm reads together with that
 * of the activation before it, and the gradients of its weight and bias together. oneDNN's matmul takes every
 * shape that is not empty. The loop after it gives the same bits on every machine and for any number of
 * threads: each element of y is one sum over k in order. */
#include "host/core/mem.h"
#include "kernels/cpu.h"
#include "kernels/dnnl.h"
#include "kernels/elementwise/broadcast.h"
#include "kernels/linear/activation.h"
#include <string.h>

/* ---- shapes: (batch..., M, K) x (batch..., K, N) ---- */

static int64_t rows_of(tp_shape s, int trans)
{
    return s.d[s.nd - (trans ? 1 : 2)];
}

static int64_t cols_of(tp_shape s, int trans)
{
    return s.d[s.nd - (trans ? 2 : 1)];
}

static tp_status matrix_shape(const tp_infer *x, int trans_a, int trans_b, tp_shape *out)
{
    const tp_shape a = x->shape[0], b = x->shape[1];

    TP_CHECK(tp_is_float(x->dtype[0]) && x->dtype[1] == x->dtype[0], TP_ESHAPE,
             "a is %s and b is %s, want one float dtype", tp_dtype_name(x->dtype[0]),
             tp_dtype_name(x->dtype[1]));
    TP_CHECK(a.nd >= 2 && b.nd >= 2, TP_ESHAPE, "a has %d and b %d dimensions, want at least 2", a.nd, b.nd);
    TP_CHECK(cols_of(a, trans_a) == rows_of(b, trans_b), TP_ESHAPE, "a has %lld columns but b has %lld rows",
             (long long)cols_of(a, trans_a), (long long)rows_of(b, trans_b));
    tp_shape la = a, lb = b;
    la.nd -= 2;
    lb.nd -= 2;
    TP_TRY(tp_broadcast_shapes(la, lb, out));
    out->d[out->nd++] = rows_of(a, trans_a);
    out->d[out->nd++] = cols_of(b, trans_b);
    return TP_OK;
}

static tp_status infer_matmul(tp_infer *x)
{
    const tp_matmul_attr *attr = x->attr;
    return matrix_shape(x, attr->trans_a, attr->trans_b, &x->out_shape[0]);
}

static tp_status infer_gemm(tp_infer *x)
{
    const tp_gemm_attr *attr = x->attr;

    TP_TRY(tp_activation_check(attr->act));
    TP_CHECK(x->shape[0].nd == 2 && x->shape[1].nd == 2, TP_ESHAPE, "a has %d and b %d dimensions, want 2",
             x->shape[0].nd, x->shape[1].nd);
    TP_TRY(matrix_shape(x, attr->trans_a, attr->trans_b, &x->out_shape[0]));
    if (x->n_in > 2 && x->dtype[2] != TP_DTYPE_NONE)
        TP_CHECK(x->dtype[2] == x->dtype[0] && x->shape[2].nd == 1 &&
                     x->shape[2].d[0] == x->out_shape[0].d[1],
                 TP_ESHAPE, "c must have shape (%lld)", (long long)x->out_shape[0].d[1]);
    return TP_OK;
}

static tp_status infer_gemm_input_grad(tp_infer *x)
{
    const tp_gemm_attr *attr = x->attr;

    TP_TRY(tp_activation_check(attr->act));
    TP_CHECK(x->shape[0].nd == 2 && x->shape[1].nd == 2, TP_ESHAPE, "a has %d and b %d dimensions, want 2",
             x->shape[0].nd, x->shape[1].nd);
    TP_TRY(matrix_shape(x, attr->trans_a, attr->trans_b, &x->out_shape[0]));
    TP_CHECK(x->dtype[2] == x->dtype[0] && tp_shape_equal(x->shape[2], x->out_shape[0]), TP_ESHAPE,
             "y must have shape (%lld,%lld)", (long long)x->out_shape[0].d[0],
             (long long)x->out_shape[0].d[1]);
    return TP_OK;
}

static tp_status infer_gemm_weight_grad(tp_infer *x)
{
    const tp_shape dy = x->shape[0], in = x->shape[1];

    TP_CHECK(dy.nd == 2 && in.nd == 2 && dy.d[0] == in.d[0], TP_ESHAPE,
             "dy and x must be (M,N) and (M,K), with one M");
    TP_TRY(matrix_shape(x, 1, 0, &x->out_shape[0]));
    x->out_shape[1] = (tp_shape){1, {dy.d[1]}};
    x->out_dtype[0] = x->out_dtype[1] = x->dtype[0];
    return TP_OK;
}

/* ---- oneDNN ---- */

typedef struct linear_state {
    tp_dnnl p;
    int has_bias;
    tp_activation act;
} linear_state;

static void linear_release(void *state)
{
    linear_state *s = state;
    tp_dnnl_destroy(&s->p);
    tp_free(s);
}

/* Gives a matrix leading ones until it has nd dimensions. */
static tp_shape lead(tp_shape s, int nd)
{
    tp_shape out = {.nd = nd};
    for (int i = 0; i < nd; i++)
        out.d[i] = i < nd - s.nd ? 1 : s.d[i - (nd - s.nd)];
    return out;
}

static tp_status linear_create(linear_state *s, const tp_call *c, int trans_a, int trans_b, size_t *scratch)
{
    const int nd = c->out[0].shape.nd;
    dnnl_memory_desc_t a, b, bias, y;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;

    TP_TRY(tp_dnnl_md(&a, lead(c->in[0].shape, nd), trans_a));
    TP_TRY(tp_dnnl_md(&b, lead(c->in[1].shape, nd), trans_b));
    TP_TRY(tp_dnnl_md(&y, c->out[0].shape, 0));
    if (s->has_bias)
        TP_TRY(tp_dnnl_md(&bias, lead(c->in[2].shape, nd), 0));
    tp_dnnl_work(&s->p, 2.0 * (double)tp_len(&c->out[0]) * (double)a.dims[nd - 1]);
    TP_DNNL(dnnl_matmul_desc_init(&desc, &a, &b, s->has_bias ? &bias : NULL, &y));
    TP_TRY(tp_dnnl_attr(&attr));
    tp_status st = tp_dnnl_primitive(&s->p, &desc, attr, NULL, &pd, scratch);
    dnnl_primitive_attr_destroy(attr);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    TP_TRY(st);
    TP_TRY(tp_dnnl_arg(&s->p, DNNL_ARG_SRC, &a));
    TP_TRY(tp_dnnl_arg(&s->p, DNNL_ARG_WEIGHTS, &b));
    TP_TRY(tp_dnnl_arg(&s->p, DNNL_ARG_DST, &y));
    return s->has_bias ? tp_dnnl_arg(&s->p, DNNL_ARG_BIAS, &bias) : TP_OK;
}

static int has_bias(const tp_call *c)
{
    return c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE;
}

static tp_status linear_prepare(tp_call *c, size_t *scratch, int trans_a, int trans_b, int bias,
                                tp_activation act)
{
    linear_state *s = NULL;

    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(tp_len(&c->in[0]) > 0 && tp_len(&c->in[1]) > 0, TP_EUNSUP, "an input is empty");
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "oneDNN matmul"));
    s->has_bias = bias;
    s->act = act;
    const tp_status st = linear_create(s, c, trans_a, trans_b, scratch);
    if (st != TP_OK) {
        linear_release(s);
        return st;
    }
    c->state = s;
    return TP_OK;
}

static tp_status product_run(const tp_call *c)
{
    linear_state *s = c->state;

    TP_TRY(tp_dnnl_bind(&s->p, 0, c->scratch));
    TP_TRY(tp_dnnl_bind(&s->p, 1, c->in[0].data));
    TP_TRY(tp_dnnl_bind(&s->p, 2, c->in[1].data));
    TP_TRY(tp_dnnl_bind(&s->p, 3, c->out[0].data));
    if (s->has_bias)
        TP_TRY(tp_dnnl_bind(&s->p, 4, c->in[2].data));
    return tp_dnnl_run(&s->p);
}

static tp_status linear_run(const tp_call *c)
{
    TP_TRY(product_run(c));
    tp_activate_all(tp_out_f32(c, 0), tp_len(&c->out[0]), ((linear_state *)c->state)->act);
    return TP_OK;
}

static tp_status input_grad_run(const tp_call *c)
{
    TP_TRY(product_run(c));
    tp_activate_grad_all(tp_out_f32(c, 0), tp_in_f32(c, 2), tp_len(&c->out[0]),
                         ((linear_state *)c->state)->act);
    return TP_OK;
}

static tp_status matmul_prepare(tp_call *c, size_t *scratch)
{
    const tp_matmul_attr *attr = c->attr;
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, 0, TP_ACT_NONE);
}

static tp_status gemm_prepare(tp_call *c, size_t *scratch)
{
    const tp_gemm_attr *attr = c->attr;
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, has_bias(c), attr->act);
}

static tp_status input_grad_prepare(tp_call *c, size_t *scratch)
{
    const tp_gemm_attr *attr = c->attr;
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, 0, attr->act);
}

/* Which matrix of x belongs to matrix `batch` of the output. */
static int64_t batch_of(tp_shape x, tp_shape out, int64_t batch)
{
    int64_t at = 0, step = 1;
    for (int i = out.nd - 3; i >= 0; i--) {
        const int k = i - (out.nd - x.nd);
        const int64_t here = batch % out.d[i];
        batch /= out.d[i];
        if (k < 0)
            continue;
        at += (x.d[k] > 1 ? here : 0) * step;
        step *= x.d[k];
    }
    return at;
}

/* ---- fast loop ---- */

#define TILE_ROWS 6
#define TILE_COLS 16

/* One product: a(M,K) with strides, b packed into panels of TILE_COLS columns, y(M,N) dense. */
typedef struct product {
    const float *a, *panels, *bias, *through; /* through: y of an activation's gradient */
    float *y;
    int64_t row_step, k_step, rows, cols, depth;
    tp_activation act;
} product;

/* Panel p holds op(b)[k][TILE_COLS p + j] at [k][j], zeros past the last column. */
static void pack(float *panels, const float *b, int64_t depth, int64_t cols, int trans)
{
    for (int64_t at = 0; at < cols; at += TILE_COLS)
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = at; j < at + TILE_COLS; j++)
                *panels++ = j >= cols ? 0.0f : (trans ? b[j * depth + k] : b[k * cols + j]);
}

/* sum[r][j] = sum over k of a[r][k] b[k][j], r < TILE_ROWS; rows past the last repeat it. */
TP_SIMD static void tile(float sum[TILE_ROWS][TILE_COLS], const float *const row[TILE_ROWS], int64_t k_step,
                         const float *panel, int64_t depth)
{
    float s[TILE_ROWS][TILE_COLS] = {{0}};
    for (int64_t k = 0; k < depth; k++)
        for (int r = 0; r < TILE_ROWS; r++)
            for (int j = 0; j < TILE_COLS; j++)
                s[r][j] += row[r][k * k_step] * panel[k * TILE_COLS + j];
    memcpy(sum, s, sizeof(s));
}

TP_SIMD static void finish(float *y, const float *sum, const float *bias, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        y[j] = sum[j] + (bias != NULL ? bias[j] : 0.0f);
}

/* Bands of TILE_ROWS rows. */
static void product_bands(void *ctx, int64_t begin, int64_t end)
{
    const product *p = ctx;
    const int64_t last = p->rows < end * TILE_ROWS ? p->rows : end * TILE_ROWS;

    for (int64_t at = 0; at < p->cols; at += TILE_COLS)
        for (int64_t i = begin * TILE_ROWS; i < last; i += TILE_ROWS) {
            const int64_t height = last - i < TILE_ROWS ? last - i : TILE_ROWS;
            const int64_t width = p->cols - at < TILE_COLS ? p->cols - at : TILE_COLS;
            const float *row[TILE_ROWS];
            float sum[TILE_ROWS][TILE_COLS];
            for (int64_t r = 0; r < TILE_ROWS; r++)
                row[r] = p->a + (i + (r < height ? r : height - 1)) * p->row_step;
            tile(sum, row, p->k_step, p->panels + at * p->depth, p->depth);
            for (int64_t r = 0; r < height; r++) {
                float *y = p->y + (i + r) * p->cols + at;
                finish(y, sum[r], p->bias != NULL ? p->bias + at : NULL, width);
                if (p->through != NULL)
                    tp_activate_grad_run(y, p->through + (i + r) * p->cols + at, width, p->act);
                else
                    tp_activate_run(y, width, p->act);
            }
        }
}

static tp_status simd_prepare(tp_call *c, size_t *scratch, int trans_b)
{
    const tp_shape b = c->in[1].shape;
    const int64_t panels = (cols_of(b, trans_b) + TILE_COLS - 1) / TILE_COLS;

    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = (size_t)(panels * TILE_COLS * rows_of(b, trans_b)) * sizeof(float);
    return TP_OK;
}

static tp_status simd_run(const tp_call *c, int trans_a, int trans_b, const float *bias, const float *through,
                          tp_activation act)
{
    const tp_shape sa = c->in[0].shape, sb = c->in[1].shape, so = c->out[0].shape;
    const int64_t rows = so.d[so.nd - 2], cols = so.d[so.nd - 1], depth = cols_of(sa, trans_a);
    const int64_t batches = tp_len(&c->out[0]) / (rows * cols > 0 ? rows * cols : 1);
    product p = {.panels = c->scratch,
                 .bias = bias,
                 .through = through,
                 .row_step = trans_a ? 1 : depth,
                 .k_step = trans_a ? rows : 1,
                 .rows = rows,
                 .cols = cols,
                 .depth = depth,
                 .act = act};

    for (int64_t m = 0, packed = -1; m < batches; m++) {
        const int64_t b = batch_of(sb, so, m);
        if (b != packed)
            pack(c->scratch, tp_in_f32(c, 1) + b * depth * cols, depth, cols, trans_b);
        packed = b;
        p.a = tp_in_f32(c, 0) + batch_of(sa, so, m) * rows * depth;
        p.y = tp_out_f32(c, 0) + m * rows * cols;
        tp_parallel((rows + TILE_ROWS - 1) / TILE_ROWS, 1 + TP_GRAIN / (1 + depth * cols), product_bands, &p);
    }
    return TP_OK;
}

static tp_status matmul_simd_prepare(tp_call *c, size_t *scratch)
{
    return simd_prepare(c, scratch, ((const tp_matmul_attr *)c->attr)->trans_b);
}

static tp_status gemm_simd_prepare(tp_call *c, size_t *scratch)
{
    return simd_prepare(c, scratch, ((const tp_gemm_attr *)c->attr)->trans_b);
}

static tp_status matmul_simd(const tp_call *c)
{
    const tp_matmul_attr *attr = c->attr;
    return simd_run(c, attr->trans_a, attr->trans_b, NULL, NULL, TP_ACT_NONE);
}

static tp_status gemm_simd(const tp_call *c)
{
    const tp_gemm_attr *attr = c->attr;
    return simd_run(c, attr->trans_a, attr->trans_b, has_bias(c) ? tp_in_f32(c, 2) : NULL, NULL, attr->act);
}

static tp_status input_grad_simd(const tp_call *c)
{
    const tp_gemm_attr *attr = c->attr;
    return simd_run(c, attr->trans_a, attr->trans_b, NULL, tp_in_f32(c, 2), attr->act);
}

/* ---- sums of columns: each in double, row after row ---- */

static void column_sums(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t rows = c->in[0].shape.d[0], cols = c->in[0].shape.d[1];

    for (int64_t at = begin * TILE_COLS; at < end * TILE_COLS && at < cols; at += TILE_COLS) {
        const int64_t width = cols - at < TILE_COLS ? cols - at : TILE_COLS;
        double sum[TILE_COLS] = {0};
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < width; j++)
                sum[j] += (double)tp_in_f32(c, 0)[i * cols + at + j];
        for (int64_t j = 0; j < width; j++)
            tp_out_f32(c, 1)[at + j] = (float)sum[j];
    }
}

static void sum_columns(const tp_call *c)
{
    const int64_t rows = c->in[0].shape.d[0], chunks = (c->in[0].shape.d[1] + TILE_COLS - 1) / TILE_COLS;
    tp_parallel(chunks, 1 + TP_GRAIN / (1 + rows * TILE_COLS), column_sums, (void *)(uintptr_t)c);
}

static tp_status weight_grad_prepare(tp_call *c, size_t *scratch)
{
    return linear_prepare(c, scratch, 1, 0, 0, TP_ACT_NONE);
}

static tp_status weight_grad_run(const tp_call *c)
{
    TP_TRY(linear_run(c));
    sum_columns(c);
    return TP_OK;
}

static tp_status weight_grad_simd_prepare(tp_call *c, size_t *scratch)
{
    return simd_prepare(c, scratch, 0);
}

static tp_status weight_grad_simd(const tp_call *c)
{
    TP_TRY(simd_run(c, 1, 0, NULL, NULL, TP_ACT_NONE));
    sum_columns(c);
    return TP_OK;
}

/* ---- reference ---- */

static tp_status ref_run(const tp_call *c, int trans_a, int trans_b, int bias, tp_activation act)
{
    const tp_shape sa = c->in[0].shape, sb = c->in[1].shape, so = c->out[0].shape;
    const int64_t rows = so.d[so.nd - 2], cols = so.d[so.nd - 1], depth = cols_of(sa, trans_a);
    const int64_t batches = tp_len(&c->out[0]) / (rows * cols > 0 ? rows * cols : 1);

    for (int64_t m = 0; m < batches; m++) {
        const int64_t a0 = batch_of(sa, so, m) * rows * depth, b0 = batch_of(sb, so, m) * depth * cols;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++) {
                double sum = bias ? tp_get(&c->in[2], j) : 0.0;
                for (int64_t k = 0; k < depth; k++)
                    sum += tp_get(&c->in[0], a0 + (trans_a ? k * rows + i : i * depth + k)) *
                           tp_get(&c->in[1], b0 + (trans_b ? j * depth + k : k * cols + j));
                tp_set(&c->out[0], (m * rows + i) * cols + j, tp_activate(sum, act));
            }
    }
    return TP_OK;
}

static tp_status matmul_ref(const tp_call *c)
{
    const tp_matmul_attr *attr = c->attr;
    return ref_run(c, attr->trans_a, attr->trans_b, 0, TP_ACT_NONE);
}

static tp_status gemm_ref(const tp_call *c)
{
    const tp_gemm_attr *attr = c->attr;
    return ref_run(c, attr->trans_a, attr->trans_b, has_bias(c), attr->act);
}

static tp_status input_grad_ref(const tp_call *c)
{
    const tp_gemm_attr *attr = c->attr;

    TP_TRY(ref_run(c, attr->trans_a, attr->trans_b, 0, TP_ACT_NONE));
    for (int64_t i = 0; i < tp_len(&c->out[0]); i++)
        tp_set(&c->out[0], i, tp_activate_grad(tp_get(&c->in[2], i), tp_get(&c->out[0], i), attr->act));
    return TP_OK;
}

static tp_status weight_grad_ref(const tp_call *c)
{
    const int64_t rows = c->in[0].shape.d[0], cols = c->in[0].shape.d[1];

    for (int64_t j = 0; j < cols; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < rows; i++)
            sum += tp_get(&c->in[0], i * cols + j);
        tp_set(&c->out[1], j, sum);
    }
    return ref_run(c, 1, 0, 0, TP_ACT_NONE);
}

/* ---- gradients: dA = dY op(B)^T, dB = op(A)^T dY, each laid out as the input lies in memory ---- */

static void matrix_grads(tp_graph *g, const tp_node *n, int ta, int tb, tp_val dy, const uint8_t *need,
                         tp_val *dx)
{
    const tp_val a = n->in[0], b = n->in[1];

    if (need[0])
        dx[0] =
            tp_sum_to(g, ta ? tp_matmul(g, b, dy, tb, 1) : tp_matmul(g, dy, b, 0, !tb), tp_val_shape(g, a));
    if (need[1])
        dx[1] =
            tp_sum_to(g, tb ? tp_matmul(g, dy, a, 1, ta) : tp_matmul(g, a, dy, !ta, 0), tp_val_shape(g, b));
}

static void grad_matmul(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_matmul_attr *attr = n->attr;
    matrix_grads(g, n, attr->trans_a, attr->trans_b, dy[0], need, dx);
}

static void grad_gemm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_gemm_attr *attr = n->attr;
    const tp_val dz = tp_activation_grad(g, n->out[0], dy[0], attr->act);
    const int with_bias = n->n_in > 2 && need[2],
              together = with_bias && need[1] && !attr->trans_a && attr->trans_b;

    matrix_grads(g, n, attr->trans_a, attr->trans_b, dz, (const uint8_t[]){need[0], need[1] && !together},
                 dx);
    if (together) {
        dx[1] = tp_gemm_weight_grad(g, dz, n->in[0]);
        dx[2] = dx[1] != 0 ? dx[1] + 1 : 0;
    } else if (with_bias)
        dx[2] = tp_reduce_sum(g, dz, 1, 0);
}

static void grad_gemm_weight_grad(tp_graph *g, const tp_node *n, const tp_val *d, const uint8_t *need,
                                  tp_val *dx)
{
    const tp_val dy = n->in[0], x = n->in[1];

    if (need[0] && d[0] != 0)
        dx[0] = tp_matmul(g, x, d[0], 0, 1);
    if (need[0] && d[1] != 0)
        dx[0] = dx[0] != 0 ? tp_add(g, dx[0], d[1]) : tp_expand(g, d[1], tp_val_shape(g, dy));
    if (need[1] && d[0] != 0)
        dx[1] = tp_matmul(g, dy, d[0], 0, 0);
}

/* ---- descriptors ---- */

static tp_cost cost_linear(const tp_call *c)
{
    tp_cost cost = tp_cost_stream(c);
    const tp_shape a = c->in[0].shape;
    const int64_t rows = c->out[0].shape.d[c->out[0].shape.nd - 2];
    const int64_t inner = a.d[a.nd - 1] * a.d[a.nd - 2] / (rows > 0 ? rows : 1);
    cost.flops = 2.0 * (double)tp_len(&c->out[0]) * (double)inner;
    return cost;
}

static const tp_matmul_attr nn = {0, 0}, tn = {1, 0}, nt = {0, 1}, tt = {1, 1};
static const tp_case cases_matmul[] = {
    {"1x1,1x1", -1.0, 1.0, 0, &nn, 0, 0},       {"5x7,7x3", -1.0, 1.0, 0, &nn, 0, 0},
    {"7x5,7x3", -1.0, 1.0, 0, &tn, 0, 0},       {"5x7,3x7", -1.0, 1.0, 0, &nt, 0, 0},
    {"7x5,3x7", -1.0, 1.0, 0, &tt, 0, 0},       {"2x4x5x6,4x6x3", -1.0, 1.0, 0, &nn, 0, 0},
    {"3x5x6,1x3x6", -1.0, 1.0, 0, &nt, 0, 0},   {"2x6x5,6x3", -1.0, 1.0, 0, &tn, 0, 0},
    {"67x129,129x33", -1.0, 1.0, 0, &nn, 0, 0}, {"3x0,0x4", -1.0, 1.0, 0, &nn, 0, TP_CASE_NO_GRAD},
    {"5x1100,1100x7", -1.0, 1.0, 0, &nn, 0, 0}, {"64x128x3,64x3x130", -1.0, 1.0, 0, &nn, 0, TP_CASE_NO_GRAD},
};
static const tp_gemm_attr dense = {0, 1, TP_ACT_NONE}, dense_relu = {0, 1, TP_ACT_RELU},
                          dense_tanh = {0, 1, TP_ACT_TANH}, dense_sigmoid = {0, 1, TP_ACT_SIGMOID},
                          plain = {0, 0, TP_ACT_NONE}, both = {1, 1, TP_ACT_NONE};
static const tp_case cases_gemm[] = {
    {"1x1,1x1,1", 0.2, 1.0, 0, &dense_relu, 0, 0},
    {"5x7,3x7,3", -1.0, 1.0, 0, &dense, 0, 0},
    {"9x17,33x17,33", -1.0, 1.0, 0, &dense_relu, 0, 0},
    {"9x17,33x17", -1.0, 1.0, 0, &dense_tanh, 0, 0},
    {"9x17,33x17,33", -1.0, 1.0, 0, &dense_sigmoid, 0, 0},
    {"6x5,5x8,8", -1.0, 1.0, 0, &plain, 0, 0},
    {"5x6,8x5,-", -1.0, 1.0, 0, &both, 0, 0},
    {"65x57,64x57,64", -1.0, 1.0, 0, &dense_relu, 0, 0},
    {"3x0,4x0,4", -1.0, 1.0, 0, &dense_tanh, 0, TP_CASE_NO_GRAD},
    {"6x1100,5x1100,5", -1.0, 1.0, 0, &dense_relu, 0, 0},
};

static const tp_impl matmul_dnnl = {"onednn", matmul_prepare, linear_run, linear_release, TP_IMPL_LIBRARY};
static const tp_impl matmul_cpu = {"simd", matmul_simd_prepare, matmul_simd, NULL, 0};
static const tp_impl matmul_cpu_ref = {"ref", tp_accept_float, matmul_ref, NULL, 0};
const tp_op tp_op_matmul = {.name = "matmul",
                            .onnx = "MatMul",
                            .min_in = 2,
                            .max_in = 2,
                            .n_out = 1,
                            .attr_size = sizeof(tp_matmul_attr),
                            .infer = infer_matmul,
                            .grad = grad_matmul,
                            .cost = cost_linear,
                            .cpu = TP_IMPLS(&matmul_dnnl, &matmul_cpu, &matmul_cpu_ref),
                            .cases = cases_matmul,
                            .n_cases = TP_COUNT(cases_matmul)};

static const tp_impl gemm_dnnl = {"onednn", gemm_prepare, linear_run, linear_release, TP_IMPL_LIBRARY};
static const tp_impl gemm_cpu = {"simd", gemm_simd_prepare, gemm_simd, NULL, 0};
static const tp_impl gemm_cpu_ref = {"ref", tp_accept_float, gemm_ref, NULL, 0};
const tp_op tp_op_gemm = {.name = "gemm",
                          .onnx = "Gemm",
                          .min_in = 2,
                          .max_in = 3,
                          .n_out = 1,
                          .attr_size = sizeof(tp_gemm_attr),
                          .infer = infer_gemm,
                          .grad = grad_gemm,
                          .cost = cost_linear,
                          .cpu = TP_IMPLS(&gemm_dnnl, &gemm_cpu, &gemm_cpu_ref),
                          .cases = cases_gemm,
                          .n_cases = TP_COUNT(cases_gemm)};

static const tp_gemm_attr through_relu = {0, 0, TP_ACT_RELU}, through_tanh = {0, 0, TP_ACT_TANH},
                          through_sigmoid = {0, 1, TP_ACT_SIGMOID}, across_relu = {1, 1, TP_ACT_RELU};
static const tp_case cases_gemm_input_grad[] = {
    {"1x1,1x1,1x1", 0.2, 1.0, 0, &through_relu, 0, TP_CASE_NO_GRAD},
    {"5x3,3x7,5x7", -1.0, 1.0, 0, &through_relu, 0, TP_CASE_NO_GRAD},
    {"9x33,33x17,9x17", -1.0, 1.0, 0, &through_tanh, 0, TP_CASE_NO_GRAD},
    {"9x33,17x33,9x17", -1.0, 1.0, 0, &through_sigmoid, 0, TP_CASE_NO_GRAD},
    {"6x9,130x6,9x130", -1.0, 1.0, 0, &across_relu, 0, TP_CASE_NO_GRAD},
    {"65x64,64x257,65x257", -1.0, 1.0, 0, &through_relu, 0, TP_CASE_NO_GRAD},
    {"5x1100,1100x6,5x6", -1.0, 1.0, 0, &through_tanh, 0, TP_CASE_NO_GRAD},
    {"3x0,0x4,3x4", -1.0, 1.0, 0, &through_relu, 0, TP_CASE_NO_GRAD},
};
static const tp_impl input_grad_dnnl = {"onednn", input_grad_prepare, input_grad_run, linear_release,
                                        TP_IMPL_LIBRARY};
static const tp_impl input_grad_cpu = {"simd", gemm_simd_prepare, input_grad_simd, NULL, 0};
static const tp_impl input_grad_cpu_ref = {"ref", tp_accept_float, input_grad_ref, NULL, 0};
const tp_op tp_op_gemm_input_grad = {.name = "gemm_input_grad",
                                     .min_in = 3,
                                     .max_in = 3,
                                     .n_out = 1,
                                     .attr_size = sizeof(tp_gemm_attr),
                                     .infer = infer_gemm_input_grad,
                                     .cost = cost_linear,
                                     .cpu = TP_IMPLS(&input_grad_dnnl, &input_grad_cpu, &input_grad_cpu_ref),
                                     .cases = cases_gemm_input_grad,
                                     .n_cases = TP_COUNT(cases_gemm_input_grad)};

static const tp_case cases_gemm_weight_grad[] = {
    {"1x1,1x1", 0.2, 1.0, 0, NULL, 0, 0},
    {"5x3,5x7", -1.0, 1.0, 0, NULL, 0, 0},
    {"9x33,9x17", -1.0, 1.0, 0, NULL, 0, 0},
    {"65x64,65x57", -1.0, 1.0, 0, NULL, 0, 0},
    {"1100x5,1100x6", -1.0, 1.0, 0, NULL, 0, 0},
    {"3x70,3x130", -1.0, 1.0, 0, NULL, 0, 0},
    {"0x4,0x3", -1.0, 1.0, 0, NULL, 0, TP_CASE_NO_GRAD},
};
static const tp_impl weight_grad_dnnl = {"onednn", weight_grad_prepare, weight_grad_run, linear_release,
                                         TP_IMPL_LIBRARY};
static const tp_impl weight_grad_cpu = {"simd", weight_grad_simd_prepare, weight_grad_simd, NULL, 0};
static const tp_impl weight_grad_cpu_ref = {"ref", tp_accept_float, weight_grad_ref, NULL, 0};
const tp_op tp_op_gemm_weight_grad = {.name = "gemm_weight_grad",
                                      .min_in = 2,
                                      .max_in = 2,
                                      .n_out = 2,
                                      .infer = infer_gemm_weight_grad,
                                      .grad = grad_gemm_weight_grad,
                                      .cost = cost_linear,
                                      .cpu =
                                          TP_IMPLS(&weight_grad_dnnl, &weight_grad_cpu, &weight_grad_cpu_ref),
                                      .cases = cases_gemm_weight_grad,
                                      .n_cases = TP_COUNT(cases_gemm_weight_grad)};

tp_val tp_gemm_input_grad(tp_graph *g, tp_val a, tp_val b, tp_val y, tp_gemm_attr attr)
{
    return tp_graph_add(g, &tp_op_gemm_input_grad, 3, (const tp_val[]){a, b, y}, &attr);
}

tp_val tp_gemm_weight_grad(tp_graph *g, tp_val dy, tp_val x)
{
    return tp_graph_add(g, &tp_op_gemm_weight_grad, 2, (const tp_val[]){dy, x}, NULL);
}

tp_val tp_matmul(tp_graph *g, tp_val a, tp_val b, int trans_a, int trans_b)
{
    return tp_graph_add(g, &tp_op_matmul, 2, (const tp_val[]){a, b},
                        &(const tp_matmul_attr){trans_a, trans_b});
}

tp_val tp_gemm(tp_graph *g, tp_val a, tp_val b, tp_val c, tp_gemm_attr attr)
{
    return tp_graph_add(g, &tp_op_gemm, 3, (const tp_val[]){a, b, c}, &attr);
}
