/* optimize.cu - every optimizer as one launch over all tensors (tensors.cuh), its rule row by row for sparse
 * tables, the step counter and the moving average of weights. Each tensor is read once and written once;
 * nothing is written when the step's gradient is not finite (clip[1] is 0). Bitwise the loops of optimize.c
 * (update.h), but for the last bit of pow. */
#include "kernels/optim/tensors.cuh"
#include "kernels/optim/update.h"

/* What a step reads from the device. */
struct step_values {
    const float *lr, *clip, *table;
    const void *t;
    tp_dtype t_dtype;
};

/* inputs: lr, t, clip, table, then n each of w, dw, s1, (two-state kinds) s2, (with averages) ema */
enum { IN_LR, IN_T, IN_CLIP, IN_TABLE, IN_TENSORS };

static step_values values_of(const tp_call *c)
{
    return {tp_in_f32(c, IN_LR), tp_in_f32(c, IN_CLIP), tp_in_f32(c, IN_TABLE), c->in[IN_T].data,
            c->in[IN_T].dtype};
}

static int has_two_states(tp_optimizer_kind kind)
{
    return kind == TP_ADAM || kind == TP_ADAMW || kind == TP_RMSPROP;
}

/* The rule of the step, worked out by one thread of the block. */
__device__ static tp_update shared_rule(step_values s, tp_optimizer_attr attr)
{
    TP_SHARED(tp_update, rule, [1]);
    if (threadIdx.x == 0)
        rule[0] = tp_update_of(attr, (double)tp_load_int(s.t, s.t_dtype, 0), (double)s.clip[0]);
    __syncthreads();
    return rule[0];
}

__device__ static void set_tensor(tp_update *r, step_values s, int64_t i)
{
    r->lr = (double)s.lr[0] * (double)s.table[2 * i];
    r->decay = (double)s.table[2 * i + 1];
}

template <int KIND, int STATES>
__device__ static void update_four(const tp_update *r, float *w, const float *g, float *s1, float *s2)
{
    float4 w4 = *reinterpret_cast<float4 *>(w), a4 = *reinterpret_cast<float4 *>(s1);
    const float4 g4 = *reinterpret_cast<const float4 *>(g);
    float4 b4 = STATES == 2 ? *reinterpret_cast<float4 *>(s2) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    tp_update_f(r, (tp_optimizer_kind)KIND, &w4.x, g4.x, &a4.x, &b4.x);
    tp_update_f(r, (tp_optimizer_kind)KIND, &w4.y, g4.y, &a4.y, &b4.y);
    tp_update_f(r, (tp_optimizer_kind)KIND, &w4.z, g4.z, &a4.z, &b4.z);
    tp_update_f(r, (tp_optimizer_kind)KIND, &w4.w, g4.w, &a4.w, &b4.w);
    *reinterpret_cast<float4 *>(w) = w4;
    *reinterpret_cast<float4 *>(s1) = a4;
    if (STATES == 2)
        *reinterpret_cast<float4 *>(s2) = b4;
}

template <int KIND, int STATES>
__device__ static void update_one(const tp_update *r, float *w, float g, float *s1, float *s2)
{
    float unused = 0.0f;
    tp_update_f(r, (tp_optimizer_kind)KIND, w, g, s1, STATES == 2 ? s2 : &unused);
}

__device__ static void average_four(float *ema, const float *w, float keep)
{
    float4 a4 = *reinterpret_cast<float4 *>(ema);
    const float4 w4 = *reinterpret_cast<const float4 *>(w);

    a4.x = tp_average_f(a4.x, w4.x, keep);
    a4.y = tp_average_f(a4.y, w4.y, keep);
    a4.z = tp_average_f(a4.z, w4.z, keep);
    a4.w = tp_average_f(a4.w, w4.w, keep);
    *reinterpret_cast<float4 *>(ema) = a4;
}

/* data: w, dw, s1, s2, ema */
template <int KIND, int STATES>
__global__ void optimize_tensors(tp_tensor_group<5> t, int64_t first, step_values s, tp_optimizer_attr attr)
{
    tp_update r = shared_rule(s, attr);

    for (int64_t piece = blockIdx.x; piece < t.end[t.n - 1] && s.clip[1] != 0.0f; piece += gridDim.x) {
        const int i = tp_group_find(&t, piece);
        const int64_t at = tp_group_offset(&t, i, piece), left = t.len[i] - at,
                      n = left < TP_PIECE ? left : TP_PIECE;
        float *w = t.data[0][i] + at, *s1 = t.data[2][i] + at,
              *s2 = STATES == 2 ? t.data[3][i] + at : nullptr,
              *ema = r.keep > 0.0f ? t.data[4][i] + at : nullptr;
        const float *g = t.data[1][i] + at;
        set_tensor(&r, s, first + i);
        for (int64_t k = 4 * threadIdx.x; k + 4 <= n; k += 4 * blockDim.x) {
            update_four<KIND, STATES>(&r, w + k, g + k, s1 + k, STATES == 2 ? s2 + k : nullptr);
            if (ema != nullptr)
                average_four(ema + k, w + k, r.keep);
        }
        if ((int64_t)threadIdx.x < n % 4) {
            const int64_t k = n / 4 * 4 + threadIdx.x;
            update_one<KIND, STATES>(&r, w + k, g[k], s1 + k, STATES == 2 ? s2 + k : nullptr);
            if (ema != nullptr)
                ema[k] = tp_average_f(ema[k], w[k], r.keep);
        }
    }
}

/* A warp for each row of the batch: w (V,D), rows (B), dw (B,D). */
template <int KIND, int STATES>
__global__ void optimize_rows_warp(float *w, const void *rows, tp_dtype rows_dtype, const float *dw,
                                   float *s1, float *s2, int64_t n_rows, int64_t batch, int64_t d,
                                   step_values s, tp_optimizer_attr attr)
{
    tp_update r = shared_rule(s, attr);
    const int64_t warps = (int64_t)gridDim.x * (blockDim.x / TP_WARP);

    set_tensor(&r, s, 0);
    for (int64_t b = (int64_t)blockIdx.x * (blockDim.x / TP_WARP) + threadIdx.x / TP_WARP; b < batch;
         b += warps) {
        const int64_t row = tp_load_int(rows, rows_dtype, b);
        if (row < 0 || row >= n_rows || s.clip[1] == 0.0f)
            continue;
        for (int64_t k = threadIdx.x % TP_WARP; k < d; k += TP_WARP)
            update_one<KIND, STATES>(&r, w + row * d + k, dw[b * d + k], s1 + row * d + k,
                                     STATES == 2 ? s2 + row * d + k : nullptr);
    }
}

/* Calls RUN<kind, states> for the kind that an attribute names. */
#define FOR_KIND(kind, RUN, ...)                                                                             \
    do {                                                                                                     \
        switch (kind) {                                                                                      \
        case TP_SGD:                                                                                         \
            return RUN<TP_SGD, 1>(__VA_ARGS__);                                                              \
        case TP_ADAM:                                                                                        \
            return RUN<TP_ADAM, 2>(__VA_ARGS__);                                                             \
        case TP_ADAMW:                                                                                       \
            return RUN<TP_ADAMW, 2>(__VA_ARGS__);                                                            \
        case TP_LION:                                                                                        \
            return RUN<TP_LION, 1>(__VA_ARGS__);                                                             \
        case TP_RMSPROP:                                                                                     \
            return RUN<TP_RMSPROP, 2>(__VA_ARGS__);                                                          \
        default:                                                                                             \
            return RUN<TP_ADAGRAD, 1>(__VA_ARGS__);                                                          \
        }                                                                                                    \
    } while (0)

template <int KIND, int STATES>
static tp_status launch_group(const tp_call *c, const tp_tensor_group<5> &g, int first,
                              tp_optimizer_attr attr)
{
    TP_LAUNCH((optimize_tensors<KIND, STATES>), tp_group_blocks(c, tp_group_pieces(&g)), TP_THREADS, 0, c, g,
              (int64_t)first, values_of(c), attr);
    return TP_OK;
}

static tp_status run_group(const tp_call *c, const tp_tensor_group<5> &g, int first, tp_optimizer_attr attr)
{
    FOR_KIND(attr.kind, launch_group, c, g, first, attr);
}

static tp_status optimize_run(const tp_call *c)
{
    const tp_optimizer_attr *attr = static_cast<const tp_optimizer_attr *>(c->attr);
    const int two = has_two_states(attr->kind), averages = attr->ema > 0.0,
              n = (c->n_in - IN_TENSORS) / (3 + two + averages);
    const int at[5] = {IN_TENSORS, IN_TENSORS + n, IN_TENSORS + 2 * n, two ? IN_TENSORS + 3 * n : -1,
                       averages ? c->n_in - n : -1};

    for (int first = 0; first < n; first += TP_GROUP) {
        tp_tensor_group<5> g;
        tp_group_fill(&g, c, at, first, n);
        if (tp_group_pieces(&g) > 0)
            TP_TRY(run_group(c, g, first, *attr));
    }
    return TP_OK;
}

/* inputs: lr, t, clip, table, w (V,D), rows (B), dw (B,D), s1, [s2] */
enum { ROW_W = IN_TENSORS, ROW_ROWS, ROW_DW, ROW_S1, ROW_S2 };

template <int KIND, int STATES> static tp_status launch_rows(const tp_call *c, tp_optimizer_attr attr)
{
    const tp_shape w = c->in[ROW_W].shape;
    const int64_t batch = tp_len(&c->in[ROW_ROWS]);

    TP_LAUNCH((optimize_rows_warp<KIND, STATES>), tp_cuda_blocks(c, batch * TP_WARP), TP_THREADS, 0, c,
              static_cast<float *>(c->in[ROW_W].data), c->in[ROW_ROWS].data, c->in[ROW_ROWS].dtype,
              tp_in_f32(c, ROW_DW), static_cast<float *>(c->in[ROW_S1].data),
              STATES == 2 ? static_cast<float *>(c->in[ROW_S2].data) : nullptr, w.d[0], batch, w.d[1],
              values_of(c), attr);
    return TP_OK;
}

static tp_status optimize_rows_run(const tp_call *c)
{
    const tp_optimizer_attr *attr = static_cast<const tp_optimizer_attr *>(c->attr);
    FOR_KIND(attr->kind, launch_rows, c, *attr);
}

/* ---- count and ema ---- */

__global__ void count_one(int64_t *t, const float *clip)
{
    if (threadIdx.x == 0)
        t[0] += clip[1] != 0.0f;
}

static tp_status count_run(const tp_call *c)
{
    TP_LAUNCH(count_one, 1, TP_WARP, 0, c, static_cast<int64_t *>(c->in[0].data), tp_in_f32(c, 1));
    return TP_OK;
}

/* data: average, weight */
__global__ void ema_tensors(tp_tensor_group<2> t, const float *clip, float keep)
{
    for (int64_t piece = blockIdx.x; piece < t.end[t.n - 1] && clip[1] != 0.0f; piece += gridDim.x) {
        const int i = tp_group_find(&t, piece);
        const int64_t at = tp_group_offset(&t, i, piece), left = t.len[i] - at,
                      n = left < TP_PIECE ? left : TP_PIECE;
        float *ema = t.data[0][i] + at;
        const float *w = t.data[1][i] + at;
        for (int64_t k = threadIdx.x; k < n; k += blockDim.x)
            ema[k] = tp_average_f(ema[k], w[k], keep);
    }
}

static tp_status ema_run(const tp_call *c)
{
    const tp_ema_attr *attr = static_cast<const tp_ema_attr *>(c->attr);
    const int n = (c->n_in - 1) / 2, at[2] = {1, 1 + n};

    for (int first = 0; first < n; first += TP_GROUP) {
        tp_tensor_group<2> g;
        tp_group_fill(&g, c, at, first, n);
        if (tp_group_pieces(&g) > 0)
            TP_LAUNCH(ema_tensors, tp_group_blocks(c, tp_group_pieces(&g)), TP_THREADS, 0, c, g,
                      tp_in_f32(c, 0), (float)attr->decay);
    }
    return TP_OK;
}

static const tp_impl optimize_own = {"own", tp_accept_f32, optimize_run, nullptr, 0};
static const tp_impl optimize_rows_own = {"own", tp_accept_f32, optimize_rows_run, nullptr, 0};
static const tp_impl count_own = {"own", tp_accept_f32, count_run, nullptr, 0};
static const tp_impl ema_own = {"own", tp_accept_f32, ema_run, nullptr, 0};
TP_CUDA_IMPLS(optimize, &optimize_own);
TP_CUDA_IMPLS(optimize_rows, &optimize_rows_own);
TP_CUDA_IMPLS(count, &count_own);
TP_CUDA_IMPLS(ema, &ema_own);
