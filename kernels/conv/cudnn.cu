/* cudnn.cu - convolution and its gradients through cuDNN. The algorithm is the first of the library's
 * heuristic that is deterministic and whose workspace is bounded, chosen when the plan is compiled; the
 * workspace comes from the arena. Bias and activation follow in one pass over the output. */
#include "host/core/mem.h"
#include "kernels/conv/conv.h"
#include "kernels/cudnn.cuh"
#include "kernels/index.cuh"
#include "kernels/linear/activation.h"
#include "kernels/pack.cuh"

/* What an algorithm may ask for. */
#define WORKSPACE  ((size_t)1 << 30)
#define ALGORITHMS 8 /* asked for */

struct conv_state {
    const tp_cudnn *lib;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnConvolutionFwdAlgo_t forward;
    cudnnConvolutionBwdDataAlgo_t input_grad;
    cudnnConvolutionBwdFilterAlgo_t weight_grad;
    size_t workspace;
    tp_precision precision;
    tp_conv_dims d;
};

static tp_status create(conv_state *s, cudnnDataType_t type)
{
    const tp_cudnn *lib = s->lib;
    const tp_conv_dims *d = &s->d;

    TP_TRY(tp_cudnn_images(lib, &s->x, type, d->last, d->n, d->c, d->h, d->w));
    TP_TRY(tp_cudnn_images(lib, &s->y, type, d->last, d->n, d->m, d->oh, d->ow));
    TP_CUDNN_MAKE(cudnnCreateFilterDescriptor(&s->w));
    TP_CUDNN_MAKE(cudnnCreateConvolutionDescriptor(&s->conv));
    TP_CUDNN_MAKE(cudnnSetFilter4dDescriptor(s->w, type, tp_cudnn_format(d->last), (int)d->m,
                                             (int)(d->c / d->groups), (int)d->kh, (int)d->kw));
    TP_CUDNN_MAKE(cudnnSetConvolution2dDescriptor(s->conv, (int)d->pad[0], (int)d->pad[1], (int)d->stride[0],
                                                  (int)d->stride[1], (int)d->dilation[0], (int)d->dilation[1],
                                                  CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    TP_CUDNN_MAKE(cudnnSetConvolutionGroupCount(s->conv, (int)d->groups));
    /* What is stored in bfloat16 goes through tensor cores only where that is asked for; float32 in tf32 by
     * default. */
    TP_CUDNN_MAKE(cudnnSetConvolutionMathType(s->conv, type == CUDNN_DATA_BFLOAT16 ? CUDNN_TENSOR_OP_MATH
                                                       : s->precision == TP_PRECISION_FP32
                                                           ? CUDNN_FMA_MATH
                                                           : CUDNN_DEFAULT_MATH));
    return TP_OK;
}

/* The first of the list, fastest first, that may be used, with the arithmetic it was listed for. */
template <typename P, typename A> static tp_status pick(conv_state *s, const P *list, int n, A *algo)
{
    const tp_cudnn *lib = s->lib;

    for (int i = 0; i < n; i++)
        if (list[i].status == CUDNN_STATUS_SUCCESS && list[i].determinism == CUDNN_DETERMINISTIC &&
            list[i].memory <= WORKSPACE) {
            *algo = list[i].algo;
            s->workspace = list[i].memory;
            if (s->precision != TP_PRECISION_FP32)
                TP_CUDNN_MAKE(cudnnSetConvolutionMathType(s->conv, list[i].mathType));
            return TP_OK;
        }
    TP_FAIL(TP_EUNSUP, "cudnn: no deterministic algorithm for this convolution");
}

typedef enum conv_pass { FORWARD, INPUT_GRAD, WEIGHT_GRAD } conv_pass;

static tp_status choose(conv_state *s, conv_pass pass)
{
    const tp_cudnn *lib = s->lib;
    cudnnConvolutionFwdAlgoPerf_t forward[ALGORITHMS];
    cudnnConvolutionBwdDataAlgoPerf_t input_grad[ALGORITHMS];
    cudnnConvolutionBwdFilterAlgoPerf_t weight_grad[ALGORITHMS];
    int n = 0;

    switch (pass) {
    case FORWARD:
        TP_CUDNN_MAKE(cudnnGetConvolutionForwardAlgorithm_v7(lib->handle, s->x, s->w, s->conv, s->y,
                                                             ALGORITHMS, &n, forward));
        return pick(s, forward, n, &s->forward);
    case INPUT_GRAD:
        TP_CUDNN_MAKE(cudnnGetConvolutionBackwardDataAlgorithm_v7(lib->handle, s->w, s->y, s->conv, s->x,
                                                                  ALGORITHMS, &n, input_grad));
        return pick(s, input_grad, n, &s->input_grad);
    default:
        TP_CUDNN_MAKE(cudnnGetConvolutionBackwardFilterAlgorithm_v7(lib->handle, s->x, s->y, s->conv, s->w,
                                                                    ALGORITHMS, &n, weight_grad));
        return pick(s, weight_grad, n, &s->weight_grad);
    }
}

static void conv_release(void *state)
{
    conv_state *s = static_cast<conv_state *>(state);

    if (s->x != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->x);
    if (s->y != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->y);
    if (s->w != nullptr)
        (void)s->lib->cudnnDestroyFilterDescriptor(s->w);
    if (s->conv != nullptr)
        (void)s->lib->cudnnDestroyConvolutionDescriptor(s->conv);
    tp_free(s);
}

static tp_status prepare(tp_call *c, size_t *scratch, conv_pass pass, tp_conv_dims d)
{
    const tp_cudnn *lib = nullptr;
    conv_state *s = nullptr;

    TP_TRY(tp_accept_stored(c, scratch));
    TP_TRY(tp_cudnn_get(c, &lib));
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "cuDNN convolution"));
    s->lib = lib;
    s->d = d;
    s->precision = c->precision;
    tp_status st = create(s, tp_cudnn_type(c));
    if (st == TP_OK)
        st = choose(s, pass);
    if (st != TP_OK) {
        conv_release(s);
        return st;
    }
    *scratch = s->workspace;
    c->state = s;
    return TP_OK;
}

static tp_status forward_prepare(tp_call *c, size_t *scratch)
{
    return prepare(
        c, scratch, FORWARD,
        tp_conv_dims_of(c->in[0].shape, c->in[1].shape, *static_cast<const tp_conv_attr *>(c->attr)));
}

static tp_status input_grad_prepare(tp_call *c, size_t *scratch)
{
    const tp_conv_grad_attr *a = static_cast<const tp_conv_grad_attr *>(c->attr);
    return prepare(c, scratch, INPUT_GRAD, tp_conv_dims_of(a->shape, c->in[0].shape, a->conv));
}

static tp_status weight_grad_prepare(tp_call *c, size_t *scratch)
{
    const tp_conv_grad_attr *a = static_cast<const tp_conv_grad_attr *>(c->attr);
    return prepare(c, scratch, WEIGHT_GRAD, tp_conv_dims_of(c->in[0].shape, a->shape, a->conv));
}

/* y = act(y + bias(M)), V elements a thread and step; a filter's outputs lie in runs: of 1, or of an image. A
 * pack is of one run, or of neighbouring filters. */
template <typename T, int V>
__global__ void conv_finish(T *y, const float *bias, int64_t packs, tp_divisor filters, tp_divisor run,
                            tp_activation act)
{
    TP_GRID_LOOP (p, packs) {
        const uint32_t at = (uint32_t)p * V, image = tp_divide(at, run),
                       m = image - tp_divide(image, filters) * filters.d;
        tp_pack<float, V> v = tp_load_pack<V>(y + at), b = {};
        if (bias != nullptr && run.d == 1)
            b = tp_load_pack<V>(bias + m);
        for (int k = 0; bias != nullptr && run.d > 1 && k < V; k++)
            b.v[k] = bias[m];
        for (int k = 0; k < V; k++)
            v.v[k] = tp_activate_f32(bias != nullptr ? v.v[k] + b.v[k] : v.v[k], act);
        tp_store_pack(y + at, v);
    }
}

template <typename T, int V> static tp_status finish_packs(const tp_call *c, const float *bias)
{
    const conv_state *s = static_cast<const conv_state *>(c->state);
    const int64_t packs = tp_len(&c->out[0]) / V; /* of fewer than 2^31 elements: tp_cudnn_images */

    TP_LAUNCH((conv_finish<T, V>), tp_cuda_blocks(c, packs), TP_THREADS, 0, c, tp_out_as<T>(c, 0), bias,
              packs, tp_divisor_of(s->d.m), tp_divisor_of(s->d.y.c),
              static_cast<const tp_conv_attr *>(c->attr)->act);
    return TP_OK;
}

template <typename T> static tp_status finish(const tp_call *c)
{
    const conv_state *s = static_cast<const conv_state *>(c->state);
    const float *bias = c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE ? tp_in_f32(c, 2) : nullptr;
    const int64_t together = s->d.y.c == 1 ? s->d.m : s->d.y.c;

    if (bias == nullptr && static_cast<const tp_conv_attr *>(c->attr)->act == TP_ACT_NONE)
        return TP_OK;
    return together % tp_pack_len<T> == 0 ? finish_packs<T, tp_pack_len<T>>(c, bias)
                                          : finish_packs<T, 1>(c, bias);
}

static tp_status forward_run(const tp_call *c)
{
    const conv_state *s = static_cast<const conv_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnConvolutionForward(lib->handle, &tp_cudnn_one, s->x, c->in[0].data, s->w, c->in[1].data,
                                         s->conv, s->forward, c->scratch, s->workspace, &tp_cudnn_zero, s->y,
                                         c->out[0].data));
    return TP_AS_STORED(finish, c);
}

static tp_status input_grad_run(const tp_call *c)
{
    const conv_state *s = static_cast<const conv_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnConvolutionBackwardData(lib->handle, &tp_cudnn_one, s->w, c->in[0].data, s->y,
                                              c->in[1].data, s->conv, s->input_grad, c->scratch, s->workspace,
                                              &tp_cudnn_zero, s->x, c->out[0].data));
    return TP_OK;
}

static tp_status weight_grad_run(const tp_call *c)
{
    const conv_state *s = static_cast<const conv_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnConvolutionBackwardFilter(lib->handle, &tp_cudnn_one, s->x, c->in[0].data, s->y,
                                                c->in[1].data, s->conv, s->weight_grad, c->scratch,
                                                s->workspace, &tp_cudnn_zero, s->w, c->out[0].data));
    return TP_OK;
}

const tp_impl tp_conv_cudnn = {"cudnn", forward_prepare, forward_run, conv_release, TP_IMPL_LIBRARY};
const tp_impl tp_conv_input_grad_cudnn = {"cudnn", input_grad_prepare, input_grad_run, conv_release,
                                          TP_IMPL_LIBRARY};
const tp_impl tp_conv_weight_grad_cudnn = {"cudnn", weight_grad_prepare, weight_grad_run, conv_release,
                                           TP_IMPL_LIBRARY};
