/* reduce.cu - sums, means and maxima over any set of dimensions, and how the gradient of a maximum is shared.
 *
 * An output is the reduction of `count` inputs, each read once, four neighbours at a time where rows allow.
 *   columns: the innermost dimension stays; a block takes 32 packs of neighbouring outputs, 16 rows at a time
 *   warp:    the innermost dimension goes and count is short; a warp takes an output
 *   block:   the same with a long count; a block takes an output, or a part of it
 * Where outputs are few and count is large it is cut into parts, enough for about WIDE blocks, and a second
 * launch reduces the parts in order. Their number depends on the shape alone, and so does every tree. */
#include "kernels/index.cuh"
#include "kernels/pack.cuh"
#include "kernels/reduce/reduce.cuh"

#define WIDE     2048 /* blocks that fill a large GPU */
#define UNROLL   4    /* loads of a thread under way */
#define COLUMNS  32
#define ROWS     16
#define ROW_PART 8192 /* inputs of a part, at least: a second launch costs as much as reading 2 of them */
#define COL_PART 128  /* the same for columns */
#define NEAR     64   /* parts that one thread reduces */

/* What a kernel is told. Places of the reduced dimensions are packs where rows are reduced, those of the kept
 * ones where columns are. */
struct reduction {
    tp_places<1> kept, reduced;
    uint32_t outputs, count, parts, part; /* part: places of one */
};

/* How it is launched. */
struct layout {
    tp_walk kept, reduced;
    int64_t outputs, count;
    bool columns;
    int pack;
    int64_t parts, part; /* part: places of one */
};

static void add_dim(tp_walk *w, int64_t d, int64_t stride)
{
    const int k = w->nd - 1;

    if (w->nd > 0 && w->stride[0][k] == d * stride)
        w->d[k] *= d;
    else
        w->d[w->nd++] = d;
    w->stride[0][w->nd - 1] = stride;
}

/* Are all strides but that of the innermost dimension, and its length, whole packs? */
static bool packs_fit(const tp_walk &inner, const tp_walk &other, int pack)
{
    bool fit = inner.stride[0][inner.nd - 1] == 1 && inner.d[inner.nd - 1] % pack == 0;

    for (int k = 0; k + 1 < inner.nd; k++)
        fit = fit && inner.stride[0][k] % pack == 0;
    for (int k = 0; k < other.nd; k++)
        fit = fit && other.stride[0][k] % pack == 0;
    return fit;
}

static int64_t parts_of(int64_t count, int64_t least, int64_t blocks)
{
    const int64_t most = count > 2 * least ? (count + least - 1) / least : 1,
                  wanted = (WIDE + blocks - 1) / blocks;
    return wanted < most ? wanted : most;
}

static layout layout_of(tp_shape x, uint32_t axes)
{
    constexpr int N = tp_pack_len<float>;
    layout l = {};
    int64_t stride[TP_MAX_DIMS], step = 1;

    axes = axes != 0 ? axes : (1u << x.nd) - 1u;
    for (int i = x.nd - 1; i >= 0; i--) {
        stride[i] = step;
        step *= x.d[i];
    }
    for (int i = 0; i < x.nd; i++)
        if (x.d[i] != 1)
            add_dim((axes >> i) & 1u ? &l.reduced : &l.kept, x.d[i], stride[i]);
    for (tp_walk *w : {&l.kept, &l.reduced})
        if (w->nd == 0)
            add_dim(w, 1, 0);
    l.outputs = tp_walk_total(&l.kept);
    l.count = tp_walk_total(&l.reduced);
    l.columns = l.kept.stride[0][l.kept.nd - 1] == 1 && l.kept.d[l.kept.nd - 1] >= COLUMNS / 2;
    if (l.columns)
        l.pack = l.outputs >= COLUMNS * N && packs_fit(l.kept, l.reduced, N) ? N : 1;
    else
        l.pack = packs_fit(l.reduced, l.kept, N) ? N : 1;
    if (l.outputs == 0 || l.count == 0)
        return l;
    l.parts = l.columns ? parts_of(l.count, COL_PART, (l.outputs + COLUMNS * l.pack - 1) / (COLUMNS * l.pack))
                        : parts_of(l.count, ROW_PART, l.outputs);
    const int64_t places = l.columns ? l.count : l.count / l.pack;
    l.part = (places + l.parts - 1) / l.parts;
    l.parts = (places + l.part - 1) / l.part; /* none is empty */
    return l;
}

static reduction reduction_of(const layout &l)
{
    layout in = l;
    tp_walk *w = l.columns ? &in.kept : &in.reduced;
    const int k = w->nd - 1;
    reduction g = {};

    w->d[k] /= l.pack;
    w->stride[0][k] *= l.pack;
    g.kept = tp_places_of<1>(&in.kept);
    g.reduced = tp_places_of<1>(&in.reduced);
    g.outputs = (uint32_t)l.outputs;
    g.count = g.reduced.total;
    g.parts = (uint32_t)l.parts;
    g.part = (uint32_t)l.part;
    return g;
}

/* What is reduced: the elements from `at` on themselves, or whether they equal the maximum of their output; N
 * of one row are of one output, N of neighbouring columns of as many. */
struct take_element {
    const float *x;
    template <int N> __device__ tp_pack<float, N> row(int64_t at, uint32_t) const
    {
        return tp_load_pack<N>(x + at);
    }
    template <int N> __device__ tp_pack<float, N> column(int64_t at, uint32_t) const
    {
        return tp_load_pack<N>(x + at);
    }
};
struct take_tie {
    const float *x, *y;
    template <int N> __device__ tp_pack<float, N> row(int64_t at, uint32_t o) const
    {
        tp_pack<float, N> v = tp_load_pack<N>(x + at);
        for (int k = 0; k < N; k++)
            v.v[k] = v.v[k] == y[o] ? 1.0f : 0.0f;
        return v;
    }
    template <int N> __device__ tp_pack<float, N> column(int64_t at, uint32_t o) const
    {
        tp_pack<float, N> v = tp_load_pack<N>(x + at);
        const tp_pack<float, N> most = tp_load_pack<N>(y + o);
        for (int k = 0; k < N; k++)
            v.v[k] = v.v[k] == most.v[k] ? 1.0f : 0.0f;
        return v;
    }
};

__device__ static int64_t place_of(const tp_places<1> &p, uint32_t i)
{
    int64_t at[1];
    tp_place(p, i, at);
    return at[0];
}

template <int N> __device__ static tp_pack<float, N> filled(float v)
{
    tp_pack<float, N> p;
    for (int k = 0; k < N; k++)
        p.v[k] = v;
    return p;
}

/* Reduces get(r) for r = first, first + step, ... below end, element by element of a pack. */
template <int N, typename G, typename F>
__device__ static tp_pack<float, N> reduce_places(uint32_t first, uint32_t end, uint32_t step, G get, F f,
                                                  float start)
{
    tp_pack<float, N> sum = filled<N>(start);

    for (uint32_t r = first; r < end; r += UNROLL * step) {
        tp_pack<float, N> v[UNROLL];
        for (int u = 0; u < UNROLL; u++)
            v[u] = r + u * step < end ? get(r + u * step) : filled<N>(start);
        for (int u = 0; u < UNROLL; u++)
            for (int k = 0; k < N; k++)
                sum.v[k] = f(sum.v[k], v[u].v[k]);
    }
    return sum;
}

template <int N, typename L, typename F>
__device__ static float reduce_row(const reduction &g, const L &load, uint32_t o, uint32_t first,
                                   uint32_t end, uint32_t step, F f, float start)
{
    const int64_t base = place_of(g.kept, o);
    const auto get = [&](uint32_t r) { return load.template row<N>(base + place_of(g.reduced, r), o); };
    const tp_pack<float, N> v = reduce_places<N>(first, end, step, get, f, start);
    float sum = v.v[0];

    for (int k = 1; k < N; k++)
        sum = f(sum, v.v[k]);
    return sum;
}

__device__ static uint32_t part_end(const reduction &g, uint32_t first)
{
    return g.count - first < g.part ? g.count : first + g.part;
}

/* to(parts, outputs) = each part of each output, times scale. */
template <int N, typename L, typename F>
__global__ void reduce_block(float *to, L load, reduction g, F f, float start, float scale)
{
    const uint32_t o = blockIdx.x, part = blockIdx.y, first = part * g.part, end = part_end(g, first);
    const float v =
        tp_block_reduce(reduce_row<N>(g, load, o, first + threadIdx.x, end, blockDim.x, f, start), f);

    if (threadIdx.x == 0)
        to[(int64_t)part * g.outputs + o] = v * scale;
}

template <int N, typename L, typename F>
__global__ void reduce_warp(float *y, L load, reduction g, F f, float start, float scale)
{
    const uint32_t o = blockIdx.x * (TP_THREADS / TP_WARP) + threadIdx.x / TP_WARP,
                   lane = threadIdx.x % TP_WARP;
    float v = start;

    if (o < g.outputs)
        v = reduce_row<N>(g, load, o, lane, g.count, TP_WARP, f, start);
    v = tp_warp_reduce(v, f);
    if (lane == 0 && o < g.outputs)
        y[o] = v * scale;
}

/* Threads (COLUMNS, ROWS): x along packs of outputs, y along the inputs of each. */
template <int N, typename L, typename F>
__global__ void reduce_columns(float *to, L load, reduction g, F f, float start, float scale)
{
    TP_SHARED(float, rest, [ROWS][N][COLUMNS]);
    const uint32_t place = blockIdx.x * COLUMNS + threadIdx.x, part = blockIdx.y, first = part * g.part,
                   end = part_end(g, first);
    tp_pack<float, N> v = filled<N>(start);

    if (place < g.kept.total) {
        const int64_t base = place_of(g.kept, place);
        const auto get = [&](uint32_t r) {
            return load.template column<N>(base + place_of(g.reduced, r), place * N);
        };
        v = reduce_places<N>(first + threadIdx.y, end, ROWS, get, f, start);
    }
    for (int k = 0; k < N; k++)
        rest[threadIdx.y][k][threadIdx.x] = v.v[k];
    __syncthreads();
    if (threadIdx.y == 0 && place < g.kept.total) {
        for (int row = 1; row < ROWS; row++)
            for (int k = 0; k < N; k++)
                v.v[k] = f(v.v[k], rest[row][k][threadIdx.x]);
        for (int k = 0; k < N; k++)
            v.v[k] *= scale;
        tp_store_pack(to + (int64_t)part * g.outputs + (int64_t)place * N, v);
    }
}

/* y = reduction of partial(parts, outputs) over the parts; few of them: a thread an output. */
template <typename F>
__global__ void reduce_few_parts(float *y, const float *partial, uint32_t outputs, uint32_t parts, F f,
                                 float scale)
{
    TP_GRID_LOOP (o, outputs) {
        float v = partial[o];
        for (uint32_t k = 1; k < parts; k++)
            v = f(v, partial[(int64_t)k * outputs + o]);
        y[o] = v * scale;
    }
}

template <typename F>
__global__ void reduce_parts(float *y, const float *partial, uint32_t outputs, uint32_t parts, F f,
                             float start, float scale)
{
    const uint32_t o = blockIdx.x;
    const auto get = [&](uint32_t k) { return tp_load_pack<1>(partial + (int64_t)k * outputs + o); };
    const float v = tp_block_reduce(reduce_places<1>(threadIdx.x, parts, blockDim.x, get, f, start).v[0], f);

    if (threadIdx.x == 0)
        y[o] = v * scale;
}

/* The launch that reads the inputs. */
template <int N, typename L, typename F>
static tp_status reduce_inputs(const tp_call *c, const layout &l, float *to, L load, F f, float start,
                               float scale)
{
    const reduction g = reduction_of(l);
    const dim3 each(g.outputs, g.parts), tiles((unsigned)tp_tiles(g.kept.total, COLUMNS), g.parts);

    if (l.columns)
        TP_LAUNCH((reduce_columns<N, L, F>), tiles, dim3(COLUMNS, ROWS), 0, c, to, load, g, f, start, scale);
    else if (g.parts == 1 && g.count <= (g.outputs < WIDE ? 2u : 16u) * TP_WARP)
        TP_LAUNCH((reduce_warp<N, L, F>), tp_tiles(g.outputs, TP_THREADS / TP_WARP), TP_THREADS, 0, c, to,
                  load, g, f, start, scale);
    else
        TP_LAUNCH((reduce_block<N, L, F>), each, TP_THREADS, 0, c, to, load, g, f, start, scale);
    return TP_OK;
}

/* A count that is split goes to scratch first; scale is applied at the end. */
template <typename L, typename F>
static tp_status reduce(const tp_call *c, const layout &l, float *y, void *scratch, L load, F f, float start,
                        float scale)
{
    float *to = l.parts > 1 ? static_cast<float *>(scratch) : y;
    const float now = l.parts > 1 ? 1.0f : scale;
    const uint32_t outputs = (uint32_t)l.outputs, parts = (uint32_t)l.parts;

    if (l.outputs == 0)
        return TP_OK;
    TP_TRY(l.pack == 1 ? reduce_inputs<1>(c, l, to, load, f, start, now)
                       : reduce_inputs<tp_pack_len<float>>(c, l, to, load, f, start, now));
    if (l.parts > NEAR)
        TP_LAUNCH(reduce_parts<F>, outputs, TP_THREADS, 0, c, y, to, outputs, parts, f, start, scale);
    else if (l.parts > 1)
        TP_LAUNCH(reduce_few_parts<F>, tp_cuda_blocks(c, outputs), TP_THREADS, 0, c, y, to, outputs, parts, f,
                  scale);
    return TP_OK;
}

static size_t parts_bytes(const layout &l)
{
    return l.parts > 1 ? (size_t)(l.outputs * l.parts) * sizeof(float) : 0;
}

static layout call_layout(const tp_call *c)
{
    return layout_of(c->in[0].shape, static_cast<const tp_reduce_attr *>(c->attr)->axes);
}

static tp_status check_places(const layout &l)
{
    TP_CHECK(l.outputs < TP_INDEX_LIMIT && l.count / l.pack < TP_INDEX_LIMIT, TP_EUNSUP,
             "%lld outputs of %lld inputs each, the most is 2^31 - 1", (long long)l.outputs,
             (long long)l.count);
    return TP_OK;
}

static tp_status reduce_prepare(tp_call *c, size_t *scratch)
{
    const layout l = call_layout(c);
    TP_TRY(tp_accept_f32(c, scratch));
    TP_TRY(check_places(l));
    *scratch = parts_bytes(l);
    return TP_OK;
}

static tp_status reduce_sum_run(const tp_call *c)
{
    const take_element load = {tp_in_f32(c, 0)};
    return reduce(c, call_layout(c), tp_out_f32(c, 0), c->scratch, load, tp_sum_of(), 0.0f, 1.0f);
}

static tp_status reduce_mean_run(const tp_call *c)
{
    const layout l = call_layout(c);
    const take_element load = {tp_in_f32(c, 0)};
    return reduce(c, l, tp_out_f32(c, 0), c->scratch, load, tp_sum_of(), 0.0f, 1.0f / (float)l.count);
}

static tp_status reduce_max_run(const tp_call *c)
{
    const take_element load = {tp_in_f32(c, 0)};
    return reduce(c, call_layout(c), tp_out_f32(c, 0), c->scratch, load, tp_max_of(), -INFINITY, 1.0f);
}

static layout rows_layout(int64_t rows, int64_t cols)
{
    return layout_of({2, {rows, cols}}, 1u);
}

size_t tp_cuda_sum_rows_scratch(int64_t rows, int64_t cols)
{
    return parts_bytes(rows_layout(rows, cols));
}

tp_status tp_cuda_sum_rows(const tp_call *c, float *y, const float *x, int64_t rows, int64_t cols,
                           void *scratch)
{
    return reduce(c, rows_layout(rows, cols), y, scratch, take_element{x}, tp_sum_of(), 0.0f, 1.0f);
}

/* ---- reduce_max_grad: dx = dy / ties where x equals the maximum ---- */

/* Places: argument 0 is x and dx, argument 1 what an output has. */
__global__ void reduce_max_grad_share(float *dx, const float *x, const float *y, const float *dy,
                                      const float *ties, tp_places<2> p)
{
    TP_GRID_LOOP (i, p.total) {
        int64_t at[2];
        tp_place(p, (uint32_t)i, at);
        dx[at[0]] = x[at[0]] == y[at[1]] ? dy[at[1]] / ties[at[1]] : 0.0f;
    }
}

static tp_walk share_walk(tp_shape x, uint32_t axes)
{
    tp_walk w = {};
    int64_t step[2] = {1, 1};

    w.n_args = 2;
    w.nd = x.nd;
    axes = axes != 0 ? axes : (1u << x.nd) - 1u;
    for (int i = x.nd - 1; i >= 0; i--) {
        const bool goes = ((axes >> i) & 1u) != 0;
        w.d[i] = x.d[i];
        w.stride[0][i] = step[0];
        w.stride[1][i] = goes ? 0 : step[1];
        step[0] *= x.d[i];
        step[1] *= goes ? 1 : x.d[i];
    }
    return w;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static tp_status reduce_max_grad_prepare(tp_call *c, size_t *scratch)
{
    const layout l = call_layout(c);
    TP_TRY(tp_accept_f32(c, scratch));
    TP_TRY(check_places(l));
    *scratch = aligned((size_t)l.outputs * sizeof(float)) + parts_bytes(l);
    return TP_OK;
}

static tp_status reduce_max_grad_run(const tp_call *c)
{
    const layout l = call_layout(c);
    float *ties = static_cast<float *>(c->scratch);
    const take_tie load = {tp_in_f32(c, 0), tp_in_f32(c, 1)};
    const tp_walk w = share_walk(c->in[0].shape, static_cast<const tp_reduce_attr *>(c->attr)->axes);
    const int64_t start[TP_WALK_ARGS] = {0};

    TP_TRY(reduce(c, l, ties, static_cast<char *>(c->scratch) + aligned((size_t)l.outputs * sizeof(float)),
                  load, tp_sum_of(), 0.0f, 1.0f));
    return tp_walk_pieces(w, 0, start, [&](const tp_walk &piece, int64_t, const int64_t *at) {
        const tp_places<2> p = tp_places_of<2>(&piece);
        TP_LAUNCH(reduce_max_grad_share, tp_cuda_blocks(c, p.total), TP_THREADS, 0, c,
                  tp_out_f32(c, 0) + at[0], tp_in_f32(c, 0) + at[0], tp_in_f32(c, 1) + at[1],
                  tp_in_f32(c, 2) + at[1], ties + at[1], p);
        return TP_OK;
    });
}

static const tp_impl reduce_sum_own = {"own", reduce_prepare, reduce_sum_run, nullptr, 0};
static const tp_impl reduce_mean_own = {"own", reduce_prepare, reduce_mean_run, nullptr, 0};
static const tp_impl reduce_max_own = {"own", reduce_prepare, reduce_max_run, nullptr, 0};
static const tp_impl reduce_max_grad_own = {"own", reduce_max_grad_prepare, reduce_max_grad_run, nullptr, 0};
TP_CUDA_IMPLS(reduce_sum, &reduce_sum_own);
TP_CUDA_IMPLS(reduce_mean, &reduce_mean_own);
TP_CUDA_IMPLS(reduce_max, &reduce_max_own);
TP_CUDA_IMPLS(reduce_max_grad, &reduce_max_grad_own);
