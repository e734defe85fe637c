/* set_norm.cu - layer and group norm and their gradients. Sums run in double.
 *
 * A set is a run of memory, so a team of threads takes a run (rows.cuh) and reads it two or three times, from
 * cache but for the first. Gamma and beta are strewn over the samples: their sums are taken over parts whose
 * number depends on the shape alone, then added in order. */
#include "kernels/loss/rows.cuh"
#include "kernels/norm/norm.h"

#define PART    4096 /* elements of a channel that a block sums */
#define COLUMNS 32
#define ROWS    8

/* Two sums: of a channel, a thread, a part. */
struct set_sums {
    double a, b;
};

struct add_set_sums {
    __device__ set_sums operator()(set_sums p, set_sums q) const
    {
        return {p.a + q.a, p.b + q.b};
    }
};

__device__ static set_sums block_sums(set_sums v)
{
    return {tp_block_sum(v.a), tp_block_sum(v.b)};
}

/* What the gradients of gamma and beta sum: dy, and dy xh. A set is a group of a sample. */
struct set_gradients {
    const float *x, *dy, *mean, *rstd;
    __device__ set_sums operator()(int64_t n, int64_t ch, int64_t at, norm_dims d) const
    {
        const int64_t set = n * d.groups + ch / (d.c / d.groups);
        const double g = (double)dy[at];
        return {g, g * (((double)x[at] - (double)mean[set]) * (double)rstd[set])};
    }
};

static int64_t parts_of(norm_dims d)
{
    return (d.n * d.s + PART - 1) / PART;
}

/* partial(parts, C). Images: a block a channel and part. */
__global__ void set_norm_channel_runs(set_sums *partial, set_gradients load, norm_dims d, int64_t parts)
{
    for (int64_t i = blockIdx.x; i < d.c * parts; i += gridDim.x) {
        const int64_t part = i / d.c, ch = i - part * d.c, first = part * PART;
        const int64_t end = first + PART < d.n * d.s ? first + PART : d.n * d.s;
        set_sums v = {0.0, 0.0};
        for (int64_t e = first + threadIdx.x; e < end; e += blockDim.x) {
            const int64_t n = e / d.s;
            v = add_set_sums()(v, load(n, ch, (n * d.c + ch) * d.s + e - n * d.s, d));
        }
        v = block_sums(v);
        if (threadIdx.x == 0)
            partial[i] = v;
    }
}

/* Rows of features (s = 1): threads (COLUMNS, ROWS), neighbours in x are neighbouring channels. */
__global__ void set_norm_channel_columns(set_sums *partial, set_gradients load, norm_dims d, int64_t parts)
{
    TP_SHARED(set_sums, rest, [ROWS][COLUMNS]);
    const int64_t tiles = (d.c + COLUMNS - 1) / COLUMNS;

    for (int64_t i = blockIdx.x; i < tiles * parts; i += gridDim.x) {
        const int64_t part = i / tiles, ch = (i - part * tiles) * COLUMNS + threadIdx.x, first = part * PART;
        const int64_t end = first + PART < d.n ? first + PART : d.n;
        set_sums v = {0.0, 0.0};
        for (int64_t n = first + threadIdx.y; n < end && ch < d.c; n += ROWS)
            v = add_set_sums()(v, load(n, ch, n * d.c + ch, d));
        rest[threadIdx.y][threadIdx.x] = v;
        __syncthreads();
        if (threadIdx.y == 0 && ch < d.c) {
            for (int k = 1; k < ROWS; k++)
                v = add_set_sums()(v, rest[k][threadIdx.x]);
            partial[part * d.c + ch] = v;
        }
        __syncthreads();
    }
}

static tp_status channel_sums(const tp_call *c, set_sums *partial, set_gradients load, norm_dims d)
{
    const int64_t parts = parts_of(d);

    if (d.s == 1)
        TP_LAUNCH(set_norm_channel_columns,
                  tp_cuda_blocks(c, (d.c + COLUMNS - 1) / COLUMNS * parts * TP_THREADS), dim3(COLUMNS, ROWS),
                  0, c, partial, load, d, parts);
    else
        TP_LAUNCH(set_norm_channel_runs, tp_cuda_blocks(c, d.c * parts * TP_THREADS), TP_THREADS, 0, c,
                  partial, load, d, parts);
    return TP_OK;
}

__device__ static set_sums add_parts(const set_sums *partial, int64_t parts, int64_t channels, int64_t ch)
{
    set_sums v = partial[ch];
    for (int64_t p = 1; p < parts; p++)
        v = add_set_sums()(v, partial[p * channels + ch]);
    return v;
}

/* dgamma = sum dy xh, dbeta = sum dy */
__global__ void set_norm_gamma_beta(float *dgamma, float *dbeta, const set_sums *partial, int64_t parts,
                                    int64_t channels)
{
    TP_GRID_LOOP (ch, channels) {
        const set_sums v = add_parts(partial, parts, channels, ch);
        dgamma[ch] = (float)v.b;
        dbeta[ch] = (float)v.a;
    }
}

static norm_dims dims_of(const tp_call *c, int last)
{
    return tp_norm_dims(c->in[0].shape, last, static_cast<const tp_norm_attr *>(c->attr)->groups);
}

static size_t partial_bytes(norm_dims d)
{
    return (size_t)(parts_of(d) * d.c) * sizeof(set_sums);
}

/* ---- layer and group norm: runs ---- */

/* rows runs of len elements; element k of run i is of channel first(i) + k / s. */
struct run_shape {
    int64_t rows, len, s, groups, channels; /* channels of a group */
};

static run_shape runs_of(norm_dims d)
{
    return {d.n * d.groups, d.c / d.groups * d.s, d.s, d.groups, d.c / d.groups};
}

__device__ static int64_t channel_of(const run_shape &r, int64_t i, int64_t k)
{
    return i % r.groups * r.channels + k / r.s;
}

template <bool BLOCK>
__global__ void norm_runs(float *y, float *mean, float *rstd, const float *x, const float *gamma,
                          const float *beta, run_shape r, double epsilon)
{
    TP_TEAM_ROWS (i, r.rows) {
        const float *run = x + i * r.len;
        double sum = 0.0, squares = 0.0;
        TP_TEAM_COLUMNS (k, r.len) {
            sum += (double)run[k];
        }
        const double m = tp_row_team<BLOCK>::sum(sum) / (double)r.len;
        TP_TEAM_COLUMNS (k, r.len) {
            squares += ((double)run[k] - m) * ((double)run[k] - m);
        }
        const double scale = 1.0 / sqrt(tp_row_team<BLOCK>::sum(squares) / (double)r.len + epsilon);
        TP_TEAM_COLUMNS (k, r.len) {
            const int64_t ch = channel_of(r, i, k);
            y[i * r.len + k] = (float)(((double)run[k] - m) * scale) * gamma[ch] + beta[ch];
        }
        if (tp_row_team<BLOCK>::lane() == 0) {
            mean[i] = (float)m;
            rstd[i] = (float)scale;
        }
    }
}

/* With g = dy gamma: dx = rstd (g - mean(g) - xh mean(g xh)) */
template <bool BLOCK>
__global__ void norm_runs_grad(float *dx, const float *x, const float *dy, const float *gamma,
                               const float *mean, const float *rstd, run_shape r)
{
    TP_TEAM_ROWS (i, r.rows) {
        const double m = (double)mean[i], scale = (double)rstd[i];
        double sum = 0.0, dot = 0.0;
        TP_TEAM_COLUMNS (k, r.len) {
            const double g = (double)dy[i * r.len + k] * (double)gamma[channel_of(r, i, k)];
            sum += g;
            dot += g * ((double)x[i * r.len + k] - m) * scale;
        }
        sum = tp_row_team<BLOCK>::sum(sum) / (double)r.len;
        dot = tp_row_team<BLOCK>::sum(dot) / (double)r.len;
        TP_TEAM_COLUMNS (k, r.len) {
            const double g = (double)dy[i * r.len + k] * (double)gamma[channel_of(r, i, k)];
            dx[i * r.len + k] = (float)(scale * (g - sum - ((double)x[i * r.len + k] - m) * scale * dot));
        }
    }
}

static tp_status run_sets(const tp_call *c, norm_dims d)
{
    const tp_norm_attr *a = static_cast<const tp_norm_attr *>(c->attr);
    const run_shape r = runs_of(d);

    TP_LAUNCH_ROWS(norm_runs, r.rows, r.len, c, tp_out_f32(c, 0), tp_out_f32(c, 1), tp_out_f32(c, 2),
                   tp_in_f32(c, SN_X), tp_in_f32(c, SN_GAMMA), tp_in_f32(c, SN_BETA), r, a->epsilon);
    return TP_OK;
}

static tp_status run_sets_grad(const tp_call *c, norm_dims d)
{
    const run_shape r = runs_of(d);
    set_sums *partial = static_cast<set_sums *>(c->scratch);
    const set_gradients load = {tp_in_f32(c, SG_X), tp_in_f32(c, SG_DY), tp_in_f32(c, SG_MEAN),
                                tp_in_f32(c, SG_RSTD)};

    TP_LAUNCH_ROWS(norm_runs_grad, r.rows, r.len, c, tp_out_f32(c, 0), tp_in_f32(c, SG_X),
                   tp_in_f32(c, SG_DY), tp_in_f32(c, SG_GAMMA), tp_in_f32(c, SG_MEAN), tp_in_f32(c, SG_RSTD),
                   r);
    TP_TRY(channel_sums(c, partial, load, d));
    TP_LAUNCH(set_norm_gamma_beta, tp_cuda_blocks(c, d.c), TP_THREADS, 0, c, tp_out_f32(c, 1),
              tp_out_f32(c, 2), partial, parts_of(d), d.c);
    return TP_OK;
}

static tp_status layer_norm_run(const tp_call *c)
{
    return run_sets(c, dims_of(c, 1));
}

static tp_status group_norm_run(const tp_call *c)
{
    return run_sets(c, dims_of(c, 0));
}

static tp_status layer_norm_grad_run(const tp_call *c)
{
    return run_sets_grad(c, dims_of(c, 1));
}

static tp_status group_norm_grad_run(const tp_call *c)
{
    return run_sets_grad(c, dims_of(c, 0));
}

static tp_status layer_norm_grad_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = partial_bytes(dims_of(c, 1));
    return TP_OK;
}

static tp_status group_norm_grad_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = partial_bytes(dims_of(c, 0));
    return TP_OK;
}

static const tp_impl layer_norm_own = {"own", tp_accept_f32, layer_norm_run, nullptr, 0};
static const tp_impl layer_norm_grad_own = {"own", layer_norm_grad_prepare, layer_norm_grad_run, nullptr, 0};
static const tp_impl group_norm_own = {"own", tp_accept_f32, group_norm_run, nullptr, 0};
static const tp_impl group_norm_grad_own = {"own", group_norm_grad_prepare, group_norm_grad_run, nullptr, 0};
TP_CUDA_IMPLS(layer_norm, &layer_norm_own);
TP_CUDA_IMPLS(layer_norm_grad, &layer_norm_grad_own);
TP_CUDA_IMPLS(group_norm, &group_norm_own);
TP_CUDA_IMPLS(group_norm_grad, &group_norm_grad_own);
