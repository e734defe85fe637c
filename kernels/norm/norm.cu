/* norm.cu - batch, layer and group norm and their gradients. Sums run in double.
 *
 * A set of layer or group norm is a run of memory, so a team of threads takes a run (rows.cuh) and reads it
 * two or three times, from cache but for the first. A channel of batch norm, and gamma and beta everywhere,
 * is strewn over the samples: its sums are taken over parts whose number depends on the shape alone, then
 * added in order, and a grid loop over the elements follows: x is read twice and y written once. */
#include "kernels/libraries.cuh"
#include "kernels/norm/norm.h"

#define PART    4096 /* elements of a channel that a block sums */
#define COLUMNS 32
#define ROWS    8

/* Whether a row takes part in the statistics. */
struct row_weight {
    const void *data; /* NULL: all do */
    tp_dtype dtype;
    int64_t run; /* rows that share a weight */
    __device__ bool operator()(int64_t n) const
    {
        return data == nullptr || (dtype == TP_F32 ? static_cast<const float *>(data)[n / run] != 0.0f
                                                   : tp_load_int(data, dtype, n / run) != 0);
    }
};

static row_weight weight_of(const tp_call *c, int input)
{
    const int there = c->n_in > input && c->in[input].dtype != TP_DTYPE_NONE;
    return {there ? c->in[input].data : nullptr, there ? c->in[input].dtype : TP_DTYPE_NONE,
            tp_norm_run(c, input)};
}

/* ---- sums over the elements of each channel ---- */

/* Three sums: of a channel, a thread, a part. */
struct sums {
    double count, a, b;
};

struct add_sums {
    __device__ sums operator()(sums p, sums q) const
    {
        return {p.count + q.count, p.a + q.a, p.b + q.b};
    }
};

__device__ static sums block_sums(sums v)
{
    return {tp_block_sum(v.count), tp_block_sum(v.a), tp_block_sum(v.b)};
}

/* What batch norm sums: elements that count, x - shift and its square; shift is the channel's first element.
 */
struct statistics {
    const float *x;
    row_weight counts;
    __device__ sums operator()(int64_t n, int64_t ch, int64_t at, norm_dims d) const
    {
        const double v = counts(n) ? (double)x[at] - (double)x[ch * d.s] : 0.0;
        return {counts(n) ? 1.0 : 0.0, v, v * v};
    }
};

/* What the gradients sum: elements that count, dy, and dy xh. A set is a channel, or a group of a sample. */
struct gradients {
    const float *x, *dy, *mean, *rstd;
    row_weight counts;
    int by_channel;
    __device__ sums operator()(int64_t n, int64_t ch, int64_t at, norm_dims d) const
    {
        const int64_t set = by_channel ? ch : n * d.groups + ch / (d.c / d.groups);
        const double g = (double)dy[at];
        return {counts(n) ? 1.0 : 0.0, g, g * (((double)x[at] - (double)mean[set]) * (double)rstd[set])};
    }
};

static int64_t parts_of(norm_dims d)
{
    return (d.n * d.s + PART - 1) / PART;
}

/* partial(parts, C). Images: a block a channel and part. */
template <typename L> __global__ void norm_channel_runs(sums *partial, L load, norm_dims d, int64_t parts)
{
    for (int64_t i = blockIdx.x; i < d.c * parts; i += gridDim.x) {
        const int64_t part = i / d.c, ch = i - part * d.c, first = part * PART;
        const int64_t end = first + PART < d.n * d.s ? first + PART : d.n * d.s;
        sums v = {0.0, 0.0, 0.0};
        for (int64_t e = first + threadIdx.x; e < end; e += blockDim.x) {
            const int64_t n = e / d.s;
            v = add_sums()(v, load(n, ch, (n * d.c + ch) * d.s + e - n * d.s, d));
        }
        v = block_sums(v);
        if (threadIdx.x == 0)
            partial[i] = v;
    }
}

/* Rows of features (s = 1): threads (COLUMNS, ROWS), neighbours in x are neighbouring channels. */
template <typename L> __global__ void norm_channel_columns(sums *partial, L load, norm_dims d, int64_t parts)
{
    TP_SHARED(sums, rest, [ROWS][COLUMNS]);
    const int64_t tiles = (d.c + COLUMNS - 1) / COLUMNS;

    for (int64_t i = blockIdx.x; i < tiles * parts; i += gridDim.x) {
        const int64_t part = i / tiles, ch = (i - part * tiles) * COLUMNS + threadIdx.x, first = part * PART;
        const int64_t end = first + PART < d.n ? first + PART : d.n;
        sums v = {0.0, 0.0, 0.0};
        for (int64_t n = first + threadIdx.y; n < end && ch < d.c; n += ROWS)
            v = add_sums()(v, load(n, ch, n * d.c + ch, d));
        rest[threadIdx.y][threadIdx.x] = v;
        __syncthreads();
        if (threadIdx.y == 0 && ch < d.c) {
            for (int k = 1; k < ROWS; k++)
                v = add_sums()(v, rest[k][threadIdx.x]);
            partial[part * d.c + ch] = v;
        }
        __syncthreads();
    }
}

template <typename L> static tp_status channel_sums(const tp_call *c, sums *partial, L load, norm_dims d)
{
    const int64_t parts = parts_of(d);

    if (d.s == 1)
        TP_LAUNCH(norm_channel_columns<L>,
                  tp_cuda_blocks(c, (d.c + COLUMNS - 1) / COLUMNS * parts * TP_THREADS), dim3(COLUMNS, ROWS),
                  0, c, partial, load, d, parts);
    else
        TP_LAUNCH(norm_channel_runs<L>, tp_cuda_blocks(c, d.c * parts * TP_THREADS), TP_THREADS, 0, c,
                  partial, load, d, parts);
    return TP_OK;
}

__device__ static sums add_parts(const sums *partial, int64_t parts, int64_t channels, int64_t ch)
{
    sums v = partial[ch];
    for (int64_t p = 1; p < parts; p++)
        v = add_sums()(v, partial[p * channels + ch]);
    return v;
}

/* ---- batch norm ---- */

/* Of each channel, from the sums to what normalises it: double mean and rstd for the pass that follows. */
struct channel {
    double mean, rstd;
};

__device__ static bool is_finite(double v)
{
    return v - v == 0.0;
}

__global__ void batch_norm_statistics(channel *channels, float *mean, float *rstd, float *running_mean,
                                      float *running_var, const float *x, const sums *partial, norm_dims d,
                                      int64_t parts, tp_norm_attr a)
{
    TP_GRID_LOOP (ch, d.c) {
        const sums v = add_parts(partial, parts, d.c, ch);
        const double n = v.count, offset = n > 0.0 ? v.a / n : 0.0,
                     squares = n > 0.0 ? v.b - v.a * offset : 0.0;
        const double m = n > 0.0 ? (double)x[ch * d.s] + offset : 0.0,
                     above = squares > 0.0 || squares != squares ? squares : 0.0;
        const double r = 1.0 / sqrt((n > 0.0 ? above / n : 0.0) + a.epsilon);
        channels[ch] = {m, r};
        mean[ch] = (float)m;
        rstd[ch] = (float)r;
        if (n > 0.0 && is_finite(m) && is_finite(above)) { /* as tp_norm_running */
            const double var = above / (n > 1.0 ? n - 1.0 : n);
            running_mean[ch] = (float)((1.0 - a.momentum) * (double)running_mean[ch] + a.momentum * m);
            running_var[ch] = (float)((1.0 - a.momentum) * (double)running_var[ch] + a.momentum * var);
        }
    }
}

__global__ void batch_norm_apply(float *y, const float *x, const float *gamma, const float *beta,
                                 const channel *channels, norm_dims d)
{
    TP_GRID_LOOP (i, d.n * d.c * d.s) {
        const int64_t ch = i / d.s % d.c;
        y[i] = (float)(((double)x[i] - channels[ch].mean) * channels[ch].rstd) * gamma[ch] + beta[ch];
    }
}

__global__ void batch_norm_eval_apply(float *y, const float *x, const float *gamma, const float *beta,
                                      const float *mean, const float *var, norm_dims d, double epsilon)
{
    TP_GRID_LOOP (i, d.n * d.c * d.s) {
        const int64_t ch = i / d.s % d.c;
        y[i] = (x[i] - mean[ch]) * (float)(1.0 / sqrt((double)var[ch] + epsilon)) * gamma[ch] + beta[ch];
    }
}

/* dgamma = sum dy xh, dbeta = sum dy */
__global__ void norm_gamma_beta(float *dgamma, float *dbeta, sums *total, const sums *partial, int64_t parts,
                                int64_t channels)
{
    TP_GRID_LOOP (ch, channels) {
        const sums v = add_parts(partial, parts, channels, ch);
        dgamma[ch] = (float)v.b;
        dbeta[ch] = (float)v.a;
        if (total != nullptr)
            total[ch] = v;
    }
}

/* dx = rstd gamma (dy - (sum dy + xh sum dy xh) / count); rows that do not count: rstd gamma dy */
__global__ void batch_norm_grad_apply(float *dx, const float *x, const float *dy, const float *gamma,
                                      const float *mean, const float *rstd, const sums *total,
                                      row_weight counts, norm_dims d)
{
    TP_GRID_LOOP (i, d.n * d.c * d.s) {
        const int64_t row = i / d.s, ch = row % d.c, n = row / d.c;
        const double xh = ((double)x[i] - (double)mean[ch]) * (double)rstd[ch];
        const double less = counts(n) ? (total[ch].a + xh * total[ch].b) / total[ch].count : 0.0;
        dx[i] = (float)(((double)dy[i] - less) * (double)gamma[ch] * (double)rstd[ch]);
    }
}

static norm_dims batch_dims(const tp_call *c)
{
    return tp_norm_dims(c->in[0].shape, 0, 1);
}

static size_t partial_bytes(norm_dims d)
{
    return (size_t)(parts_of(d) * d.c) * sizeof(sums);
}

static tp_status batch_norm_prepare(tp_call *c, size_t *scratch)
{
    const norm_dims d = batch_dims(c);
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = partial_bytes(d) + (size_t)d.c * sizeof(channel);
    return TP_OK;
}

static tp_status batch_norm_run(const tp_call *c)
{
    const norm_dims d = batch_dims(c);
    const tp_norm_attr *a = static_cast<const tp_norm_attr *>(c->attr);
    sums *partial = static_cast<sums *>(c->scratch);
    channel *channels = reinterpret_cast<channel *>(partial + parts_of(d) * d.c);
    const statistics load = {tp_in_f32(c, BN_X), weight_of(c, BN_WEIGHT)};

    TP_TRY(channel_sums(c, partial, load, d));
    TP_LAUNCH(batch_norm_statistics, tp_cuda_blocks(c, d.c), TP_THREADS, 0, c, channels, tp_out_f32(c, 1),
              tp_out_f32(c, 2), static_cast<float *>(c->in[BN_MEAN].data),
              static_cast<float *>(c->in[BN_VAR].data), tp_in_f32(c, BN_X), partial, d, parts_of(d), *a);
    TP_LAUNCH(batch_norm_apply, tp_cuda_blocks(c, tp_len(&c->in[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, BN_X), tp_in_f32(c, BN_GAMMA), tp_in_f32(c, BN_BETA), channels, d);
    return TP_OK;
}

static tp_status batch_norm_eval_run(const tp_call *c)
{
    const tp_norm_attr *a = static_cast<const tp_norm_attr *>(c->attr);
    TP_LAUNCH(batch_norm_eval_apply, tp_cuda_blocks(c, tp_len(&c->in[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, BN_X), tp_in_f32(c, BN_GAMMA), tp_in_f32(c, BN_BETA), tp_in_f32(c, BN_MEAN),
              tp_in_f32(c, BN_VAR), batch_dims(c), a->epsilon);
    return TP_OK;
}

static tp_status batch_norm_grad_prepare(tp_call *c, size_t *scratch)
{
    const norm_dims d = batch_dims(c);
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = partial_bytes(d) + (size_t)d.c * sizeof(sums);
    return TP_OK;
}

static tp_status batch_norm_grad_run(const tp_call *c)
{
    const norm_dims d = batch_dims(c);
    sums *partial = static_cast<sums *>(c->scratch), *total = partial + parts_of(d) * d.c;
    const row_weight counts = weight_of(c, BG_WEIGHT);
    const gradients load = {
        tp_in_f32(c, BG_X), tp_in_f32(c, BG_DY), tp_in_f32(c, BG_MEAN), tp_in_f32(c, BG_RSTD), counts, 1};

    TP_TRY(channel_sums(c, partial, load, d));
    TP_LAUNCH(norm_gamma_beta, tp_cuda_blocks(c, d.c), TP_THREADS, 0, c, tp_out_f32(c, 1), tp_out_f32(c, 2),
              total, partial, parts_of(d), d.c);
    TP_LAUNCH(batch_norm_grad_apply, tp_cuda_blocks(c, tp_len(&c->in[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, BG_X), tp_in_f32(c, BG_DY), tp_in_f32(c, BG_GAMMA), tp_in_f32(c, BG_MEAN),
              tp_in_f32(c, BG_RSTD), total, counts, d);
    return TP_OK;
}

static const tp_impl batch_norm_own = {"own", batch_norm_prepare, batch_norm_run, nullptr, 0};
static const tp_impl batch_norm_grad_own = {"own", batch_norm_grad_prepare, batch_norm_grad_run, nullptr, 0};
static const tp_impl batch_norm_eval_own = {"own", tp_accept_f32, batch_norm_eval_run, nullptr, 0};
/* cuDNN's take 12 and 8 times as long on an H200 (1.96 and 3.26 ms for 262144 x 64): they are compared, not
 * chosen. */
TP_CUDA_IMPLS(batch_norm, &batch_norm_own, &tp_batch_norm_cudnn);
TP_CUDA_IMPLS(batch_norm_grad, &batch_norm_grad_own, &tp_batch_norm_grad_cudnn);
TP_CUDA_IMPLS(batch_norm_eval, &batch_norm_eval_own, &tp_batch_norm_eval_cudnn);
