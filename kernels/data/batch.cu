/* batch.cu - what makes the batch of a step from a resident data set. sample_index: a thread a few samples.
 * gather_batch: a stored row is read once and written once as float32, normalised, cropped and mirrored on
 * the way; neighbouring threads take neighbouring elements, and each takes several rows. Bitwise the loops of
 * batch.c. */
#include "host/core/order.h"
#include "kernels/cuda.cuh"
#include "kernels/data/place.h"
#include "kernels/row_map.cuh"

/* ---- sample_index ---- */

/* A thread walks on with its next position as soon as one has arrived, so that lanes do not wait for the
 * longest walk of each round. */
__global__ void sample_index_order(int64_t *index, float *weight, const uint64_t *counter,
                                   const int64_t *rows, int64_t n, tp_sample_attr a)
{
    const tp_step_place at = tp_step_place_of(counter, a.steps_per_epoch, a.batch);
    const tp_order order = tp_order_of(n);
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t x = (uint64_t)(at.first + i);

    while (i < a.batch) {
        const bool is_padding = at.first + i >= n;
        if (a.shuffle && !is_padding)
            x = tp_order_walk(order, at.seed, TP_RNG_ORDER, at.epoch, x);
        if (!is_padding && x >= (uint64_t)n)
            continue;
        index[i] = rows[is_padding ? 0 : x];
        weight[i] = is_padding ? 0.0f : 1.0f;
        i += (int64_t)gridDim.x * blockDim.x;
        x = (uint64_t)(at.first + i);
    }
}

static tp_status sample_index_run(const tp_call *c)
{
    const tp_sample_attr *a = static_cast<const tp_sample_attr *>(c->attr);
    /* One block a multiprocessor: two warps a scheduler hide the latency of a walk. */
    const unsigned wanted = tp_cuda_blocks(c, a->batch), most = (unsigned)tp_queue_of(c)->multiprocessors;
    const unsigned blocks = wanted < most ? wanted : most;

    TP_LAUNCH(sample_index_order, blocks, TP_THREADS, 0, c, static_cast<int64_t *>(c->out[0].data),
              tp_out_f32(c, 1), static_cast<const uint64_t *>(c->in[0].data),
              static_cast<const int64_t *>(c->in[1].data), tp_len(&c->in[1]), *a);
    return TP_OK;
}

/* ---- gather_batch ---- */

enum { IN_DATA, IN_INDEX, IN_SHIFT, IN_SCALE, IN_COUNTER };

struct gather {
    const int64_t *index;
    const float *shift, *scale; /* of every `run` elements of a row; NULL: none */
    const uint64_t *counter;
    int64_t batch, row, run, height, width;
    tp_gather_attr attr;
};

__device__ static int64_t row_of(const gather &g, int64_t b)
{
    return g.attr.staged ? g.attr.first + b : g.index[b];
}

struct half_bits {
    uint16_t bits;
};
struct bfloat_bits {
    uint16_t bits;
};
template <typename T> __device__ static float as_float(T v)
{
    return (float)v;
}
template <> __device__ float as_float(half_bits v)
{
    return tp_f16_to_f32(v.bits);
}
template <> __device__ float as_float(bfloat_bits v)
{
    return tp_bf16_to_f32(v.bits);
}

/* Elements of a thread and row: 4 where rows allow it, so that a warp writes 512 bytes side by side whatever
 * the data's type. Rows of a thread, all under way at once: more where a load brings little. */
template <typename T> static constexpr int rows_at_once = sizeof(T) < 4 ? 8 : 4;

template <typename T, int N>
__global__ void gather_batch_rows(float *y, const T *data, gather g, tp_row_map m)
{
    constexpr int rows = rows_at_once<T>;
    const tp_row_place p = tp_row_place_of(m, blockIdx.x, rows);
    const int64_t k = p.vector * N;
    tp_pack<T, N> v[rows];
    tp_pack<float, N> shift, scale;

    if (!p.has_one)
        return;
    TP_UNROLL
    for (int i = 0; i < rows; i++) {
        const int64_t b = p.row + (int64_t)i * m.per_pass;
        if (b < g.batch)
            v[i] = tp_load_raw<N>(data + row_of(g, b) * g.row + k);
    }
    TP_UNROLL
    for (int j = 0; j < N; j++) {
        const uint32_t at = g.scale == nullptr ? 0 : (uint32_t)(k + j) / (uint32_t)g.run;
        shift.v[j] = g.scale == nullptr ? 0.0f : g.shift[at];
        scale.v[j] = g.scale == nullptr ? 1.0f : g.scale[at];
    }
    TP_UNROLL
    for (int i = 0; i < rows; i++) {
        const int64_t b = p.row + (int64_t)i * m.per_pass;
        if (b >= g.batch)
            break;
        tp_pack<float, N> out;
        for (int j = 0; j < N; j++) {
            const float x = as_float(v[i].v[j]);
            out.v[j] = g.scale == nullptr ? x : (x - shift.v[j]) * scale.v[j];
        }
        tp_store_raw<N>(y + b * g.row + k, out);
    }
}

/* Images: a block a sample, so that its shift is drawn once, and a warp a line of a plane. */
template <typename T> __global__ void gather_batch_augmented(float *y, const T *data, gather g)
{
    TP_SHARED(tp_augment, move, [1]);
    const unsigned lane = threadIdx.x % TP_WARP;
    const int64_t lines = g.row / g.width;

    for (int64_t b = blockIdx.x; b < g.batch; b += gridDim.x) {
        const T *x = data + row_of(g, b) * g.row;
        __syncthreads();
        if (threadIdx.x == 0)
            move[0] = tp_augment_of(g.counter, g.attr, g.index[b]);
        __syncthreads();
        for (int64_t line = threadIdx.x / TP_WARP; line < lines; line += blockDim.x / TP_WARP) {
            const int64_t plane = (uint32_t)line / (uint32_t)g.height, i = line - plane * g.height;
            for (int64_t j = lane; j < g.width; j += TP_WARP) {
                const int64_t from = tp_augment_source(move[0], g.height, g.width, i, j);
                const uint32_t k = (uint32_t)(line * g.width + j);
                float v = 0.0f;
                if (from >= 0) {
                    v = as_float(x[plane * g.height * g.width + from]);
                    if (g.scale != nullptr)
                        v = (v - g.shift[k / (uint32_t)g.run]) * g.scale[k / (uint32_t)g.run];
                }
                y[b * g.row + k] = v;
            }
        }
    }
}

__global__ void gather_batch_ids(int64_t *y, const void *data, tp_dtype dtype, gather g, tp_row_map m)
{
    const tp_row_place p = tp_row_place_of(m, blockIdx.x, 1);

    if (p.has_one && p.row < g.batch)
        y[p.row * g.row + p.vector] = tp_load_int(data, dtype, row_of(g, p.row) * g.row + p.vector);
}

template <typename T, int N> static tp_status launch_rows(const tp_call *c, const gather &g, const T *data)
{
    const tp_row_map m = tp_row_map_of(g.row / N);

    TP_LAUNCH((gather_batch_rows<T, N>), tp_row_blocks(&m, g.batch, rows_at_once<T>), TP_THREADS, 0, c,
              tp_out_f32(c, 0), data, g, m);
    return TP_OK;
}

template <typename T> static tp_status launch_gather(const tp_call *c, const gather &g)
{
    const T *data = static_cast<const T *>(c->in[IN_DATA].data);

    if (g.counter == nullptr)
        return g.row % 4 == 0 ? launch_rows<T, 4>(c, g, data) : launch_rows<T, 1>(c, g, data);
    TP_LAUNCH(gather_batch_augmented<T>, tp_cuda_blocks(c, g.batch * TP_THREADS), TP_THREADS, 0, c,
              tp_out_f32(c, 0), data, g);
    return TP_OK;
}

static tp_status gather_as_stored(const tp_call *c, const gather &g)
{
    switch (c->in[IN_DATA].dtype) {
    case TP_F32:
        return launch_gather<float>(c, g);
    case TP_F64:
        return launch_gather<double>(c, g);
    case TP_F16:
        return launch_gather<half_bits>(c, g);
    case TP_BF16:
        return launch_gather<bfloat_bits>(c, g);
    case TP_I8:
        return launch_gather<int8_t>(c, g);
    case TP_I16:
        return launch_gather<int16_t>(c, g);
    case TP_I32:
        return launch_gather<int32_t>(c, g);
    case TP_I64:
        return launch_gather<int64_t>(c, g);
    case TP_U8:
        return launch_gather<uint8_t>(c, g);
    case TP_U16:
        return launch_gather<uint16_t>(c, g);
    case TP_U32:
        return launch_gather<uint32_t>(c, g);
    default:
        return launch_gather<uint64_t>(c, g);
    }
}

static tp_status gather_batch_run(const tp_call *c)
{
    const tp_gather_attr *a = static_cast<const tp_gather_attr *>(c->attr);
    const tp_shape s = c->in[IN_DATA].shape;
    const int has_norm = c->n_in > IN_SCALE && c->in[IN_SCALE].dtype != TP_DTYPE_NONE;
    gather g = {};

    g.index = static_cast<const int64_t *>(c->in[IN_INDEX].data);
    g.batch = tp_len(&c->in[IN_INDEX]);
    g.row = s.d[0] > 0 ? tp_shape_len(s) / s.d[0] : 0;
    g.attr = *a;
    if (g.batch * g.row == 0)
        return TP_OK;
    if (a->ids) {
        const tp_row_map m = tp_row_map_of(g.row);
        TP_LAUNCH(gather_batch_ids, tp_row_blocks(&m, g.batch, 1), TP_THREADS, 0, c,
                  static_cast<int64_t *>(c->out[0].data), c->in[IN_DATA].data, c->in[IN_DATA].dtype, g, m);
        return TP_OK;
    }
    if (has_norm) {
        g.shift = tp_in_f32(c, IN_SHIFT);
        g.scale = tp_in_f32(c, IN_SCALE);
        g.run = g.row / tp_len(&c->in[IN_SCALE]);
    }
    if (a->crop > 0 || a->hflip) {
        g.counter = static_cast<const uint64_t *>(c->in[IN_COUNTER].data);
        g.height = s.d[2];
        g.width = s.d[3];
    }
    return gather_as_stored(c, g);
}

/* The data has any dtype; normalisation is float32. Places in a row are 32-bit numbers. */
static tp_status gather_batch_prepare(tp_call *c, size_t *scratch)
{
    const tp_shape s = c->in[IN_DATA].shape;
    const int64_t row = s.d[0] > 0 ? tp_shape_len(s) / s.d[0] : 0;

    (void)scratch;
    TP_CHECK(row < (int64_t)1 << 32, TP_EUNSUP, "rows of %lld elements, want less than 2^32", (long long)row);
    TP_CHECK(c->n_in <= IN_SCALE || c->in[IN_SCALE].dtype != TP_F64, TP_EUNSUP,
             "scale is float64, want float32");
    return TP_OK;
}

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

static const tp_impl sample_index_own = {"own", accept_any, sample_index_run, nullptr, 0};
static const tp_impl gather_batch_own = {"own", gather_batch_prepare, gather_batch_run, nullptr, 0};
TP_CUDA_IMPLS(sample_index, &sample_index_own);
TP_CUDA_IMPLS(gather_batch, &gather_batch_own);
