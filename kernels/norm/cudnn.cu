/* cudnn.cu - batch norm through cuDNN, where every row takes part in the statistics. Running statistics are
 * not left to the library: those of a step that diverged must not spoil them (see tp_norm_running). */
#include "host/core/mem.h"
#include "kernels/cudnn.cuh"
#include "kernels/norm/norm.h"

struct norm_state {
    const tp_cudnn *lib;
    cudnnTensorDescriptor_t x, channels;
};

static void norm_release(void *state)
{
    norm_state *s = static_cast<norm_state *>(state);

    if (s->x != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->x);
    if (s->channels != nullptr)
        (void)s->lib->cudnnDestroyTensorDescriptor(s->channels);
    tp_free(s);
}

/* Rows of features are one image with channels last. */
static tp_status create(norm_state *s, norm_dims d)
{
    if (d.s == 1)
        TP_TRY(tp_cudnn_images(s->lib, &s->x, CUDNN_DATA_FLOAT, 1, 1, d.c, d.n, 1));
    else
        TP_TRY(tp_cudnn_images(s->lib, &s->x, CUDNN_DATA_FLOAT, 0, d.n, d.c, d.s, 1));
    return tp_cudnn_images(s->lib, &s->channels, CUDNN_DATA_FLOAT, 0, 1, d.c, 1, 1);
}

static tp_status prepare(tp_call *c, size_t *scratch, int weight)
{
    const tp_cudnn *lib = nullptr;
    norm_state *s = nullptr;

    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(weight == 0 || c->n_in <= weight || c->in[weight].dtype == TP_DTYPE_NONE, TP_EUNSUP,
             "some rows may not count");
    TP_CHECK(!tp_norm_relu(c) && !(weight == BN_WEIGHT && tp_norm_has(c, BN_RESIDUAL)), TP_EUNSUP,
             "a residual or relu would be passes of their own");
    TP_CHECK(tp_len(&c->in[0]) > c->in[0].shape.d[1], TP_EUNSUP,
             "of a single value the library's variance is not 0");
    TP_TRY(tp_cudnn_get(c, &lib));
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "cuDNN batch norm"));
    s->lib = lib;
    const tp_status st = create(s, tp_norm_dims(c->in[0].shape, 0, 1));
    if (st != TP_OK) {
        norm_release(s);
        return st;
    }
    c->state = s;
    return TP_OK;
}

static tp_status batch_norm_prepare(tp_call *c, size_t *scratch)
{
    return prepare(c, scratch, BN_WEIGHT);
}

static tp_status batch_norm_grad_prepare(tp_call *c, size_t *scratch)
{
    return prepare(c, scratch, BG_WEIGHT);
}

static tp_status batch_norm_eval_prepare(tp_call *c, size_t *scratch)
{
    return prepare(c, scratch, 0);
}

/* As tp_norm_running, from the mean and 1 / sqrt(var + epsilon) of `count` elements. */
__global__ void batch_norm_running(float *running_mean, float *running_var, const float *mean,
                                   const float *rstd, int64_t channels, double count, tp_norm_attr a)
{
    TP_GRID_LOOP (ch, channels) {
        const double m = (double)mean[ch], r = (double)rstd[ch], biased = 1.0 / (r * r) - a.epsilon;
        if (m - m != 0.0 || biased - biased != 0.0)
            continue;
        const double var = (biased > 0.0 ? biased : 0.0) * count / (count > 1.0 ? count - 1.0 : count);
        running_mean[ch] = (float)((1.0 - a.momentum) * (double)running_mean[ch] + a.momentum * m);
        running_var[ch] = (float)((1.0 - a.momentum) * (double)running_var[ch] + a.momentum * var);
    }
}

static tp_status batch_norm_run(const tp_call *c)
{
    const norm_state *s = static_cast<const norm_state *>(c->state);
    const tp_cudnn *lib = s->lib;
    const tp_norm_attr *a = static_cast<const tp_norm_attr *>(c->attr);
    const norm_dims d = tp_norm_dims(c->in[0].shape, 0, 1);

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnBatchNormalizationForwardTraining(
        lib->handle, CUDNN_BATCHNORM_SPATIAL, &tp_cudnn_one, &tp_cudnn_zero, s->x, c->in[BN_X].data, s->x,
        c->out[0].data, s->channels, c->in[BN_GAMMA].data, c->in[BN_BETA].data, 0.0, nullptr, nullptr,
        a->epsilon, c->out[1].data, c->out[2].data));
    TP_LAUNCH(batch_norm_running, tp_cuda_blocks(c, d.c), TP_THREADS, 0, c,
              static_cast<float *>(c->in[BN_MEAN].data), static_cast<float *>(c->in[BN_VAR].data),
              tp_out_f32(c, 1), tp_out_f32(c, 2), d.c, (double)(d.n * d.s), *a);
    return TP_OK;
}

static tp_status batch_norm_grad_run(const tp_call *c)
{
    const norm_state *s = static_cast<const norm_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnBatchNormalizationBackward(
        lib->handle, CUDNN_BATCHNORM_SPATIAL, &tp_cudnn_one, &tp_cudnn_zero, &tp_cudnn_one, &tp_cudnn_zero,
        s->x, c->in[BG_X].data, s->x, c->in[BG_DY].data, s->x, c->out[0].data, s->channels,
        c->in[BG_GAMMA].data, c->out[1].data, c->out[2].data,
        static_cast<const tp_norm_attr *>(c->attr)->epsilon, c->in[BG_MEAN].data, c->in[BG_RSTD].data));
    return TP_OK;
}

static tp_status batch_norm_eval_run(const tp_call *c)
{
    const norm_state *s = static_cast<const norm_state *>(c->state);
    const tp_cudnn *lib = s->lib;

    TP_CUDNN_RUN(cudnnSetStream(lib->handle, tp_queue_of(c)->stream));
    TP_CUDNN_RUN(cudnnBatchNormalizationForwardInference(
        lib->handle, CUDNN_BATCHNORM_SPATIAL, &tp_cudnn_one, &tp_cudnn_zero, s->x, c->in[BN_X].data, s->x,
        c->out[0].data, s->channels, c->in[BN_GAMMA].data, c->in[BN_BETA].data, c->in[BN_MEAN].data,
        c->in[BN_VAR].data, static_cast<const tp_norm_attr *>(c->attr)->epsilon));
    return TP_OK;
}

const tp_impl tp_batch_norm_cudnn = {"cudnn", batch_norm_prepare, batch_norm_run, norm_release,
                                     TP_IMPL_LIBRARY};
const tp_impl tp_batch_norm_grad_cudnn = {"cudnn", batch_norm_grad_prepare, batch_norm_grad_run, norm_release,
                                          TP_IMPL_LIBRARY};
const tp_impl tp_batch_norm_eval_cudnn = {"cudnn", batch_norm_eval_prepare, batch_norm_eval_run, norm_release,
                                          TP_IMPL_LIBRARY};
