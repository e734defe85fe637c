/* shape.cu - ops that move elements and compute nothing: each is read once and written once. Expand,
 * transpose, slice and pad are grid loops over the output that find the element they want by its strides;
 * swapping the last two dimensions goes through 32x32 tiles of shared memory, so that both sides are read and
 * written in rows. */
#include "kernels/cuda.cuh"
#include "kernels/elementwise/walk.h"

#define TILE      32
#define TILE_ROWS 8 /* of threads; each moves TILE / TILE_ROWS rows */

template <typename T> __global__ void copy_strided(T *y, const T *x, tp_walk w, int64_t n)
{
    TP_GRID_LOOP (i, n) {
        int64_t at[TP_WALK_ARGS];
        tp_walk_offsets(&w, i, at);
        y[i] = x[at[0]];
    }
}

template <typename T> static tp_status launch_copy(const tp_call *c, const tp_walk *w, int64_t offset)
{
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(copy_strided<T>, tp_cuda_blocks(c, n), TP_THREADS, 0, c, static_cast<T *>(c->out[0].data),
              static_cast<const T *>(c->in[0].data) + offset, *w, n);
    return TP_OK;
}

/* y[i] = x[offset + sum of index k times stride[k]] over the output's dimensions. */
static tp_status run_copy(const tp_call *c, const int64_t *stride, int64_t offset)
{
    const tp_shape out = c->out[0].shape;
    tp_walk w;

    w.n_args = 1;
    w.nd = 0;
    for (int i = 0; i < out.nd; i++) {
        if (w.nd > 0 && w.stride[0][w.nd - 1] == stride[i] * out.d[i])
            w.d[w.nd - 1] *= out.d[i]; /* the outer dimension goes on where the inner ends */
        else
            w.d[w.nd++] = out.d[i];
        w.stride[0][w.nd - 1] = stride[i];
    }
    switch (tp_dtype_size(c->out[0].dtype)) {
    case 1:
        return launch_copy<uint8_t>(c, &w, offset);
    case 2:
        return launch_copy<uint16_t>(c, &w, offset);
    case 4:
        return launch_copy<uint32_t>(c, &w, offset);
    default:
        return launch_copy<uint64_t>(c, &w, offset);
    }
}

static void dense_strides(tp_shape s, int64_t *stride)
{
    int64_t step = 1;
    for (int i = s.nd - 1; i >= 0; i--) {
        stride[i] = step;
        step *= s.d[i];
    }
}

static tp_status expand_run(const tp_call *c)
{
    int64_t stride[TP_MAX_DIMS];
    tp_walk_strides(c->in[0].shape, c->out[0].shape, stride);
    return run_copy(c, stride, 0);
}

static tp_status slice_run(const tp_call *c)
{
    const tp_slice_attr *a = static_cast<const tp_slice_attr *>(c->attr);
    int64_t stride[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, stride);
    return run_copy(c, stride, a->begin * stride[a->axis]);
}

static tp_status transpose_run(const tp_call *c)
{
    const tp_transpose_attr *a = static_cast<const tp_transpose_attr *>(c->attr);
    int64_t dense[TP_MAX_DIMS], stride[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, dense);
    for (int i = 0; i < c->in[0].shape.nd; i++)
        stride[i] = dense[a->perm[i]];
    return run_copy(c, stride, 0);
}

/* y(B,W,H) = x(B,H,W) transposed, a tile a block; blockIdx.z and the loop over it are the batch. */
__global__ void transpose_tile(float *y, const float *x, int64_t batch, int64_t h, int64_t w)
{
    TP_SHARED(float, tile, [TILE][TILE + 1]); /* one more, so that a column lies in 32 banks */
    const int64_t left = (int64_t)blockIdx.x * TILE, top = (int64_t)blockIdx.y * TILE;

    for (int64_t b = blockIdx.z; b < batch; b += gridDim.z) {
        for (unsigned r = threadIdx.y; r < TILE; r += TILE_ROWS)
            if (top + r < h && left + threadIdx.x < w)
                tile[r][threadIdx.x] = x[(b * h + top + r) * w + left + threadIdx.x];
        __syncthreads();
        for (unsigned r = threadIdx.y; r < TILE; r += TILE_ROWS)
            if (left + r < w && top + threadIdx.x < h)
                y[(b * w + left + r) * h + top + threadIdx.x] = tile[threadIdx.x][r];
        __syncthreads();
    }
}

static tp_status transpose_tile_prepare(tp_call *c, size_t *scratch)
{
    const tp_transpose_attr *a = static_cast<const tp_transpose_attr *>(c->attr);
    const tp_shape x = c->in[0].shape;

    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(x.nd >= 2 && a->perm[x.nd - 1] == x.nd - 2 && a->perm[x.nd - 2] == x.nd - 1, TP_EUNSUP,
             "the last two dimensions do not change places");
    for (int i = 0; i + 2 < x.nd; i++)
        TP_CHECK(a->perm[i] == i, TP_EUNSUP, "dimension %d moves", i);
    TP_CHECK((x.d[x.nd - 2] + TILE - 1) / TILE <= 65535 && tp_len(&c->in[0]) > 0, TP_EUNSUP,
             "a matrix of %lld rows", (long long)x.d[x.nd - 2]);
    return TP_OK;
}

static tp_status transpose_tile_run(const tp_call *c)
{
    const tp_shape x = c->in[0].shape;
    const int64_t h = x.d[x.nd - 2], w = x.d[x.nd - 1], batch = tp_len(&c->in[0]) / (h * w);
    const dim3 grid((unsigned)((w + TILE - 1) / TILE), (unsigned)((h + TILE - 1) / TILE),
                    (unsigned)(batch < 65535 ? batch : 65535));

    TP_LAUNCH(transpose_tile, grid, dim3(TILE, TILE_ROWS), 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0), batch, h,
              w);
    return TP_OK;
}

/* ---- pad ---- */

struct pad_dims {
    int nd;
    int64_t out[TP_MAX_DIMS], in[TP_MAX_DIMS], before[TP_MAX_DIMS];
};

__global__ void pad_fill(float *y, const float *x, pad_dims p, int64_t n, float value)
{
    TP_GRID_LOOP (i, n) {
        int64_t left = i, from = 0, step = 1;
        bool inside = true;
        for (int k = p.nd - 1; k >= 0; k--) {
            const int64_t at = left % p.out[k] - p.before[k];
            inside = inside && at >= 0 && at < p.in[k];
            from += at * step;
            step *= p.in[k];
            left /= p.out[k];
        }
        y[i] = inside ? x[from] : value;
    }
}

static tp_status pad_run(const tp_call *c)
{
    const tp_pad_attr *a = static_cast<const tp_pad_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    pad_dims p = {c->in[0].shape.nd, {0}, {0}, {0}};

    for (int i = 0; i < p.nd; i++) {
        p.out[i] = c->out[0].shape.d[i];
        p.in[i] = c->in[0].shape.d[i];
        p.before[i] = a->before[i];
    }
    TP_LAUNCH(pad_fill, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0), p, n,
              (float)a->value);
    return TP_OK;
}

/* ---- concat: one launch an input ---- */

/* y(outer, total) at columns [at, at + width) = x(outer, width) */
__global__ void concat_part(float *y, const float *x, int64_t n, int64_t width, int64_t total, int64_t at)
{
    TP_GRID_LOOP (i, n) {
        y[i / width * total + at + i % width] = x[i];
    }
}

static tp_status concat_run(const tp_call *c)
{
    const tp_concat_attr *a = static_cast<const tp_concat_attr *>(c->attr);
    const tp_shape out = c->out[0].shape;
    int64_t inner = 1, at = 0;

    for (int i = a->axis + 1; i < out.nd; i++)
        inner *= out.d[i];
    for (int i = 0; i < c->n_in; i++) {
        const int64_t width = c->in[i].shape.d[a->axis] * inner, n = tp_len(&c->in[i]);
        if (n > 0)
            TP_LAUNCH(concat_part, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, i),
                      n, width, out.d[a->axis] * inner, at);
        at += width;
    }
    return TP_OK;
}

/* slice moves integers too */
static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

static const tp_impl expand_own = {"own", tp_accept_f32, expand_run, nullptr, 0};
static const tp_impl transpose_own_tile = {"own_tile", transpose_tile_prepare, transpose_tile_run, nullptr,
                                           0};
static const tp_impl transpose_own = {"own", tp_accept_f32, transpose_run, nullptr, 0};
static const tp_impl slice_own = {"own", accept_any, slice_run, nullptr, 0};
static const tp_impl pad_own = {"own", tp_accept_f32, pad_run, nullptr, 0};
static const tp_impl concat_own = {"own", tp_accept_f32, concat_run, nullptr, 0};
TP_CUDA_IMPLS(expand, &expand_own);
TP_CUDA_IMPLS(transpose, &transpose_own_tile, &transpose_own);
TP_CUDA_IMPLS(slice, &slice_own);
TP_CUDA_IMPLS(pad, &pad_own);
TP_CUDA_IMPLS(concat, &concat_own);

/* Views: nothing runs. */
TP_CUDA_IMPLS(reshape, nullptr);
TP_CUDA_IMPLS(detach, nullptr);
