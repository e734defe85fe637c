/* optimize.cu - every optimizer as one launch over all tensors (tensors.cuh), its rule row by row for sparse
 * tables, the step counter and the moving average of weights. Each tensor is read once and written once;
 * nothing is written when the step's gradient is not finite (clip[1] is 0). Bitwise the loops of optimize.c
 * (update.h). */
#include "kernels/optim/tensors.cuh"
#include "kernels/optim/update.h"
#include "kernels/row_map.cuh"

/* What a step reads from the device. */
struct step_values {
    const float *lr, *clip, *table;
    const void *t;
    tp_dtype t_dtype;
};

/* inputs: lr, t, clip, table, then n each of w, dw, s1, (two-state kinds) s2, (with averages) ema, (with
 * copies) low */
enum { IN_LR, IN_T, IN_CLIP, IN_TABLE, IN_TENSORS };

static step_values values_of(const tp_call *c)
{
    return {tp_in_f32(c, IN_LR), tp_in_f32(c, IN_CLIP), tp_in_f32(c, IN_TABLE), c->in[IN_T].data,
            c->in[IN_T].dtype};
}

#define UPDATE_RESIDENT 4 /* blocks on a multiprocessor, so at most 64 registers a thread */

/* One wave of blocks at most: each begins with the rule of the step. */
static unsigned fill_blocks(const tp_call *c, int64_t wanted)
{
    const int64_t most = (int64_t)tp_queue_of(c)->multiprocessors * UPDATE_RESIDENT;
    return (unsigned)(wanted < most ? wanted : most);
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

/* What one weight has in memory; of g and g16 one is NULL, and s2, ema and low may be. */
struct places {
    float *w, *s1, *s2, *ema;
    const float *g;
    const uint16_t *g16;
    uint16_t *low;
};

/* N neighbouring elements from k on: everything is read before anything is written. */
template <int KIND, int STATES, int N>
__device__ static void update_some(const tp_update *r, const places &p, int64_t k)
{
    const tp_pack<float, N> g = p.g16 != nullptr ? tp_load_pack<N>(p.g16 + k) : tp_load_pack<N>(p.g + k);
    tp_pack<float, N> w = tp_load_raw<N>(p.w + k), a = tp_load_raw<N>(p.s1 + k), b = {}, average = {};

    if (STATES == 2)
        b = tp_load_raw<N>(p.s2 + k);
    if (p.ema != nullptr)
        average = tp_load_raw<N>(p.ema + k);
    TP_UNROLL
    for (int j = 0; j < N; j++) {
        tp_update_f(r, (tp_optimizer_kind)KIND, &w.v[j], g.v[j], &a.v[j], &b.v[j]);
        average.v[j] = tp_average_f(average.v[j], w.v[j], r->keep);
    }
    tp_store_raw<N>(p.w + k, w);
    tp_store_raw<N>(p.s1 + k, a);
    if (STATES == 2)
        tp_store_raw<N>(p.s2 + k, b);
    if (p.ema != nullptr)
        tp_store_raw<N>(p.ema + k, average);
    if (p.low != nullptr)
        tp_store_pack(p.low + k, w);
}

/* data: w, dw, s1, s2, ema, low */
template <int KIND, int STATES>
__global__ void TP_RESIDENT(TP_THREADS, UPDATE_RESIDENT)
    optimize_tensors(tp_tensor_group<6> t, int64_t first, step_values s, tp_optimizer_attr attr)
{
    tp_update r = shared_rule(s, attr);

    for (int64_t piece = blockIdx.x; piece < t.end[t.n - 1] && s.clip[1] != 0.0f; piece += gridDim.x) {
        const int i = tp_group_find(&t, piece);
        const int64_t at = tp_group_offset(&t, i, piece), left = t.len[i] - at,
                      n = left < TP_PIECE ? left : TP_PIECE;
        const places p = {tp_group_at<float>(&t, 0, i, at),
                          tp_group_at<float>(&t, 2, i, at),
                          tp_group_at<float>(&t, 3, i, at),
                          tp_group_at<float>(&t, 4, i, at),
                          t.narrow[1][i] ? nullptr : tp_group_at<float>(&t, 1, i, at),
                          t.narrow[1][i] ? tp_group_at<uint16_t>(&t, 1, i, at) : nullptr,
                          tp_group_at<uint16_t>(&t, 5, i, at)};
        set_tensor(&r, s, first + i);
        for (int64_t k = 4 * threadIdx.x; k + 4 <= n; k += 4 * blockDim.x)
            update_some<KIND, STATES, 4>(&r, p, k);
        if ((int64_t)threadIdx.x < n % 4)
            update_some<KIND, STATES, 1>(&r, p, n / 4 * 4 + threadIdx.x);
    }
}

/* w (V,D), rows (B), dw (B,D); the map's vectors are of N elements. The row after this one is looked up
 * before this one is updated. */
template <int KIND, int STATES, int N>
__global__ void TP_RESIDENT(TP_THREADS, UPDATE_RESIDENT)
    optimize_rows_vectors(places p, const void *rows, tp_dtype rows_dtype, int64_t n_rows, int64_t batch,
                          tp_row_map m, unsigned blocks, step_values s, tp_optimizer_attr attr)
{
    const int64_t d = m.vectors * N;
    unsigned block = blockIdx.x;
    tp_row_place at = tp_row_place_of(m, block, 1);
    int64_t next = at.has_one && at.row < batch ? tp_load_int(rows, rows_dtype, at.row) : -1;
    tp_update r = shared_rule(s, attr);

    set_tensor(&r, s, 0);
    if (s.clip[1] == 0.0f)
        return;
    while (block < blocks) {
        const int64_t row = next;
        const places here = {p.w + row * d, p.s1 + row * d,   STATES == 2 ? p.s2 + row * d : nullptr,
                             nullptr,       p.g + at.row * d, nullptr,
                             nullptr};
        const int64_t k = at.vector * N;
        block += gridDim.x;
        if (block < blocks) {
            at = tp_row_place_of(m, block, 1);
            next = at.has_one && at.row < batch ? tp_load_int(rows, rows_dtype, at.row) : -1;
        }
        if (row >= 0 && row < n_rows)
            update_some<KIND, STATES, N>(&r, here, k);
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
static tp_status launch_group(const tp_call *c, const tp_tensor_group<6> &g, int first,
                              tp_optimizer_attr attr)
{
    TP_LAUNCH((optimize_tensors<KIND, STATES>), fill_blocks(c, tp_group_pieces(&g)), TP_THREADS, 0, c, g,
              (int64_t)first, values_of(c), attr);
    return TP_OK;
}

static tp_status run_group(const tp_call *c, const tp_tensor_group<6> &g, int first, tp_optimizer_attr attr)
{
    FOR_KIND(attr.kind, launch_group, c, g, first, attr);
}

static tp_status optimize_run(const tp_call *c)
{
    const tp_optimizer_attr *attr = static_cast<const tp_optimizer_attr *>(c->attr);
    const int n = (c->n_in - IN_TENSORS) / tp_optimize_groups(attr);
    const int at[6] = {IN_TENSORS,
                       IN_TENSORS + n,
                       IN_TENSORS + 2 * n,
                       tp_optimizer_two_states(attr->kind) ? IN_TENSORS + 3 * n : -1,
                       attr->ema > 0.0 ? IN_TENSORS + tp_optimize_ema(attr) * n : -1,
                       attr->low ? IN_TENSORS + tp_optimize_low(attr) * n : -1};

    for (int first = 0; first < n; first += TP_GROUP) {
        tp_tensor_group<6> g;
        tp_group_fill(&g, c, at, first, n);
        if (tp_group_pieces(&g) > 0)
            TP_TRY(run_group(c, g, first, *attr));
    }
    return TP_OK;
}

/* inputs: lr, t, clip, table, w (V,D), rows (B), dw (B,D), s1, [s2] */
enum { ROW_W = IN_TENSORS, ROW_ROWS, ROW_DW, ROW_S1, ROW_S2 };

template <int KIND, int STATES, int N>
static tp_status launch_vectors(const tp_call *c, tp_optimizer_attr attr, const places &p)
{
    const tp_shape w = c->in[ROW_W].shape;
    const int64_t batch = tp_len(&c->in[ROW_ROWS]);
    const tp_row_map m = tp_row_map_of(w.d[1] / N);
    const unsigned blocks = tp_row_blocks(&m, batch, 1);

    TP_LAUNCH((optimize_rows_vectors<KIND, STATES, N>), fill_blocks(c, blocks), TP_THREADS, 0, c, p,
              c->in[ROW_ROWS].data, c->in[ROW_ROWS].dtype, w.d[0], batch, m, blocks, values_of(c), attr);
    return TP_OK;
}

template <int KIND, int STATES> static tp_status launch_rows(const tp_call *c, tp_optimizer_attr attr)
{
    const places p = {static_cast<float *>(c->in[ROW_W].data),
                      static_cast<float *>(c->in[ROW_S1].data),
                      STATES == 2 ? static_cast<float *>(c->in[ROW_S2].data) : nullptr,
                      nullptr,
                      tp_in_f32(c, ROW_DW),
                      nullptr,
                      nullptr};

    if (tp_len(&c->in[ROW_DW]) == 0)
        return TP_OK;
    return c->in[ROW_W].shape.d[1] % 4 == 0 ? launch_vectors<KIND, STATES, 4>(c, attr, p)
                                            : launch_vectors<KIND, STATES, 1>(c, attr, p);
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

template <int N> __device__ static void average_some(float *ema, const float *w, float keep)
{
    const tp_pack<float, N> now = tp_load_raw<N>(w);
    tp_pack<float, N> average = tp_load_raw<N>(ema);

    for (int j = 0; j < N; j++)
        average.v[j] = tp_average_f(average.v[j], now.v[j], keep);
    tp_store_raw<N>(ema, average);
}

/* data: average, weight */
__global__ void ema_tensors(tp_tensor_group<2> t, const float *clip, float keep)
{
    for (int64_t piece = blockIdx.x; piece < t.end[t.n - 1] && clip[1] != 0.0f; piece += gridDim.x) {
        const int i = tp_group_find(&t, piece);
        const int64_t at = tp_group_offset(&t, i, piece), left = t.len[i] - at,
                      n = left < TP_PIECE ? left : TP_PIECE;
        float *ema = tp_group_at<float>(&t, 0, i, at);
        const float *w = tp_group_at<float>(&t, 1, i, at);
        for (int64_t k = 4 * threadIdx.x; k + 4 <= n; k += 4 * blockDim.x)
            average_some<4>(ema + k, w + k, keep);
        if ((int64_t)threadIdx.x < n % 4)
            average_some<1>(ema + n / 4 * 4 + threadIdx.x, w + n / 4 * 4 + threadIdx.x, keep);
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

static const tp_impl optimize_own = {"own", tp_accept_stored, optimize_run, nullptr, 0};
static const tp_impl optimize_rows_own = {"own", tp_accept_f32, optimize_rows_run, nullptr, 0};
static const tp_impl count_own = {"own", tp_accept_f32, count_run, nullptr, 0};
static const tp_impl ema_own = {"own", tp_accept_f32, ema_run, nullptr, 0};
TP_CUDA_IMPLS(optimize, &optimize_own);
TP_CUDA_IMPLS(optimize_rows, &optimize_rows_own);
TP_CUDA_IMPLS(count, &count_own);
TP_CUDA_IMPLS(ema, &ema_own);
