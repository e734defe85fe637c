/* embedding.cu - rows of a table by id, and both forms of its gradient. The lookup reads and writes each row
 * once. The gradients sort (id, position) and sum every run of one id in the order of its positions, in
 * double: no atomics, and the result depends neither on the device nor on the order of blocks. Sorting is
 * bitonic (Batcher 1968) on 64-bit keys that are all different; steps that stay within CHUNK keys run in
 * shared memory. */
#include "kernels/cuda.cuh"

#define CHUNK   1024 /* keys that a block sorts by itself */
#define SORTERS (CHUNK / 2)

__host__ __device__ static inline int64_t clamp_id(int64_t id, int64_t n_rows)
{
    return id >= 0 && id < n_rows ? id : 0;
}

/* y(n,D) = table(V,D)[ids] */
__global__ void embedding_lookup(float *y, const float *table, const void *ids, tp_dtype dtype, int64_t n,
                                 int64_t d, int64_t n_rows)
{
    TP_GRID_LOOP (i, n * d) {
        const int64_t at = i / d;
        y[i] = table[clamp_id(tp_load_int(ids, dtype, at), n_rows) * d + i - at * d];
    }
}

static tp_status embedding_run(const tp_call *c)
{
    const tp_shape table = c->in[0].shape;
    const int64_t n = tp_len(&c->in[1]);

    TP_LAUNCH(embedding_lookup, tp_cuda_blocks(c, n * table.d[1]), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), c->in[1].data, c->in[1].dtype, n, table.d[1], table.d[0]);
    return TP_OK;
}

/* ---- sorting ---- */

/* Position in the low half, so that no two keys are equal; what pads the last chunk sorts to the end. */
__global__ void sort_make_keys(uint64_t *keys, int64_t padded, const void *ids, tp_dtype dtype, int64_t n,
                               int64_t n_rows)
{
    TP_GRID_LOOP (i, padded) {
        keys[i] =
            i < n ? (uint64_t)clamp_id(tp_load_int(ids, dtype, i), n_rows) << 32 | (uint64_t)i : UINT64_MAX;
    }
}

/* Puts two keys into the order of their part of the bitonic sequence of length `size`. */
__device__ static void compare(uint64_t *a, uint64_t *b, bool ascending)
{
    if ((*a > *b) == ascending) {
        const uint64_t swap = *a;
        *a = *b;
        *b = swap;
    }
}

/* One step over global memory: thread i has the pair whose lower key has bit `stride` clear. */
__global__ void sort_step(uint64_t *keys, int64_t pairs, int64_t size, int64_t stride)
{
    TP_GRID_LOOP (i, pairs) {
        const int64_t low = i / stride * 2 * stride + i % stride;
        compare(&keys[low], &keys[low + stride], (low & size) == 0);
    }
}

/* All steps of strides below CHUNK, for sizes from `first` to `last`. */
__global__ void sort_chunk(uint64_t *keys, int64_t first, int64_t last)
{
    TP_SHARED(uint64_t, part, [CHUNK]);
    const int64_t base = (int64_t)blockIdx.x * CHUNK;
    const int t = threadIdx.x;

    part[t] = keys[base + t];
    part[t + SORTERS] = keys[base + t + SORTERS];
    for (int64_t size = first; size <= last; size *= 2)
        for (int stride = size < CHUNK ? (int)size / 2 : SORTERS; stride > 0; stride /= 2) {
            const int low = t / stride * 2 * stride + t % stride;
            __syncthreads();
            compare(&part[low], &part[low + stride], ((base + low) & size) == 0);
        }
    __syncthreads();
    keys[base + t] = part[t];
    keys[base + t + SORTERS] = part[t + SORTERS];
}

static int64_t padded_length(int64_t n)
{
    int64_t padded = CHUNK;
    while (padded < n)
        padded *= 2;
    return padded;
}

static tp_status sort_ids(const tp_call *c, const tp_tensor *ids, int64_t n_rows, uint64_t *keys)
{
    const int64_t n = tp_len(ids), padded = padded_length(n);
    const unsigned chunks = (unsigned)(padded / CHUNK);

    TP_LAUNCH(sort_make_keys, tp_cuda_blocks(c, padded), TP_THREADS, 0, c, keys, padded, ids->data,
              ids->dtype, n, n_rows);
    TP_LAUNCH(sort_chunk, chunks, SORTERS, 0, c, keys, (int64_t)2, (int64_t)CHUNK);
    for (int64_t size = 2 * CHUNK; size <= padded; size *= 2) {
        for (int64_t stride = size / 2; stride >= CHUNK; stride /= 2)
            TP_LAUNCH(sort_step, tp_cuda_blocks(c, padded / 2), TP_THREADS, 0, c, keys, padded / 2, size,
                      stride);
        TP_LAUNCH(sort_chunk, chunks, SORTERS, 0, c, keys, size, size);
    }
    return TP_OK;
}

/* ---- runs of one id ---- */

/* start[r] = where run r begins, start[number of runs] = n; *n_runs. One block: each thread counts the heads
 * of a stretch, a scan in shared memory gives each stretch its first run, then the heads are written. */
__global__ void runs_find(int64_t *start, int64_t *n_runs, const uint64_t *keys, int64_t n)
{
    TP_SHARED(int64_t, before, [TP_THREADS]);
    const int64_t each = (n + TP_THREADS - 1) / TP_THREADS, lo = threadIdx.x * each,
                  hi = lo + each < n ? lo + each : n;
    int64_t heads = 0;

    for (int64_t i = lo; i < hi; i++)
        heads += i == 0 || keys[i] >> 32 != keys[i - 1] >> 32;
    before[threadIdx.x] = heads;
    __syncthreads();
    if (threadIdx.x == 0) {
        int64_t sum = 0;
        for (int k = 0; k < TP_THREADS; k++) {
            const int64_t here = before[k];
            before[k] = sum;
            sum += here;
        }
        n_runs[0] = sum;
        start[sum] = n;
    }
    __syncthreads();
    int64_t run = before[threadIdx.x];
    for (int64_t i = lo; i < hi; i++)
        if (i == 0 || keys[i] >> 32 != keys[i - 1] >> 32)
            start[run++] = i;
}

struct runs {
    const uint64_t *keys;
    const int64_t *start, *count;
    const float *dy; /* (n,D) */
    int64_t n, d;
};

__device__ static float run_sum(const runs &r, int64_t run, int64_t column)
{
    double sum = 0.0;
    for (int64_t s = r.start[run]; s < r.start[run + 1]; s++)
        sum += (double)r.dy[(int64_t)(r.keys[s] & 0xffffffffu) * r.d + column];
    return (float)sum;
}

/* rows(n) = ids of the runs, then -1; sums(n,D), zero past the last run. */
__global__ void embedding_rows_sum(int64_t *rows, float *sums, runs r)
{
    TP_GRID_LOOP (i, r.n * r.d) {
        const int64_t run = i / r.d, column = i - run * r.d;
        const bool there = run < r.count[0];
        sums[i] = there ? run_sum(r, run, column) : 0.0f;
        if (column == 0)
            rows[run] = there ? (int64_t)(r.keys[r.start[run]] >> 32) : -1;
    }
}

/* dw(V,D), zero before, gets the rows of the runs. */
__global__ void embedding_grad_sum(float *dw, runs r)
{
    TP_GRID_LOOP (i, r.n * r.d) {
        const int64_t run = i / r.d, column = i - run * r.d;
        if (run < r.count[0])
            dw[(int64_t)(r.keys[r.start[run]] >> 32) * r.d + column] = run_sum(r, run, column);
    }
}

__global__ void embedding_grad_clear(float *dw, int64_t n)
{
    TP_GRID_LOOP (i, n) {
        dw[i] = 0.0f;
    }
}

/* scratch: keys, starts of runs, their number */
static size_t runs_bytes(int64_t n)
{
    return (size_t)padded_length(n) * sizeof(uint64_t) + (size_t)(n + 2) * sizeof(int64_t);
}

static tp_status find_runs(const tp_call *c, int64_t n_rows, runs *out)
{
    const int64_t n = tp_len(&c->in[0]);
    uint64_t *keys = static_cast<uint64_t *>(c->scratch);
    int64_t *start = reinterpret_cast<int64_t *>(keys + padded_length(n));

    TP_TRY(sort_ids(c, &c->in[0], n_rows, keys));
    TP_LAUNCH(runs_find, 1, TP_THREADS, 0, c, start, start + n + 1, keys, n);
    *out = {keys, start, start + n + 1, tp_in_f32(c, 1), n, c->in[1].shape.d[c->in[1].shape.nd - 1]};
    return TP_OK;
}

static tp_status runs_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(tp_len(&c->in[0]) < (int64_t)1 << 31, TP_EUNSUP, "%lld ids, at most 2^31",
             (long long)tp_len(&c->in[0]));
    *scratch = runs_bytes(tp_len(&c->in[0]));
    return TP_OK;
}

static tp_status embedding_rows_run(const tp_call *c)
{
    const tp_embedding_attr *a = static_cast<const tp_embedding_attr *>(c->attr);
    runs r;

    TP_TRY(find_runs(c, a->n_rows, &r));
    TP_LAUNCH(embedding_rows_sum, tp_cuda_blocks(c, r.n * r.d), TP_THREADS, 0, c,
              static_cast<int64_t *>(c->out[0].data), tp_out_f32(c, 1), r);
    return TP_OK;
}

static tp_status embedding_grad_run(const tp_call *c)
{
    const tp_embedding_attr *a = static_cast<const tp_embedding_attr *>(c->attr);
    const int64_t n = tp_len(&c->out[0]);
    runs r;

    TP_TRY(find_runs(c, a->n_rows, &r));
    TP_LAUNCH(embedding_grad_clear, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0), n);
    TP_LAUNCH(embedding_grad_sum, tp_cuda_blocks(c, r.n * r.d), TP_THREADS, 0, c, tp_out_f32(c, 0), r);
    return TP_OK;
}

static const tp_impl embedding_own = {"own", tp_accept_f32, embedding_run, nullptr, 0};
static const tp_impl embedding_grad_own = {"own", runs_prepare, embedding_grad_run, nullptr, 0};
static const tp_impl embedding_rows_own = {"own", runs_prepare, embedding_rows_run, nullptr, 0};
TP_CUDA_IMPLS(embedding, &embedding_own);
TP_CUDA_IMPLS(embedding_grad, &embedding_grad_own);
TP_CUDA_IMPLS(embedding_rows, &embedding_rows_own);
