/* cudnn.cu - pooling through cuDNN: the maximum, and the average with its gradient. (Of equal maxima of a
 * window the library does not say which takes the gradient, so that one is our own.) */
#include "host/core/mem.h"
#include "kernels/cudnn.cuh"
#include "kernels/pool/pool.h"

struct pool_state {
    const tp_cudnn *lib;
    cudnnTensorDescriptor_t x, y;
    cudnnPoolingDescriptor_t pool;
};

static void pool_release(void *state)
{
    pool_state *s = static_cast<pool_state *>(state);

    if (s->x != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->x);
    if (s->y != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->y);
    if (s->pool != nullptr)
        (void)s->lib->cudnnDestroyPoolingDescriptor(s->pool);
    tp_free(s);
}

static tp_status create(pool_state *s, const tp_pool_dims *d, cudnnDataType_t type, cudnnPoolingMode_t mode)
{
    const tp_cudnn *lib = s->lib;

    TP_TRY(tp_cudnn_images(lib, &s->x, type, d->last, d->n, d->c, d->h, d->w));
    TP_TRY(tp_cudnn_images(lib, &s->y, type, d->last, d->n, d->c, d->oh, d->ow));
    TP_CUDNN_MAKE(cudnnCreatePoolingDescriptor(&s->pool));
    TP_CUDNN_MAKE(cudnnSetPooling2dDescriptor(s->pool, mode, CUDNN_PROPAGATE_NAN, (int)d->kernel[0],
                                              (int)d->kernel[1], (int)d->pad[0], (int)d->pad[1],
                                              (int)d->stride[0], (int)d->stride[1]));
    return TP_OK;
}

static tp_status prepare(tp_call *c, size_t *scratch, tp_pool_dims d, cudnnPoolingMode_t mode)
{
    const tp_cudnn *lib = nullptr;
    pool_state *s = nullptr;

    TP_TRY(tp_accept_stored(c, scratch));
    TP_TRY(tp_cudnn_get(c, &lib));
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "cuDNN pooling"));
    s->lib = lib;
    const tp_status st = create(s, &d, tp_cudnn_type(c), mode);
    if (st != TP_OK) {
        pool_release(s);
        return st;
    }
    c->state = s;
    return TP_OK;
}

static tp_status max_prepare(tp_call *c, size_t *scratch)
{
    return prepare(c, scratch, tp_pool_dims_of(c->in[0].shape, static_cast<const tp_pool_attr *>(c->attr)),
                   CUDNN_POOLING_MAX_DETERMINISTIC);
}

static tp_status avg_prepare(tp_call *c, size_t *scratch)
{
    return prepare(c, scratch, tp_pool_dims_of(c->in[0].shape, static_cast<const tp_pool_attr *>(c->attr)),
                   CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING);
}

static tp_status avg_grad_prepare(tp_call *c, size_t *scratch)
{
    const tp_pool_grad_attr *a = static_cast<const tp_pool_grad_attr *>(c->attr);
    return prepare(c, scratch, tp_pool_dims_of(a->shape, &a->pool),
                   CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING);
}

static tp_status forward_run(const tp_call *c)
{
    const pool_state *s = static_cast<const pool_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnPoolingForward(lib->handle, s->pool, &tp_cudnn_one, s->x, c->in[0].data, &tp_cudnn_zero,
                                     s->y, c->out[0].data));
    return TP_OK;
}

/* An average's gradient reads neither x nor y; where they are asked for stand dx and dy. */
static tp_status avg_grad_run(const tp_call *c)
{
    const pool_state *s = static_cast<const pool_state *>(c->state);
    const tp_cudnn *lib = s->lib;
    const void *dy = c->in[0].data;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnPoolingBackward(lib->handle, s->pool, &tp_cudnn_one, s->y, dy, s->y, dy, s->x,
                                      c->out[0].data, &tp_cudnn_zero, s->x, c->out[0].data));
    return TP_OK;
}

const tp_impl tp_max_pool_cudnn = {"cudnn", max_prepare, forward_run, pool_release, TP_IMPL_LIBRARY};
const tp_impl tp_avg_pool_cudnn = {"cudnn", avg_prepare, forward_run, pool_release, TP_IMPL_LIBRARY};
const tp_impl tp_avg_pool_grad_cudnn = {"cudnn", avg_grad_prepare, avg_grad_run, pool_release,
                                        TP_IMPL_LIBRARY};
