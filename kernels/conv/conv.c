/* conv.c - convolution and its two gradients, 1-D and 2-D, with stride, padding, dilation and groups.
 *
 * oneDNN works in the memory layout that suits the shape (see layout_of); where that is not the one at hand,
 * NCHW or channels last, the operand is reordered in scratch memory before or after the call. The plain loops
 * are the reference. */
#include "kernels/conv/conv.h"
#include "host/core/mem.h"
#include "kernels/cpu.h"
#include "kernels/dnnl.h"
#include "kernels/elementwise/broadcast.h"
#include "kernels/linear/activation.h"
#include <assert.h>
#include <string.h>

/* ---- shapes ---- */

/* Strides, paddings, dilations and kernels above this are refused: products of them stay in 64 bits. */
#define MOST (1 << 24)

static tp_status check_conv(tp_shape x, tp_shape w, tp_conv_attr attr, tp_shape *y)
{
    const tp_conv_attr a = tp_conv_filled(attr);
    const int ch = tp_image_channel_dim(x.nd, a.channels_last), first = tp_image_first_dim(a.channels_last);

    TP_CHECK((x.nd == 3 || x.nd == 4) && w.nd == x.nd, TP_ESHAPE,
             "x has %d and w %d dimensions, want both 3 or both 4", x.nd, w.nd);
    TP_CHECK(a.groups > 0 && x.d[ch] % a.groups == 0 && w.d[0] % a.groups == 0 &&
                 w.d[ch] == x.d[ch] / a.groups,
             TP_ESHAPE, "%lld channels, %lld filters of %lld channels and %lld groups do not fit",
             (long long)x.d[ch], (long long)w.d[0], (long long)w.d[ch], (long long)a.groups);
    for (int i = 0; i < x.nd - 2; i++) {
        TP_CHECK(a.stride[i] > 0 && a.stride[i] <= MOST && a.pad[i] >= 0 && a.pad[i] <= MOST &&
                     a.dilation[i] > 0 && a.dilation[i] <= MOST,
                 TP_ESHAPE, "stride %lld, padding %lld, dilation %lld: want 1, 0, 1 or more, at most %d",
                 (long long)a.stride[i], (long long)a.pad[i], (long long)a.dilation[i], MOST);
        TP_CHECK(w.d[first + i] > 0 && w.d[first + i] <= MOST, TP_ESHAPE, "a kernel of %lld, want 1 to %d",
                 (long long)w.d[first + i], MOST);
    }
    *y = x;
    y->d[ch] = w.d[0];
    for (int i = 0; i < x.nd - 2; i++) {
        const int at = first + i;
        y->d[at] = tp_conv_out_size(x.d[at], w.d[at], a.stride[i], a.pad[i], a.dilation[i]);
        TP_CHECK(y->d[at] > 0, TP_ESHAPE, "the kernel of %lld does not fit a %s of %lld", (long long)w.d[at],
                 i == x.nd - 3 ? "width" : "height", (long long)x.d[at]);
    }
    return TP_OK;
}

static tp_status same_float(const tp_infer *x)
{
    for (int i = 0; i < 2; i++)
        TP_CHECK(tp_is_float(x->dtype[i]) && x->dtype[i] == x->dtype[0], TP_ESHAPE,
                 "input %d is %s, want one float dtype", i, tp_dtype_name(x->dtype[i]));
    return TP_OK;
}

static tp_status infer_conv(tp_infer *x)
{
    const tp_conv_attr *a = x->attr;

    TP_TRY(same_float(x));
    TP_TRY(tp_activation_check(a->act));
    TP_TRY(check_conv(x->shape[0], x->shape[1], *a, &x->out_shape[0]));
    TP_CHECK(x->n_in < 3 || x->dtype[2] == TP_DTYPE_NONE ||
                 (x->shape[2].nd == 1 && x->shape[2].d[0] == x->shape[1].d[0] &&
                  x->dtype[2] == tp_sums_dtype(x->dtype[0])),
             TP_ESHAPE, "bias must have %lld values of %s", (long long)x->shape[1].d[0],
             tp_dtype_name(tp_sums_dtype(x->dtype[0])));
    return TP_OK;
}

/* inputs of conv_input_grad: w, dy; of conv_weight_grad: x, dy */
static tp_status infer_input_grad(tp_infer *x)
{
    const tp_conv_grad_attr *a = x->attr;
    tp_shape y;

    TP_TRY(same_float(x));
    TP_TRY(check_conv(a->shape, x->shape[0], a->conv, &y));
    TP_CHECK(tp_shape_equal(y, x->shape[1]), TP_ESHAPE,
             "dy does not have the shape of the convolution's output");
    x->out_shape[0] = a->shape;
    return TP_OK;
}

static tp_status infer_weight_grad(tp_infer *x)
{
    const tp_conv_grad_attr *a = x->attr;
    tp_shape y;

    TP_TRY(same_float(x));
    TP_TRY(check_conv(x->shape[0], a->shape, a->conv, &y));
    TP_CHECK(tp_shape_equal(y, x->shape[1]), TP_ESHAPE,
             "dy does not have the shape of the convolution's output");
    x->out_shape[0] = a->shape;
    return TP_OK;
}

/* ---- oneDNN ---- */

/* One operand: our layout, the layout the primitive wants, and the copy between them where they differ. */
typedef struct operand {
    dnnl_memory_desc_t plain, want;
    tp_dnnl reorder;
    int differs, arg_at; /* position among the primitive's arguments */
    size_t offset;       /* of the reordered copy in scratch */
    int is_output;
} operand;

typedef struct conv_state {
    tp_dnnl conv;
    operand op[3];
    int n_ops, has_bias, bias_at;
    size_t pad_offset[4]; /* scratchpads: the primitive's, then each reorder's */
} conv_state;

static void conv_release(void *state)
{
    conv_state *s = state;
    tp_dnnl_destroy(&s->conv);
    for (int i = 0; i < 3; i++)
        tp_dnnl_destroy(&s->op[i].reorder);
    tp_free(s);
}

typedef enum conv_pass { FORWARD, INPUT_GRAD, WEIGHT_GRAD } conv_pass;

/* The layout of x and y; weights are always oneDNN's choice. Kernels wider than 1x1 over many channels run
 * best channels last; with few channels that makes the gradients slow, so there oneDNN chooses. Our own
 * layout, which needs no reorder, is best for the gradient of an input of very few channels and for a 1x1
 * convolution without stride, but for the gradient of its weights. */
static dnnl_format_tag_t layout_of(const tp_conv_dims *d, int nd, conv_pass pass)
{
    const int last = nd == 3 ? dnnl_nwc : dnnl_nhwc, ours = nd == 3 ? dnnl_ncw : dnnl_nchw;

    if (d->groups == 1 && d->c < 4 && pass == INPUT_GRAD)
        return (dnnl_format_tag_t)ours;
    if (d->groups > 1 || d->c < 8 || d->m < 8)
        return dnnl_format_tag_any;
    if (d->kh * d->kw > 1)
        return (dnnl_format_tag_t)last;
    return pass != WEIGHT_GRAD && d->stride[0] * d->stride[1] == 1 ? (dnnl_format_tag_t)ours
                                                                   : dnnl_format_tag_any;
}

/* An image, or filters with their groups as a leading dimension where there are several, as it lies in
 * memory; oneDNN counts dimensions in the order N, C, H, W. */
static tp_status image_md(dnnl_memory_desc_t *md, int64_t groups, int64_t n, int64_t c, int64_t h, int64_t w,
                          tp_image_step s, int flat)
{
    dnnl_dims_t dims, strides;
    int nd = 0;

    if (groups > 1) {
        dims[nd] = groups;
        strides[nd++] = n / groups * s.n;
        n /= groups;
    }
    dims[nd] = n;
    strides[nd++] = s.n;
    dims[nd] = c;
    strides[nd++] = s.c;
    if (!flat) {
        dims[nd] = h;
        strides[nd++] = s.h;
    }
    dims[nd] = w;
    strides[nd++] = s.w;
    TP_DNNL(dnnl_memory_desc_init_by_strides(md, nd, dims, dnnl_f32, strides));
    return TP_OK;
}

static tp_status tag_md(dnnl_memory_desc_t *md, const dnnl_memory_desc_t *like, dnnl_format_tag_t tag)
{
    TP_DNNL(dnnl_memory_desc_init_by_tag(md, like->ndims, like->dims, dnnl_f32, tag));
    return TP_OK;
}

typedef struct conv_spec {
    dnnl_memory_desc_t x, w, b, y, lib_x, lib_w, lib_y;
    dnnl_dims_t stride, dilation, pad;
    int has_bias;
} conv_spec;

static tp_status spec_init(conv_spec *s, tp_shape x, tp_shape w, const tp_tensor *bias, tp_conv_attr attr,
                           conv_pass pass)
{
    const tp_conv_attr a = tp_conv_filled(attr);
    const tp_conv_dims d = tp_conv_dims_of(x, w, a);
    const dnnl_format_tag_t layout = layout_of(&d, x.nd, pass);
    const int flat = x.nd == 3;

    TP_TRY(image_md(&s->x, 1, d.n, d.c, d.h, d.w, d.x, flat));
    TP_TRY(image_md(&s->w, d.groups, d.m, d.c / d.groups, d.kh, d.kw, d.f, flat));
    TP_TRY(image_md(&s->y, 1, d.n, d.m, d.oh, d.ow, d.y, flat));
    TP_TRY(tag_md(&s->lib_x, &s->x, layout));
    TP_TRY(tag_md(&s->lib_w, &s->w, dnnl_format_tag_any));
    TP_TRY(tag_md(&s->lib_y, &s->y, layout));
    s->has_bias = bias != NULL;
    if (bias != NULL)
        TP_TRY(tp_dnnl_md(&s->b, bias->shape, 0));
    for (int i = 0; i < x.nd - 2; i++) {
        s->stride[i] = a.stride[i];
        s->dilation[i] = a.dilation[i] - 1; /* oneDNN counts the gaps */
        s->pad[i] = a.pad[i];
    }
    return TP_OK;
}

static tp_status forward_desc(const conv_spec *s, dnnl_convolution_desc_t *desc)
{
    TP_DNNL(dnnl_dilated_convolution_forward_desc_init(desc, dnnl_forward_training, dnnl_convolution_direct,
                                                       &s->lib_x, &s->lib_w, s->has_bias ? &s->b : NULL,
                                                       &s->lib_y, s->stride, s->dilation, s->pad, s->pad));
    return TP_OK;
}

/* Adds an operand; its reorder and scratch only if the layouts differ. */
static tp_status add_operand(conv_state *s, const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *want,
                             int arg, int is_output, size_t *scratch)
{
    const int at = s->n_ops++;
    operand *o = &s->op[at];
    dnnl_engine_t e;
    dnnl_primitive_desc_t pd = NULL;

    o->plain = *plain;
    o->want = *want;
    o->is_output = is_output;
    o->differs = !dnnl_memory_desc_equal(plain, want);
    o->arg_at = s->conv.n_args;
    TP_TRY(tp_dnnl_arg(&s->conv, arg, want));
    if (!o->differs)
        return TP_OK;
    TP_TRY(tp_dnnl_engine(&e));
    o->offset = *scratch;
    *scratch += (dnnl_memory_desc_get_size(want) + 63) / 64 * 64;
    s->pad_offset[1 + at] = *scratch;
    const dnnl_memory_desc_t *src = is_output ? want : plain, *dst = is_output ? plain : want;
    dnnl_primitive_attr_t attr = NULL;
    TP_TRY(tp_dnnl_attr(&attr));
    const dnnl_status_t made = dnnl_reorder_primitive_desc_create(&pd, src, e, dst, e, attr);
    dnnl_primitive_attr_destroy(attr);
    TP_DNNL(made);
    o->reorder.serial = s->conv.serial;
    tp_status st = tp_dnnl_from_pd(&o->reorder, pd, scratch);
    dnnl_primitive_desc_destroy(pd);
    TP_TRY(st);
    TP_TRY(tp_dnnl_arg(&o->reorder, DNNL_ARG_FROM, src));
    return tp_dnnl_arg(&o->reorder, DNNL_ARG_TO, dst);
}

static void *operand_data(const conv_state *s, int i, const tp_call *c, void *plain)
{
    return s->op[i].differs ? (char *)c->scratch + s->op[i].offset : plain;
}

static tp_status reorder(conv_state *s, int i, const tp_call *c, void *plain)
{
    operand *o = &s->op[i];
    void *copy = (char *)c->scratch + o->offset;

    TP_TRY(tp_dnnl_bind(&o->reorder, 0, (char *)c->scratch + s->pad_offset[1 + i]));
    TP_TRY(tp_dnnl_bind(&o->reorder, 1, o->is_output ? copy : plain));
    TP_TRY(tp_dnnl_bind(&o->reorder, 2, o->is_output ? plain : copy));
    return tp_dnnl_run(&o->reorder);
}

/* Operands 0 and 1 are inputs, operand 2 is the output. */
static tp_status run_state(const tp_call *c, void *bias)
{
    conv_state *s = c->state;
    void *plain[3] = {c->in[0].data, c->in[1].data, c->out[0].data};

    for (int i = 0; i < 2; i++)
        if (s->op[i].differs)
            TP_TRY(reorder(s, i, c, plain[i]));
    TP_TRY(tp_dnnl_bind(&s->conv, 0, (char *)c->scratch + s->pad_offset[0]));
    for (int i = 0; i < 3; i++)
        TP_TRY(tp_dnnl_bind(&s->conv, s->op[i].arg_at, operand_data(s, i, c, plain[i])));
    if (s->has_bias)
        TP_TRY(tp_dnnl_bind(&s->conv, s->bias_at, bias));
    TP_TRY(tp_dnnl_run(&s->conv));
    return s->op[2].differs ? reorder(s, 2, c, plain[2]) : TP_OK;
}

static tp_status make_primitive(conv_state *s, const void *desc, dnnl_primitive_desc_t hint,
                                dnnl_primitive_desc_t *pd, size_t *scratch)
{
    dnnl_primitive_attr_t attr = NULL;

    TP_TRY(tp_dnnl_attr(&attr));
    s->pad_offset[0] = *scratch;
    const tp_status st = tp_dnnl_primitive(&s->conv, desc, attr, hint, pd, scratch);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

static const dnnl_memory_desc_t *query(dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(pd, what, 0);
}

static tp_status create_forward(conv_state *s, const conv_spec *spec, dnnl_primitive_desc_t *pd,
                                size_t *scratch)
{
    dnnl_convolution_desc_t desc;

    TP_TRY(forward_desc(spec, &desc));
    TP_TRY(make_primitive(s, &desc, NULL, pd, scratch));
    TP_TRY(add_operand(s, &spec->x, query(*pd, dnnl_query_src_md), DNNL_ARG_SRC, 0, scratch));
    TP_TRY(add_operand(s, &spec->w, query(*pd, dnnl_query_weights_md), DNNL_ARG_WEIGHTS, 0, scratch));
    TP_TRY(add_operand(s, &spec->y, query(*pd, dnnl_query_dst_md), DNNL_ARG_DST, 1, scratch));
    s->has_bias = spec->has_bias;
    s->bias_at = s->conv.n_args;
    return spec->has_bias ? tp_dnnl_arg(&s->conv, DNNL_ARG_BIAS, &spec->b) : TP_OK;
}

/* The forward primitive descriptor that a backward one asks for as a hint. */
static tp_status make_hint(const conv_spec *spec, dnnl_primitive_desc_t *hint)
{
    dnnl_convolution_desc_t desc;
    dnnl_engine_t e;

    TP_TRY(tp_dnnl_engine(&e));
    TP_TRY(forward_desc(spec, &desc));
    TP_DNNL(dnnl_primitive_desc_create(hint, &desc, NULL, e, NULL));
    return TP_OK;
}

static tp_status create_input_grad(conv_state *s, const conv_spec *spec, dnnl_primitive_desc_t hint,
                                   dnnl_primitive_desc_t *pd, size_t *scratch)
{
    dnnl_convolution_desc_t desc;

    TP_DNNL(dnnl_dilated_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, &spec->lib_x,
                                                             &spec->lib_w, &spec->lib_y, spec->stride,
                                                             spec->dilation, spec->pad, spec->pad));
    TP_TRY(make_primitive(s, &desc, hint, pd, scratch));
    TP_TRY(add_operand(s, &spec->w, query(*pd, dnnl_query_weights_md), DNNL_ARG_WEIGHTS, 0, scratch));
    TP_TRY(add_operand(s, &spec->y, query(*pd, dnnl_query_diff_dst_md), DNNL_ARG_DIFF_DST, 0, scratch));
    return add_operand(s, &spec->x, query(*pd, dnnl_query_diff_src_md), DNNL_ARG_DIFF_SRC, 1, scratch);
}

static tp_status create_weight_grad(conv_state *s, const conv_spec *spec, dnnl_primitive_desc_t hint,
                                    dnnl_primitive_desc_t *pd, size_t *scratch)
{
    dnnl_convolution_desc_t desc;

    TP_DNNL(dnnl_dilated_convolution_backward_weights_desc_init(
        &desc, dnnl_convolution_direct, &spec->lib_x, &spec->lib_w, NULL, &spec->lib_y, spec->stride,
        spec->dilation, spec->pad, spec->pad));
    TP_TRY(make_primitive(s, &desc, hint, pd, scratch));
    TP_TRY(add_operand(s, &spec->x, query(*pd, dnnl_query_src_md), DNNL_ARG_SRC, 0, scratch));
    TP_TRY(add_operand(s, &spec->y, query(*pd, dnnl_query_diff_dst_md), DNNL_ARG_DIFF_DST, 0, scratch));
    return add_operand(s, &spec->w, query(*pd, dnnl_query_diff_weights_md), DNNL_ARG_DIFF_WEIGHTS, 1,
                       scratch);
}

static double elements(const dnnl_memory_desc_t *md)
{
    double n = 1.0;
    for (int i = 0; i < md->ndims; i++)
        n *= (double)md->dims[i];
    return n;
}

/* Each output is a sum over one filter; the gradients are the same sums in another order. */
static double flops_of(const conv_spec *spec)
{
    return 2.0 * elements(&spec->y) * elements(&spec->w) / (double)spec->y.dims[1];
}

static tp_status create_pass(conv_state *s, const conv_spec *spec, conv_pass pass, size_t *scratch)
{
    dnnl_primitive_desc_t pd = NULL, hint = NULL;
    tp_status st = TP_OK;

    tp_dnnl_work(&s->conv, flops_of(spec));
    if (pass != FORWARD)
        TP_TRY(make_hint(spec, &hint));
    if (pass == FORWARD)
        st = create_forward(s, spec, &pd, scratch);
    else if (pass == INPUT_GRAD)
        st = create_input_grad(s, spec, hint, &pd, scratch);
    else
        st = create_weight_grad(s, spec, hint, &pd, scratch);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (hint != NULL)
        dnnl_primitive_desc_destroy(hint);
    return st;
}

static tp_status prepare_pass(tp_call *c, size_t *scratch, conv_pass pass)
{
    conv_state *s = NULL;
    conv_spec spec = {.has_bias = 0};
    const tp_conv_grad_attr *ga = c->attr;
    const tp_conv_attr *fa = c->attr;

    TP_TRY(tp_accept_f32(c, scratch));
    if (pass == FORWARD) {
        const tp_tensor *bias = c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE ? &c->in[2] : NULL;
        TP_TRY(spec_init(&spec, c->in[0].shape, c->in[1].shape, bias, *fa, pass));
    } else if (pass == INPUT_GRAD)
        TP_TRY(spec_init(&spec, ga->shape, c->in[0].shape, NULL, ga->conv, pass));
    else
        TP_TRY(spec_init(&spec, c->in[0].shape, ga->shape, NULL, ga->conv, pass));
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "oneDNN convolution"));
    const tp_status st = create_pass(s, &spec, pass, scratch);
    if (st != TP_OK) {
        conv_release(s);
        return st;
    }
    c->state = s;
    return TP_OK;
}

static tp_status forward_prepare(tp_call *c, size_t *scratch)
{
    return prepare_pass(c, scratch, FORWARD);
}

static tp_status input_grad_prepare(tp_call *c, size_t *scratch)
{
    return prepare_pass(c, scratch, INPUT_GRAD);
}

static tp_status weight_grad_prepare(tp_call *c, size_t *scratch)
{
    return prepare_pass(c, scratch, WEIGHT_GRAD);
}

static tp_status forward_run(const tp_call *c)
{
    TP_TRY(run_state(c, c->n_in > 2 ? c->in[2].data : NULL));
    tp_activate_all(tp_out_f32(c, 0), tp_len(&c->out[0]), ((const tp_conv_attr *)c->attr)->act);
    return TP_OK;
}

static tp_status grad_run(const tp_call *c)
{
    return run_state(c, NULL);
}

/* ---- references ---- */

/* Where output pixel o reads through kernel tap k, or -1 in the padding. */
static int64_t source(const tp_conv_dims *d, int axis, int64_t o, int64_t k, int64_t size)
{
    const int64_t at = o * d->stride[axis] - d->pad[axis] + k * d->dilation[axis];
    return at >= 0 && at < size ? at : -1;
}

/* Calls visit(x index, w index, y index) for every product of the convolution. */
#define VISIT(d, X, W, Y, STATEMENT)                                                                         \
    for (int64_t n = 0; n < (d).n; n++)                                                                      \
        for (int64_t m = 0; m < (d).m; m++)                                                                  \
            for (int64_t i = 0; i < (d).oh; i++)                                                             \
                for (int64_t j = 0; j < (d).ow; j++)                                                         \
                    for (int64_t c0 = 0; c0 < (d).c / (d).groups; c0++)                                      \
                        for (int64_t p = 0; p < (d).kh; p++)                                                 \
                            for (int64_t q = 0; q < (d).kw; q++) {                                           \
                                const int64_t r = source(&(d), 0, i, p, (d).h),                              \
                                              s = source(&(d), 1, j, q, (d).w);                              \
                                if (r < 0 || s < 0)                                                          \
                                    continue;                                                                \
                                const int64_t ch = m / ((d).m / (d).groups) * ((d).c / (d).groups) + c0;     \
                                const int64_t X = tp_image_at((d).x, n, ch, r, s);                           \
                                const int64_t W = tp_image_at((d).f, m, c0, p, q);                           \
                                const int64_t Y = tp_image_at((d).y, n, m, i, j);                            \
                                STATEMENT;                                                                   \
                            }

static void clear(double *sum, int64_t n)
{
    memset(sum, 0, (size_t)n * sizeof(double));
}

static tp_status ref_prepare(tp_call *c, size_t *scratch)
{
    *scratch = (size_t)tp_len(&c->out[0]) * sizeof(double);
    return TP_OK;
}

static tp_status forward_ref(const tp_call *c)
{
    const tp_conv_attr *a = c->attr;
    const tp_conv_dims d = tp_conv_dims_of(c->in[0].shape, c->in[1].shape, *a);
    const int has_bias = c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE;
    double *sum = c->scratch;

    clear(sum, tp_len(&c->out[0]));
    VISIT(d, x, w, y, sum[y] += tp_get(&c->in[0], x) * tp_get(&c->in[1], w))
    for (int64_t y = 0, len = tp_len(&c->out[0]); y < len; y++) {
        assert(d.y.c > 0); /* there is a y */
        const double bias = has_bias ? tp_get(&c->in[2], d.last ? y % d.m : y / d.y.c % d.m) : 0.0;
        tp_set(&c->out[0], y, tp_activate(sum[y] + bias, a->act));
    }
    return TP_OK;
}

static tp_status input_grad_ref(const tp_call *c)
{
    const tp_conv_grad_attr *a = c->attr;
    const tp_conv_dims d = tp_conv_dims_of(a->shape, c->in[0].shape, a->conv);
    double *sum = c->scratch;

    clear(sum, tp_len(&c->out[0]));
    VISIT(d, x, w, y, sum[x] += tp_get(&c->in[0], w) * tp_get(&c->in[1], y))
    for (int64_t x = 0, len = tp_len(&c->out[0]); x < len; x++)
        tp_set(&c->out[0], x, sum[x]);
    return TP_OK;
}

static tp_status weight_grad_ref(const tp_call *c)
{
    const tp_conv_grad_attr *a = c->attr;
    const tp_conv_dims d = tp_conv_dims_of(c->in[0].shape, a->shape, a->conv);
    double *sum = c->scratch;

    clear(sum, tp_len(&c->out[0]));
    VISIT(d, x, w, y, sum[w] += tp_get(&c->in[0], x) * tp_get(&c->in[1], y))
    for (int64_t w = 0, len = tp_len(&c->out[0]); w < len; w++)
        tp_set(&c->out[0], w, sum[w]);
    return TP_OK;
}

/* ---- gradients ---- */

static void grad_conv(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_conv_attr *a = n->attr;
    const tp_val dz = tp_activation_grad(g, n->out[0], dy[0], a->act);

    if (need[0])
        dx[0] = tp_conv_input_grad(g, tp_val_shape(g, n->in[0]), n->in[1], dz, *a);
    if (need[1])
        dx[1] = tp_conv_weight_grad(g, n->in[0], tp_val_shape(g, n->in[1]), dz, *a);
    if (n->n_in > 2 && need[2]) {
        const int nd = tp_val_shape(g, dz).nd;
        dx[2] = tp_reduce_sum(g, tp_cast(g, dz, TP_F32),
                              ((1u << nd) - 1u) & ~(1u << tp_image_channel_dim(nd, a->channels_last)), 0);
    }
}

static tp_conv_attr without_act(tp_conv_attr a)
{
    a.act = TP_ACT_NONE;
    return a;
}

static void grad_input_grad(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_conv_grad_attr *a = n->attr;
    if (need[0])
        dx[0] = tp_conv_weight_grad(g, dy[0], tp_val_shape(g, n->in[0]), n->in[1], a->conv);
    if (need[1])
        dx[1] = tp_conv(g, dy[0], n->in[0], 0, without_act(a->conv));
}

static void grad_weight_grad(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_conv_grad_attr *a = n->attr;
    if (need[0])
        dx[0] = tp_conv_input_grad(g, tp_val_shape(g, n->in[0]), dy[0], n->in[1], a->conv);
    if (need[1])
        dx[1] = tp_conv(g, n->in[0], dy[0], 0, without_act(a->conv));
}

/* ---- descriptors ---- */

static double products(tp_conv_dims d)
{
    const int64_t window = d.c / d.groups * d.kh * d.kw;
    return 2.0 * (double)(d.n * d.m * d.oh * d.ow) * (double)window;
}

static tp_cost cost_conv(const tp_call *c)
{
    tp_cost cost = tp_cost_stream(c);
    cost.flops = products(tp_conv_dims_of(c->in[0].shape, c->in[1].shape, *(const tp_conv_attr *)c->attr));
    return cost;
}

static tp_cost cost_input_grad(const tp_call *c)
{
    const tp_conv_grad_attr *a = c->attr;
    tp_cost cost = tp_cost_stream(c);
    cost.flops = products(tp_conv_dims_of(a->shape, c->in[0].shape, a->conv));
    return cost;
}

static tp_cost cost_weight_grad(const tp_call *c)
{
    const tp_conv_grad_attr *a = c->attr;
    tp_cost cost = tp_cost_stream(c);
    cost.flops = products(tp_conv_dims_of(c->in[0].shape, a->shape, a->conv));
    return cost;
}

/* Attributes, with channels last or not. */
#define PLAIN(last)                                                                                          \
    {                                                                                                        \
        {1, 1}, {0, 0}, {1, 1}, 1, TP_ACT_NONE, last                                                         \
    }
#define SAME(last)                                                                                           \
    {                                                                                                        \
        {1, 1}, {1, 1}, {1, 1}, 1, TP_ACT_RELU, last                                                         \
    }
#define STRIDE(last)                                                                                         \
    {                                                                                                        \
        {2, 2}, {1, 1}, {1, 1}, 1, TP_ACT_NONE, last                                                         \
    }
#define DILATE(last)                                                                                         \
    {                                                                                                        \
        {1, 2}, {2, 1}, {2, 1}, 1, TP_ACT_TANH, last                                                         \
    }
#define GROUP(last)                                                                                          \
    {                                                                                                        \
        {1, 1}, {1, 1}, {1, 1}, 2, TP_ACT_SIGMOID, last                                                      \
    }
#define DEPTH(last)                                                                                          \
    {                                                                                                        \
        {2, 1}, {1, 1}, {1, 1}, 6, TP_ACT_NONE, last                                                         \
    }
#define FLAT(last)                                                                                           \
    {                                                                                                        \
        {2, 0}, {1, 0}, {1, 0}, 1, TP_ACT_NONE, last                                                         \
    }
static const tp_conv_attr c_plain = PLAIN(0), c_same = SAME(0), c_stride = STRIDE(0), c_dilate = DILATE(0),
                          c_group = GROUP(0), c_depth = DEPTH(0), c_flat = FLAT(0);
static const tp_conv_attr l_plain = PLAIN(1), l_same = SAME(1), l_stride = STRIDE(1), l_dilate = DILATE(1),
                          l_group = GROUP(1), l_depth = DEPTH(1), l_flat = FLAT(1);
/* Channels last. */
#define STRIDED                                                                                              \
    {                                                                                                        \
        {2, 2}, {1, 2}, {1, 1}, 1, TP_ACT_NONE, 1                                                            \
    }
#define WIDE                                                                                                 \
    {                                                                                                        \
        {1, 1}, {2, 2}, {1, 1}, 1, TP_ACT_NONE, 1                                                            \
    }
#define TALL                                                                                                 \
    {                                                                                                        \
        {1, 2}, {2, 1}, {2, 1}, 1, TP_ACT_NONE, 1                                                            \
    }
static const tp_conv_attr l_strided = STRIDED, l_wide = WIDE, l_tall = TALL;
static const tp_case cases_conv[] = {
    {"1x1x1x1,1x1x1x1,1", 0.2, 1.0, 0, &c_plain, 0, 0},
    {"2x3x7x6,5x3x3x3,5", -1.0, 1.0, 0, &c_same, 0, 0},
    {"2x3x9x8,4x3x3x3,-", -1.0, 1.0, 0, &c_stride, 0, 0},
    {"2x4x9x9,3x4x3x3,3", -1.0, 1.0, 0, &c_dilate, 0, 0},
    {"2x4x5x5,6x2x3x3,6", -1.0, 1.0, 0, &c_group, 0, 0},
    {"2x6x7x5,6x1x3x3,6", -1.0, 1.0, 0, &c_depth, 0, 0},
    {"3x4x17,5x4x3,5", -1.0, 1.0, 0, &c_flat, 0, 0},
    {"4x16x14x14,32x16x3x3,32", -1.0, 1.0, 0, &c_same, 0, 0},
    {"2x17x9x8,19x17x1x1,19", -1.0, 1.0, 0, &c_same, 0, 0},
    {"2x9x11x9,10x9x3x3,10", -1.0, 1.0, 0, &c_dilate, 0, 0},
    {"2x16x33,24x16x5,24", -1.0, 1.0, 0, &c_flat, 0, 0},
    {"2x7x6x3,5x3x3x3,5", -1.0, 1.0, 0, &l_same, 0, 0},
    {"2x9x8x3,4x3x2x3,-", -1.0, 1.0, 0, &l_stride, 0, 0},
    {"2x9x9x4,3x3x2x4,3", -1.0, 1.0, 0, &l_dilate, 0, 0},
    {"2x5x5x4,6x3x3x2,6", -1.0, 1.0, 0, &l_group, 0, 0},
    {"2x7x5x6,6x3x3x1,6", -1.0, 1.0, 0, &l_depth, 0, 0},
    {"3x17x4,5x3x4,5", -1.0, 1.0, 0, &l_flat, 0, 0},
    {"4x14x14x16,32x3x3x16,32", -1.0, 1.0, 0, &l_plain, 0, 0},
    {"2x9x8x17,19x1x1x17,19", -1.0, 1.0, 0, &l_same, 0, 0},
    {"2x7x6x3:bf16,5x3x3x3:bf16,5", -1.0, 1.0, 0, &l_same, 4e-3, 0},
    {"2x5x5x4:bf16,6x3x3x2:bf16,-", -1.0, 1.0, 0, &l_group, 4e-3, 0},
    {"2x3x9x8:bf16,4x3x3x3:bf16,-", -1.0, 1.0, 0, &c_stride, 4e-3, 0},
    /* few channels: rows of taps in registers or not, filters for one, some and more lanes than a warp's,
     * groups of pixels that end in a row and do not, more strips than blocks, a strip that must be low */
    {"3x13x11x1,32x3x3x1,32", -1.0, 1.0, 0, &l_same, 0, 0},
    {"2x6x19x3,20x3x3x3,20", -1.0, 1.0, 0, &l_wide, 0, 0},
    {"2x12x8x1,8x5x5x1,-", -1.0, 1.0, 0, &l_wide, 0, 0},
    {"2x11x17x2,4x3x4x2,4", -1.0, 1.0, 0, &l_strided, 0, 0},
    {"2x13x9x3,4x3x3x3,4", -1.0, 1.0, 0, &l_tall, 0, 0},
    {"1x4x9x1,132x1x2x1,132", -1.0, 1.0, 0, &l_plain, 0, 0},
    {"300x5x3x1,8x3x3x1,8", -1.0, 1.0, 0, &l_same, 0, 0},
    {"1x5x450x3,8x3x3x3,8", -1.0, 1.0, 0, &l_same, 0, 0},
    {"2x37x2,12x5x2,12", -1.0, 1.0, 0, &l_flat, 0, 0},
    {"2x6x19x3:bf16,20x3x3x3:bf16,20", -1.0, 1.0, 0, &l_same, 4e-3, 0},
    {"3x13x11x1:bf16,32x3x3x1:bf16,-", -1.0, 1.0, 0, &l_same, 4e-3, TP_CASE_NO_GRAD},
};
static const tp_conv_grad_attr gx_plain = {PLAIN(0), {4, {2, 3, 5, 6}}},
                               gx_stride = {STRIDE(0), {4, {2, 3, 9, 8}}},
                               gx_dilate = {DILATE(0), {4, {2, 4, 9, 9}}},
                               gx_group = {GROUP(0), {4, {2, 4, 5, 5}}},
                               gx_depth = {DEPTH(0), {4, {2, 6, 7, 5}}}, gx_flat = {FLAT(0), {3, {3, 4, 17}}},
                               lx_plain = {PLAIN(1), {4, {2, 5, 6, 3}}},
                               lx_stride = {STRIDE(1), {4, {2, 9, 8, 3}}},
                               lx_dilate = {DILATE(1), {4, {2, 9, 9, 4}}},
                               lx_group = {GROUP(1), {4, {2, 5, 5, 4}}},
                               lx_depth = {DEPTH(1), {4, {2, 7, 5, 6}}}, lx_flat = {FLAT(1), {3, {3, 17, 4}}};
static const tp_case cases_input_grad[] = {
    {"4x3x2x3,2x4x4x4", -1.0, 1.0, 0, &gx_plain, 0, 0},
    {"4x3x3x3,2x4x5x4", -1.0, 1.0, 0, &gx_stride, 0, 0},
    {"3x4x3x3,2x3x9x5", -1.0, 1.0, 0, &gx_dilate, 0, 0},
    {"6x2x3x3,2x6x5x5", -1.0, 1.0, 0, &gx_group, 0, 0},
    {"6x1x3x3,2x6x4x5", -1.0, 1.0, 0, &gx_depth, 0, 0},
    {"5x4x3,3x5x9", -1.0, 1.0, 0, &gx_flat, 0, 0},
    {"4x2x3x3,2x4x4x4", -1.0, 1.0, 0, &lx_plain, 0, 0},
    {"4x3x3x3,2x5x4x4", -1.0, 1.0, 0, &lx_stride, 0, 0},
    {"3x3x3x4,2x9x5x3", -1.0, 1.0, 0, &lx_dilate, 0, 0},
    {"6x3x3x2,2x5x5x6", -1.0, 1.0, 0, &lx_group, 0, 0},
    {"6x3x3x1,2x4x5x6", -1.0, 1.0, 0, &lx_depth, 0, 0},
    {"5x3x4,3x9x5", -1.0, 1.0, 0, &lx_flat, 0, 0},
    {"4x3x3x3:bf16,2x5x4x4:bf16", -1.0, 1.0, 0, &lx_stride, 4e-3, 0},
    {"6x3x3x2:bf16,2x5x5x6:bf16", -1.0, 1.0, 0, &lx_group, 4e-3, 0},
};
static const tp_conv_grad_attr gw_plain = {PLAIN(0), {4, {4, 3, 2, 3}}},
                               gw_stride = {STRIDE(0), {4, {4, 3, 3, 3}}},
                               gw_dilate = {DILATE(0), {4, {3, 4, 3, 3}}},
                               gw_group = {GROUP(0), {4, {6, 2, 3, 3}}},
                               gw_depth = {DEPTH(0), {4, {6, 1, 3, 3}}}, gw_flat = {FLAT(0), {3, {5, 4, 3}}},
                               lw_plain = {PLAIN(1), {4, {4, 2, 3, 3}}},
                               lw_stride = {STRIDE(1), {4, {4, 3, 3, 3}}},
                               lw_dilate = {DILATE(1), {4, {3, 3, 3, 4}}},
                               lw_group = {GROUP(1), {4, {6, 3, 3, 2}}},
                               lw_depth = {DEPTH(1), {4, {6, 3, 3, 1}}}, lw_flat = {FLAT(1), {3, {5, 3, 4}}};
static const tp_conv_grad_attr few_gray = {SAME(1), {4, {32, 3, 3, 1}}},
                               few_color = {WIDE, {4, {20, 3, 3, 3}}}, few_wide = {WIDE, {4, {8, 5, 5, 1}}},
                               few_strided = {STRIDED, {4, {4, 3, 4, 2}}},
                               few_tall = {TALL, {4, {4, 3, 3, 3}}},
                               few_many = {PLAIN(1), {4, {132, 1, 2, 1}}},
                               few_rows = {SAME(1), {4, {8, 3, 3, 1}}},
                               few_long = {SAME(1), {4, {8, 3, 3, 3}}}, few_flat = {FLAT(1), {3, {12, 5, 2}}};
static const tp_case cases_weight_grad[] = {
    {"2x3x5x6,2x4x4x4", -1.0, 1.0, 0, &gw_plain, 0, 0},
    {"2x3x9x8,2x4x5x4", -1.0, 1.0, 0, &gw_stride, 0, 0},
    {"2x4x9x9,2x3x9x5", -1.0, 1.0, 0, &gw_dilate, 0, 0},
    {"2x4x5x5,2x6x5x5", -1.0, 1.0, 0, &gw_group, 0, 0},
    {"2x6x7x5,2x6x4x5", -1.0, 1.0, 0, &gw_depth, 0, 0},
    {"3x4x17,3x5x9", -1.0, 1.0, 0, &gw_flat, 0, 0},
    {"2x5x6x3,2x4x4x4", -1.0, 1.0, 0, &lw_plain, 0, 0},
    {"2x9x8x3,2x5x4x4", -1.0, 1.0, 0, &lw_stride, 0, 0},
    {"2x9x9x4,2x9x5x3", -1.0, 1.0, 0, &lw_dilate, 0, 0},
    {"2x5x5x4,2x5x5x6", -1.0, 1.0, 0, &lw_group, 0, 0},
    {"2x7x5x6,2x4x5x6", -1.0, 1.0, 0, &lw_depth, 0, 0},
    {"3x17x4,3x9x5", -1.0, 1.0, 0, &lw_flat, 0, 0},
    {"2x9x8x3:bf16,2x5x4x4:bf16", -1.0, 1.0, 0, &lw_stride, 4e-3, 0},
    {"2x5x5x4:bf16,2x5x5x6:bf16", -1.0, 1.0, 0, &lw_group, 4e-3, 0},
    /* few channels, as those of conv */
    {"3x13x11x1,3x13x11x32", -1.0, 1.0, 0, &few_gray, 0, 0},
    {"2x6x19x3,2x8x21x20", -1.0, 1.0, 0, &few_color, 0, 0},
    {"2x12x8x1,2x12x8x8", -1.0, 1.0, 0, &few_wide, 0, 0},
    {"2x11x17x2,2x6x9x4", -1.0, 1.0, 0, &few_strided, 0, 0},
    {"2x13x9x3,2x13x5x4", -1.0, 1.0, 0, &few_tall, 0, 0},
    {"1x4x9x1,1x4x8x132", -1.0, 1.0, 0, &few_many, 0, 0},
    {"300x5x3x1,300x5x3x8", -1.0, 1.0, 0, &few_rows, 0, 0},
    {"1x5x450x3,1x5x450x8", -1.0, 1.0, 0, &few_long, 0, 0},
    {"2x37x2,2x18x12", -1.0, 1.0, 0, &few_flat, 0, 0},
    {"3x13x11x1:bf16,3x13x11x32:bf16", -1.0, 1.0, 0, &few_gray, 4e-3, 0},
    {"1x5x450x3:bf16,1x5x450x8:bf16", -1.0, 1.0, 0, &few_long, 4e-3, 0},
};

static const tp_impl forward_dnnl = {"onednn", forward_prepare, forward_run, conv_release, TP_IMPL_LIBRARY};
static const tp_impl input_grad_dnnl = {"onednn", input_grad_prepare, grad_run, conv_release,
                                        TP_IMPL_LIBRARY};
static const tp_impl weight_grad_dnnl = {"onednn", weight_grad_prepare, grad_run, conv_release,
                                         TP_IMPL_LIBRARY};
static const tp_impl forward_cpu_ref = {"ref", ref_prepare, forward_ref, NULL, 0};
static const tp_impl input_grad_cpu_ref = {"ref", ref_prepare, input_grad_ref, NULL, 0};
static const tp_impl weight_grad_cpu_ref = {"ref", ref_prepare, weight_grad_ref, NULL, 0};

const tp_op tp_op_conv = {.name = "conv",
                          .onnx = "Conv",
                          .min_in = 2,
                          .max_in = 3,
                          .n_out = 1,
                          .attr_size = sizeof(tp_conv_attr),
                          .infer = infer_conv,
                          .grad = grad_conv,
                          .cost = cost_conv,
                          .cpu = TP_IMPLS(&forward_dnnl, &forward_cpu_ref),
                          .cases = cases_conv,
                          .n_cases = TP_COUNT(cases_conv)};
const tp_op tp_op_conv_input_grad = {.name = "conv_input_grad",
                                     .onnx = "ConvTranspose",
                                     .min_in = 2,
                                     .max_in = 2,
                                     .n_out = 1,
                                     .attr_size = sizeof(tp_conv_grad_attr),
                                     .infer = infer_input_grad,
                                     .grad = grad_input_grad,
                                     .cost = cost_input_grad,
                                     .cpu = TP_IMPLS(&input_grad_dnnl, &input_grad_cpu_ref),
                                     .cases = cases_input_grad,
                                     .n_cases = TP_COUNT(cases_input_grad)};
const tp_op tp_op_conv_weight_grad = {.name = "conv_weight_grad",
                                      .min_in = 2,
                                      .max_in = 2,
                                      .n_out = 1,
                                      .attr_size = sizeof(tp_conv_grad_attr),
                                      .infer = infer_weight_grad,
                                      .grad = grad_weight_grad,
                                      .cost = cost_weight_grad,
                                      .cpu = TP_IMPLS(&weight_grad_dnnl, &weight_grad_cpu_ref),
                                      .cases = cases_weight_grad,
                                      .n_cases = TP_COUNT(cases_weight_grad)};

tp_val tp_conv(tp_graph *g, tp_val x, tp_val w, tp_val b, tp_conv_attr attr)
{
    return tp_graph_add(g, &tp_op_conv, 3, (const tp_val[]){x, w, b}, &attr);
}

tp_val tp_conv_input_grad(tp_graph *g, tp_shape x_shape, tp_val w, tp_val dy, tp_conv_attr attr)
{
    attr.act = TP_ACT_NONE;
    return tp_graph_add(g, &tp_op_conv_input_grad, 2, (const tp_val[]){w, dy},
                        &(const tp_conv_grad_attr){attr, x_shape});
}

tp_val tp_conv_weight_grad(tp_graph *g, tp_val x, tp_shape w_shape, tp_val dy, tp_conv_attr attr)
{
    attr.act = TP_ACT_NONE;
    return tp_graph_add(g, &tp_op_conv_weight_grad, 2, (const tp_val[]){x, dy},
                        &(const tp_conv_grad_attr){attr, w_shape});
}
