/* batch.cu - what makes the batch of a step from a resident data set. sample_index: a thread a sample.
 * gather_batch: a grid loop over the elements of the batch; a stored row is read once and written once as
 * float32, normalised, cropped and mirrored on the way. Bitwise the loops of batch.c. */
#include "host/core/order.h"
#include "kernels/cuda.cuh"
#include "kernels/data/place.h"

/* ---- sample_index ---- */

__global__ void sample_index_order(int64_t *index, float *weight, const uint64_t *counter,
                                   const int64_t *rows, int64_t n, tp_sample_attr a)
{
    const tp_step_place at = tp_step_place_of(counter, a.steps_per_epoch, a.batch);

    TP_GRID_LOOP (i, a.batch) {
        const int64_t p = at.first + i;
        index[i] = rows[p >= n ? 0 : (a.shuffle ? tp_order_at(at.seed, at.epoch, n, p) : p)];
        weight[i] = p < n ? 1.0f : 0.0f;
    }
}

static tp_status sample_index_run(const tp_call *c)
{
    const tp_sample_attr *a = static_cast<const tp_sample_attr *>(c->attr);

    TP_LAUNCH(sample_index_order, tp_cuda_blocks(c, a->batch), TP_THREADS, 0, c,
              static_cast<int64_t *>(c->out[0].data), tp_out_f32(c, 1),
              static_cast<const uint64_t *>(c->in[0].data), static_cast<const int64_t *>(c->in[1].data),
              tp_len(&c->in[1]), *a);
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
    return tp_half_to_float(v.bits);
}
template <> __device__ float as_float(bfloat_bits v)
{
    return tp_bfloat_to_float(v.bits);
}

template <typename T> __global__ void gather_batch_rows(float *y, const T *data, gather g)
{
    TP_GRID_LOOP (i, g.batch * g.row) {
        const int64_t b = i / g.row, k = i - b * g.row;
        float v = as_float(data[row_of(g, b) * g.row + k]);
        if (g.scale != nullptr)
            v = (v - g.shift[k / g.run]) * g.scale[k / g.run];
        y[i] = v;
    }
}

/* Images: a block a sample, so that its shift is drawn once. */
template <typename T> __global__ void gather_batch_augmented(float *y, const T *data, gather g)
{
    TP_SHARED(tp_augment, move, [1]);

    for (int64_t b = blockIdx.x; b < g.batch; b += gridDim.x) {
        const T *x = data + row_of(g, b) * g.row;
        __syncthreads();
        if (threadIdx.x == 0)
            move[0] = tp_augment_of(g.counter, g.attr, g.index[b]);
        __syncthreads();
        for (int64_t k = threadIdx.x; k < g.row; k += blockDim.x) {
            const int64_t plane = k / (g.height * g.width), at = k - plane * g.height * g.width;
            const int64_t from = tp_augment_source(move[0], g.height, g.width, at / g.width, at % g.width);
            float v = 0.0f;
            if (from >= 0) {
                v = as_float(x[plane * g.height * g.width + from]);
                if (g.scale != nullptr)
                    v = (v - g.shift[k / g.run]) * g.scale[k / g.run];
            }
            y[b * g.row + k] = v;
        }
    }
}

__global__ void gather_batch_ids(int64_t *y, const void *data, tp_dtype dtype, gather g)
{
    TP_GRID_LOOP (i, g.batch * g.row) {
        const int64_t b = i / g.row;
        y[i] = tp_load_int(data, dtype, row_of(g, b) * g.row + i - b * g.row);
    }
}

template <typename T> static tp_status launch_gather(const tp_call *c, const gather &g)
{
    const T *data = static_cast<const T *>(c->in[IN_DATA].data);

    if (g.counter == nullptr) {
        TP_LAUNCH(gather_batch_rows<T>, tp_cuda_blocks(c, g.batch * g.row), TP_THREADS, 0, c,
                  tp_out_f32(c, 0), data, g);
        return TP_OK;
    }
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
    if (a->ids) {
        TP_LAUNCH(gather_batch_ids, tp_cuda_blocks(c, g.batch * g.row), TP_THREADS, 0, c,
                  static_cast<int64_t *>(c->out[0].data), c->in[IN_DATA].data, c->in[IN_DATA].dtype, g);
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

/* The data has any dtype; normalisation is float32. */
static tp_status gather_batch_prepare(tp_call *c, size_t *scratch)
{
    (void)scratch;
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
