/* reduce.cu - sums, means and maxima over any set of dimensions, and how the gradient of a maximum is shared.
 *
 * An output element is the reduction of `count` inputs; where count is large and outputs are few, it is cut
 * into parts whose number depends on the shape alone, and a second launch reduces the parts in order. Every
 * input is read once. columns: the innermost dimension stays; a block takes 32 neighbouring outputs, 8 rows
 * of them at a time warp:    the innermost dimension goes and count is short; a warp takes an output block:
 * the same, with a long count; a block takes an output, or a part of it Sums run in float within a thread and
 * a block, so a part is at most PART long. */
#include "kernels/reduce/reduce.cuh"

#define PART    8192 /* inputs of a part */
#define COLUMNS 32
#define ROWS    8

/* Where the inputs of an output lie: kept and reduced dimensions with their strides, outermost first,
 * neighbours of one kind joined. */
struct layout {
    int n_kept, n_reduced;
    int64_t kept[TP_MAX_DIMS], kept_stride[TP_MAX_DIMS], reduced[TP_MAX_DIMS], reduced_stride[TP_MAX_DIMS];
    int64_t outputs, count, parts;
};

__host__ __device__ static inline int64_t offset_of(const int64_t *d, const int64_t *stride, int n, int64_t i)
{
    int64_t at = 0;
    for (int k = n - 1; k > 0; k--) {
        at += i % d[k] * stride[k];
        i /= d[k];
    }
    return n > 0 ? at + i * stride[0] : 0;
}

__device__ static int64_t kept_at(const layout &l, int64_t o)
{
    return offset_of(l.kept, l.kept_stride, l.n_kept, o);
}

__device__ static int64_t reduced_at(const layout &l, int64_t r)
{
    return offset_of(l.reduced, l.reduced_stride, l.n_reduced, r);
}

static void add_dim(int64_t *d, int64_t *stride, int *n, int64_t len, int64_t step)
{
    if (*n > 0 && stride[*n - 1] == len * step) {
        d[*n - 1] *= len;
        stride[*n - 1] = step;
        return;
    }
    d[*n] = len;
    stride[(*n)++] = step;
}

static layout layout_of(tp_shape x, uint32_t axes)
{
    layout l = {};
    int64_t stride[TP_MAX_DIMS], step = 1;

    axes = axes != 0 ? axes : (1u << x.nd) - 1u;
    for (int i = x.nd - 1; i >= 0; i--) {
        stride[i] = step;
        step *= x.d[i];
    }
    l.outputs = l.count = 1;
    for (int i = 0; i < x.nd; i++)
        if ((axes >> i) & 1u) {
            add_dim(l.reduced, l.reduced_stride, &l.n_reduced, x.d[i], stride[i]);
            l.count *= x.d[i];
        } else {
            add_dim(l.kept, l.kept_stride, &l.n_kept, x.d[i], stride[i]);
            l.outputs *= x.d[i];
        }
    l.parts = l.count > PART ? (l.count + PART - 1) / PART : 1;
    return l;
}

static int is_columns(const layout &l)
{
    return l.n_kept > 0 && l.kept_stride[l.n_kept - 1] == 1 && l.kept[l.n_kept - 1] >= COLUMNS / 2;
}

/* What is reduced: the element itself, or whether it equals the maximum of its output. */
struct take_element {
    const float *x;
    __device__ float operator()(int64_t at, int64_t o) const
    {
        (void)o;
        return x[at];
    }
};
struct take_tie {
    const float *x, *y;
    __device__ float operator()(int64_t at, int64_t o) const
    {
        return x[at] == y[o] ? 1.0f : 0.0f;
    }
};

/* partial(outputs, parts), or y itself times scale when there is one part. */
template <typename L, typename F>
__global__ void reduce_block(float *partial, L load, layout l, F f, float start, float scale)
{
    for (int64_t i = blockIdx.x; i < l.outputs * l.parts; i += gridDim.x) {
        const int64_t o = i / l.parts, first = (i - o * l.parts) * PART, base = kept_at(l, o);
        const int64_t end = l.parts > 1 && first + PART < l.count ? first + PART : l.count;
        float v = start;
        for (int64_t r = first + threadIdx.x; r < end; r += blockDim.x)
            v = f(v, load(base + reduced_at(l, r), o));
        v = tp_block_reduce(v, f);
        if (threadIdx.x == 0)
            partial[i] = v * scale;
    }
}

template <typename L, typename F>
__global__ void reduce_warp(float *y, L load, layout l, F f, float start, float scale)
{
    const int64_t step = (int64_t)gridDim.x * (blockDim.x / TP_WARP);

    for (int64_t o = (int64_t)blockIdx.x * (blockDim.x / TP_WARP) + threadIdx.x / TP_WARP; o < l.outputs;
         o += step) {
        const int64_t base = kept_at(l, o);
        float v = start;
        for (int64_t r = threadIdx.x % TP_WARP; r < l.count; r += TP_WARP)
            v = f(v, load(base + reduced_at(l, r), o));
        v = tp_warp_reduce(v, f);
        if (threadIdx.x % TP_WARP == 0)
            y[o] = v * scale;
    }
}

/* Threads (COLUMNS, ROWS): x along the outputs, y along the inputs of each. */
template <typename L, typename F>
__global__ void reduce_columns(float *partial, L load, layout l, F f, float start, float scale)
{
    TP_SHARED(float, rest, [ROWS][COLUMNS]);
    const int64_t tiles = (l.outputs + COLUMNS - 1) / COLUMNS;

    for (int64_t i = blockIdx.x; i < tiles * l.parts; i += gridDim.x) {
        const int64_t part = i / tiles, o = (i - part * tiles) * COLUMNS + threadIdx.x, first = part * PART;
        const int64_t end = l.parts > 1 && first + PART < l.count ? first + PART : l.count;
        const int64_t base = o < l.outputs ? kept_at(l, o) : 0;
        float v = start;
        for (int64_t r = first + threadIdx.y; r < end && o < l.outputs; r += ROWS)
            v = f(v, load(base + reduced_at(l, r), o));
        rest[threadIdx.y][threadIdx.x] = v;
        __syncthreads();
        if (threadIdx.y == 0 && o < l.outputs) {
            for (int k = 1; k < ROWS; k++)
                v = f(v, rest[k][threadIdx.x]);
            partial[o * l.parts + part] = v * scale;
        }
        __syncthreads();
    }
}

/* y = reduction of partial(outputs, parts) over the parts. */
template <typename F> __global__ void reduce_parts(float *y, const float *partial, layout l, F f, float scale)
{
    for (int64_t o = blockIdx.x; o < l.outputs; o += gridDim.x) {
        float v = partial[o * l.parts + (threadIdx.x < l.parts ? threadIdx.x : 0)];
        int64_t k = threadIdx.x + blockDim.x;
        for (; k < l.parts; k += blockDim.x)
            v = f(v, partial[o * l.parts + k]);
        TP_SHARED(float, all, [TP_THREADS]);
        all[threadIdx.x] = v;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int64_t t = 1; t < blockDim.x && t < l.parts; t++)
                v = f(v, all[t]);
            y[o] = v * scale;
        }
        __syncthreads();
    }
}

static unsigned some_blocks(const tp_call *c, int64_t wanted)
{
    return tp_cuda_blocks(c, wanted * TP_THREADS);
}

/* A count that is split goes to scratch first; scale is applied at the end. */
template <typename L, typename F>
static tp_status reduce(const tp_call *c, const layout &l, float *y, void *scratch, L load, F f, float start,
                        float scale)
{
    float *to = l.parts > 1 ? static_cast<float *>(scratch) : y;
    const float now = l.parts > 1 ? 1.0f : scale;

    if (l.outputs == 0)
        return TP_OK;
    if (is_columns(l))
        TP_LAUNCH((reduce_columns<L, F>), some_blocks(c, (l.outputs + COLUMNS - 1) / COLUMNS * l.parts),
                  dim3(COLUMNS, ROWS), 0, c, to, load, l, f, start, now);
    else if (l.count <= 512)
        TP_LAUNCH((reduce_warp<L, F>), tp_cuda_blocks(c, l.outputs * TP_WARP), TP_THREADS, 0, c, to, load, l,
                  f, start, now);
    else
        TP_LAUNCH((reduce_block<L, F>), some_blocks(c, l.outputs * l.parts), TP_THREADS, 0, c, to, load, l, f,
                  start, now);
    if (l.parts > 1)
        TP_LAUNCH(reduce_parts<F>, some_blocks(c, l.outputs), TP_THREADS, 0, c, y, to, l, f, scale);
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

static tp_status reduce_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = parts_bytes(call_layout(c));
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

/* The output that input i belongs to. */
struct inverse {
    int nd;
    int64_t d[TP_MAX_DIMS], step[TP_MAX_DIMS]; /* of x, and how far the output moves with each */
};

__global__ void reduce_max_grad_share(float *dx, const float *x, const float *y, const float *dy,
                                      const float *ties, inverse v, int64_t n)
{
    TP_GRID_LOOP (i, n) {
        const int64_t o = offset_of(v.d, v.step, v.nd, i);
        dx[i] = x[i] == y[o] ? dy[o] / ties[o] : 0.0f;
    }
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static tp_status reduce_max_grad_prepare(tp_call *c, size_t *scratch)
{
    const layout l = call_layout(c);
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = aligned((size_t)l.outputs * sizeof(float)) + parts_bytes(l);
    return TP_OK;
}

static tp_status reduce_max_grad_run(const tp_call *c)
{
    const layout l = call_layout(c);
    const tp_shape s = c->in[0].shape;
    const uint32_t asked = static_cast<const tp_reduce_attr *>(c->attr)->axes,
                   axes = asked != 0 ? asked : (1u << s.nd) - 1u;
    const int64_t n = tp_len(&c->in[0]);
    float *ties = static_cast<float *>(c->scratch);
    const take_tie load = {tp_in_f32(c, 0), tp_in_f32(c, 1)};
    inverse v = {};
    int64_t step = 1;

    TP_TRY(reduce(c, l, ties, static_cast<char *>(c->scratch) + aligned((size_t)l.outputs * sizeof(float)),
                  load, tp_sum_of(), 0.0f, 1.0f));
    v.nd = s.nd;
    for (int i = s.nd - 1; i >= 0; i--) {
        v.d[i] = s.d[i];
        v.step[i] = (axes >> i) & 1u ? 0 : step;
        step *= (axes >> i) & 1u ? 1 : s.d[i];
    }
    TP_LAUNCH(reduce_max_grad_share, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2), ties, v, n);
    return TP_OK;
}

static const tp_impl reduce_sum_own = {"own", reduce_prepare, reduce_sum_run, nullptr, 0};
static const tp_impl reduce_mean_own = {"own", reduce_prepare, reduce_mean_run, nullptr, 0};
static const tp_impl reduce_max_own = {"own", reduce_prepare, reduce_max_run, nullptr, 0};
static const tp_impl reduce_max_grad_own = {"own", reduce_max_grad_prepare, reduce_max_grad_run, nullptr, 0};
TP_CUDA_IMPLS(reduce_sum, &reduce_sum_own);
TP_CUDA_IMPLS(reduce_mean, &reduce_mean_own);
TP_CUDA_IMPLS(reduce_max, &reduce_max_own);
TP_CUDA_IMPLS(reduce_max_grad, &reduce_max_grad_own);
