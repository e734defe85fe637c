/* ring.cu - per-step values in rings on the device, and the step counter. A few elements each: one block. */
#include "kernels/cuda.cuh"

__global__ void ring_read_one(float *y, const float *ring, int64_t length, const uint64_t *counter)
{
    if (threadIdx.x == 0)
        y[0] = ring[counter[1] % (uint64_t)length];
}

struct ring_parts {
    const float *value[TP_MAX_RING];
    int64_t end[TP_MAX_RING]; /* column after the last of each value */
    int n;
};

__global__ void ring_write_row(float *ring, int64_t length, int64_t columns, const uint64_t *counter,
                               ring_parts p)
{
    float *row = ring + (int64_t)(counter[1] % (uint64_t)length) * columns;

    for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) {
        int part = 0;
        while (k >= p.end[part])
            part++;
        row[k] = p.value[part][k - (part > 0 ? p.end[part - 1] : 0)];
    }
}

__global__ void advance_one(uint64_t *counter)
{
    if (threadIdx.x == 0)
        counter[1]++;
}

static tp_status ring_read_run(const tp_call *c)
{
    TP_LAUNCH(ring_read_one, 1, TP_WARP, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0), tp_len(&c->in[0]),
              static_cast<const uint64_t *>(c->in[1].data));
    return TP_OK;
}

static tp_status ring_write_run(const tp_call *c)
{
    ring_parts p = {{nullptr}, {0}, c->n_in - 2};
    int64_t end = 0;

    for (int i = 0; i < p.n; i++) {
        p.value[i] = tp_in_f32(c, 2 + i);
        p.end[i] = end += tp_len(&c->in[2 + i]);
    }
    TP_LAUNCH(ring_write_row, 1, TP_WARP, 0, c, static_cast<float *>(c->in[0].data), c->in[0].shape.d[0],
              c->in[0].shape.d[1], static_cast<const uint64_t *>(c->in[1].data), p);
    return TP_OK;
}

static tp_status advance_run(const tp_call *c)
{
    TP_LAUNCH(advance_one, 1, TP_WARP, 0, c, static_cast<uint64_t *>(c->in[0].data));
    return TP_OK;
}

static const tp_impl ring_read_own = {"own", tp_accept_f32, ring_read_run, nullptr, 0};
static const tp_impl ring_write_own = {"own", tp_accept_f32, ring_write_run, nullptr, 0};
static const tp_impl advance_own = {"own", tp_accept_f32, advance_run, nullptr, 0};
TP_CUDA_IMPLS(ring_read, &ring_read_own);
TP_CUDA_IMPLS(ring_write, &ring_write_own);
TP_CUDA_IMPLS(advance, &advance_own);
