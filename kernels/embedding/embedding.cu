/* embedding.cu - rows of a table by id, and both forms of its gradient. The lookup reads and writes each row
 * once. The gradients sort (id, position) (sort.cuh) and sum every run of one id in the order of its
 * positions, in double: no atomics, and the result depends neither on the device nor on the order of blocks.
 * Long runs are not summed by one thread: a first kernel sums every CHUNK of sorted positions that lies
 * within a run, and every tile of chunks, and a run is made of those and of the rows at its ends. dy is read
 * once (twice within long runs) and the sums are written once. */
#include "kernels/embedding/sort.cuh"
#include "kernels/row_map.cuh"

/* ---- lookup ---- */

#define LOOKUP_EACH 4 /* rows of a thread, all under way at once */

/* y(n,D) = table(V,D)[ids]: the block's ids first, then their rows. */
template <int N>
__global__ void embedding_lookup(float *y, const float *table, sort_ids ids, int64_t n, tp_row_map m)
{
    TP_SHARED(int64_t, from, [TP_THREADS * LOOKUP_EACH]);
    const tp_row_place p = tp_row_place_of(m, blockIdx.x, LOOKUP_EACH);
    const unsigned rows = m.per_pass * LOOKUP_EACH;
    const int64_t first = (int64_t)(blockIdx.x / m.pieces) * rows, d = m.vectors * N;
    tp_pack<float, N> v[LOOKUP_EACH];

    for (unsigned i = threadIdx.x; i < rows && first + i < n; i += TP_THREADS)
        from[i] = clamp_id(tp_load_int(ids.data, ids.dtype, first + i), ids.n_rows);
    __syncthreads();
    if (!p.has_one)
        return;
    for (unsigned k = 0; k < LOOKUP_EACH; k++)
        if (p.row + k * m.per_pass < n)
            v[k] = tp_load_raw<N>(table + from[p.row - first + k * m.per_pass] * d + p.vector * N);
    for (unsigned k = 0; k < LOOKUP_EACH; k++)
        if (p.row + k * m.per_pass < n)
            tp_store_raw<N>(y + (p.row + k * m.per_pass) * d + p.vector * N, v[k]);
}

template <int N> static tp_status lookup_launch(const tp_call *c, int64_t n, int64_t d)
{
    const sort_ids ids = {c->in[1].data, c->in[1].dtype, c->in[0].shape.d[0]};
    const tp_row_map m = tp_row_map_of(d / N);

    TP_LAUNCH(embedding_lookup<N>, tp_row_blocks(&m, n, LOOKUP_EACH), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), ids, n, m);
    return TP_OK;
}

static tp_status embedding_run(const tp_call *c)
{
    const int64_t n = tp_len(&c->in[1]), d = c->in[0].shape.d[1];

    if (n * d == 0)
        return TP_OK;
    return d % 4 == 0 ? lookup_launch<4>(c, n, d) : lookup_launch<1>(c, n, d);
}

/* ---- runs of one id ---- */

#define RUN_TILE      SORT_BINS /* sorted positions that a block looks at in one go: one a thread */
#define RUN_STRETCHES 2048      /* at most: every block adds up the counts of all */
#define CHUNK         32
#define TILE_CHUNKS   (RUN_TILE / CHUNK)

struct runs {
    const uint64_t *keys; /* (n) in order */
    uint32_t *heads;      /* runs that begin in each stretch */
    double *chunk, *tile; /* sums (n / CHUNK, D) and (n / RUN_TILE, D), where all is one run */
    const float *dy;      /* (n,D) */
    int64_t d;
    uint32_t n, stretch;
    tp_row_map map; /* of a block of RUN_TILE, one piece */
};

__device__ static bool is_head(const runs &r, uint32_t i)
{
    return i < r.n && (i == 0 || key_id(r.keys[i]) != key_id(r.keys[i - 1]));
}

/* All of [from, to) is one run. */
__device__ static bool is_one_run(const runs &r, uint32_t from, uint32_t to)
{
    return to <= r.n && key_id(r.keys[from]) == key_id(r.keys[to - 1]);
}

#define SUM_AT_ONCE 4 /* rows under way; sums, which are wider: half as many */

/* sum += rows of dy at the sorted positions [from, to), columns from `column` */
template <int N>
__device__ static void add_rows(double *sum, const runs &r, uint32_t from, uint32_t to, uint32_t column)
{
    TP_ROLLED
    for (uint32_t s = from; s < to; s += SUM_AT_ONCE) {
        tp_pack<float, N> v[SUM_AT_ONCE];
        for (unsigned k = 0; k < SUM_AT_ONCE; k++)
            if (s + k < to)
                v[k] = tp_load_raw<N>(r.dy + (int64_t)key_position(r.keys[s + k]) * r.d + column);
        for (unsigned k = 0; k < SUM_AT_ONCE; k++)
            if (s + k < to)
                for (int j = 0; j < N; j++)
                    sum[j] += (double)v[k].v[j];
    }
}

/* sum += rows [from, to) of `part`, sums of D columns each */
template <int N>
__device__ static void add_parts(double *sum, const double *part, int64_t d, uint32_t from, uint32_t to,
                                 uint32_t column)
{
    TP_ROLLED
    for (uint32_t s = from; s < to; s += SUM_AT_ONCE / 2) {
        tp_pack<double, N> v[SUM_AT_ONCE / 2];
        for (unsigned k = 0; k < SUM_AT_ONCE / 2; k++)
            if (s + k < to)
                v[k] = tp_load_raw<N>(part + (int64_t)(s + k) * d + column);
        for (unsigned k = 0; k < SUM_AT_ONCE / 2; k++)
            if (s + k < to)
                for (int j = 0; j < N; j++)
                    sum[j] += v[k].v[j];
    }
}

template <int N> __device__ static void store_sum(double *to, const double *sum)
{
    tp_pack<double, N> v;
    for (int j = 0; j < N; j++)
        v.v[j] = sum[j];
    tp_store_raw<N>(to, v);
}

/* The sums of the chunks of a tile, and of the tile, that lie within one run. */
template <int N> __device__ static void sum_parts(const runs &r, uint32_t tile)
{
    const tp_row_map &m = r.map;
    const uint32_t vectors = (uint32_t)m.vectors;

    for (uint32_t k = threadIdx.x / m.lanes; k < TILE_CHUNKS; k += m.per_pass) {
        const uint32_t from = tile + k * CHUNK;
        if (from >= r.n || threadIdx.x >= m.lanes * m.per_pass || !is_one_run(r, from, from + CHUNK))
            continue;
        TP_ROLLED
        for (uint32_t v = threadIdx.x % m.lanes; v < vectors; v += m.lanes) {
            double sum[N] = {};
            add_rows<N>(sum, r, from, from + CHUNK, v * N);
            store_sum<N>(r.chunk + (int64_t)(from / CHUNK) * r.d + v * N, sum);
        }
    }
    __syncthreads();
    if (!is_one_run(r, tile, tile + RUN_TILE))
        return;
    for (uint32_t v = threadIdx.x; v < vectors; v += RUN_TILE) {
        double sum[N] = {};
        add_parts<N>(sum, r.chunk, r.d, tile / CHUNK, tile / CHUNK + TILE_CHUNKS, v * N);
        store_sum<N>(r.tile + (int64_t)(tile / RUN_TILE) * r.d + v * N, sum);
    }
}

/* heads of every stretch, and the sums that long runs are made of */
template <int N> __global__ void runs_count(runs r)
{
    const uint32_t lo = blockIdx.x * r.stretch, hi = r.n - lo < r.stretch ? r.n : lo + r.stretch;
    uint32_t heads = 0;

    for (uint32_t tile = lo; tile < hi; tile += RUN_TILE) {
        heads += is_head(r, tile + threadIdx.x);
        sum_parts<N>(r, tile);
    }
    heads = tp_block_sum(heads);
    if (threadIdx.x == 0)
        r.heads[blockIdx.x] = heads;
}

/* The run that holds position at - 1 ends here or later: doubling steps, then halving ones. */
__device__ static uint32_t run_end(const runs &r, uint32_t at)
{
    const uint32_t id = key_id(r.keys[at - 1]);
    uint32_t step = 1;

    while (at + step <= r.n && key_id(r.keys[at + step - 1]) == id) {
        at += step;
        step *= 2;
    }
    while (step > 1) {
        step /= 2;
        if (at + step <= r.n && key_id(r.keys[at + step - 1]) == id)
            at += step;
    }
    return at;
}

/* Always in order: tiles where a whole one comes next, else chunks up to the next tile, else rows up to the
 * next chunk. */
template <int N>
__device__ static void run_sum(double *sum, const runs &r, uint32_t from, uint32_t to, uint32_t column)
{
    while (from < to) {
        const uint32_t to_chunk = CHUNK - from % CHUNK, to_tile = RUN_TILE - from % RUN_TILE,
                       left = to - from;
        uint32_t n;
        if (to_chunk < CHUNK || left < CHUNK) {
            n = left < to_chunk ? left : to_chunk;
            add_rows<N>(sum, r, from, from + n, column);
        } else {
            const bool tiles = to_tile == RUN_TILE && left >= RUN_TILE;
            const uint32_t size = tiles ? RUN_TILE : CHUNK;
            n = (tiles || left < to_tile ? left : to_tile) / size;
            add_parts<N>(sum, tiles ? r.tile : r.chunk, r.d, from / size, from / size + n, column);
            n *= size;
        }
        from += n;
    }
}

/* Where the sums go: row k of (B,D) for run k with its id in rows, or (rows NULL) row id of a dense (V,D). */
struct run_target {
    int64_t *rows;
    float *sums;
};

/* The runs that begin in a tile, `first` of all; returns how many. begin is the block's. */
template <int N>
__device__ static uint32_t sum_tile(const runs &r, run_target to, uint32_t tile, uint32_t first,
                                    uint32_t *begin)
{
    const tp_row_map &m = r.map;
    const uint32_t vectors = (uint32_t)m.vectors;
    const bool head = is_head(r, tile + threadIdx.x);
    uint32_t count;
    const uint32_t place = scan_block(head, &count);

    if (head)
        begin[place] = tile + threadIdx.x;
    if (threadIdx.x == 0)
        begin[count] = run_end(r, r.n - tile < RUN_TILE ? r.n : tile + RUN_TILE);
    __syncthreads();
    for (uint32_t k = threadIdx.x / m.lanes; k < count && threadIdx.x < m.lanes * m.per_pass;
         k += m.per_pass) {
        const int64_t id = key_id(r.keys[begin[k]]), row = to.rows != nullptr ? (int64_t)first + k : id;
        TP_ROLLED
        for (uint32_t v = threadIdx.x % m.lanes; v < vectors; v += m.lanes) {
            double sum[N] = {};
            tp_pack<float, N> rounded;
            run_sum<N>(sum, r, begin[k], begin[k + 1], v * N);
            for (int j = 0; j < N; j++)
                rounded.v[j] = (float)sum[j];
            tp_store_raw<N>(to.sums + row * r.d + v * N, rounded);
        }
        if (to.rows != nullptr && threadIdx.x % m.lanes == 0)
            to.rows[row] = id;
    }
    return count;
}

/* What is past the last run in a block's share of the output: rows of -1, sums of zero. */
template <int N> __device__ static void clear_rest(const runs &r, run_target to, uint32_t from, uint32_t end)
{
    const tp_row_map &m = r.map;
    const uint32_t vectors = (uint32_t)m.vectors;
    const tp_pack<float, N> zero = {};

    for (uint32_t row = from + threadIdx.x / m.lanes; row < end && threadIdx.x < m.lanes * m.per_pass;
         row += m.per_pass) {
        TP_ROLLED
        for (uint32_t v = threadIdx.x % m.lanes; v < vectors; v += m.lanes)
            tp_store_raw<N>(to.sums + (int64_t)row * r.d + v * N, zero);
        if (threadIdx.x % m.lanes == 0)
            to.rows[row] = -1;
    }
}

template <int N> __global__ void TP_RESIDENT(RUN_TILE, 2) runs_sum(runs r, run_target to)
{
    TP_SHARED(uint32_t, begin, [RUN_TILE + 1]);
    const uint32_t lo = blockIdx.x * r.stretch, hi = r.n - lo < r.stretch ? r.n : lo + r.stretch;
    uint64_t heads = 0; /* those of earlier blocks above, all below */

    for (uint32_t b = threadIdx.x; b < gridDim.x; b += RUN_TILE)
        heads += (uint64_t)(b < blockIdx.x ? r.heads[b] : 0) << 32 | r.heads[b];
    heads = tp_block_sum(heads);
    uint32_t first = (uint32_t)(heads >> 32);
    const uint32_t total = (uint32_t)heads;
    for (uint32_t tile = lo; tile < hi; tile += RUN_TILE)
        first += sum_tile<N>(r, to, tile, first, begin);
    if (to.rows != nullptr)
        clear_rest<N>(r, to, lo > total ? lo : total, hi);
}

/* Positions of a stretch: whole tiles. */
static uint32_t run_stretch(uint32_t n)
{
    const uint32_t tiles = (n + RUN_TILE - 1) / RUN_TILE;
    return (tiles + RUN_STRETCHES - 1) / RUN_STRETCHES * RUN_TILE;
}

static tp_row_map run_map(int64_t vectors)
{
    tp_row_map m = {vectors, 1, 1, RUN_TILE};
    if (vectors > 0)
        m.lanes = (unsigned)(vectors < RUN_TILE ? vectors : RUN_TILE);
    m.per_pass = RUN_TILE / m.lanes;
    return m;
}

/* scratch: what the sort wants, heads, sums of chunks and tiles */
static size_t part_offset(int64_t n)
{
    const size_t bytes = sort_bytes(n) + RUN_STRETCHES * sizeof(uint32_t);
    return (bytes + 15) / 16 * 16;
}

template <int N> static tp_status runs_launch(const tp_call *c, runs r, run_target to)
{
    const unsigned blocks = (r.n + r.stretch - 1) / r.stretch;

    r.map = run_map(r.d / N);
    TP_LAUNCH(runs_count<N>, blocks, RUN_TILE, 0, c, r);
    TP_LAUNCH(runs_sum<N>, blocks, RUN_TILE, 0, c, r, to);
    return TP_OK;
}

static tp_status runs_run(const tp_call *c, run_target to)
{
    const tp_embedding_attr *a = static_cast<const tp_embedding_attr *>(c->attr);
    const int64_t n = tp_len(&c->in[0]);
    char *scratch = static_cast<char *>(c->scratch);
    runs r = {};

    if (n == 0)
        return TP_OK;
    r.n = (uint32_t)n;
    r.d = c->in[1].shape.d[c->in[1].shape.nd - 1];
    r.dy = tp_in_f32(c, 1);
    r.stretch = run_stretch(r.n);
    r.heads = reinterpret_cast<uint32_t *>(scratch + sort_bytes(n));
    r.chunk = reinterpret_cast<double *>(scratch + part_offset(n));
    r.tile = r.chunk + n / CHUNK * r.d;
    TP_TRY(sort_run(c, {c->in[0].data, c->in[0].dtype, a->n_rows}, r.n, scratch, &r.keys));
    return r.d % 4 == 0 ? runs_launch<4>(c, r, to) : runs_launch<1>(c, r, to);
}

static tp_status runs_prepare(tp_call *c, size_t *scratch)
{
    const tp_embedding_attr *a = static_cast<const tp_embedding_attr *>(c->attr);
    const int64_t n = tp_len(&c->in[0]), d = c->in[1].shape.d[c->in[1].shape.nd - 1];

    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(n < (int64_t)1 << 31 && d < (int64_t)1 << 31 && a->n_rows <= (int64_t)1 << 32, TP_EUNSUP,
             "%lld ids of %lld rows of %lld, at most 2^31 of 2^32 of 2^31", (long long)n,
             (long long)a->n_rows, (long long)d);
    *scratch = part_offset(n) + (size_t)((n / CHUNK + n / RUN_TILE) * d) * sizeof(double);
    return TP_OK;
}

static tp_status embedding_rows_run(const tp_call *c)
{
    return runs_run(c, {static_cast<int64_t *>(c->out[0].data), tp_out_f32(c, 1)});
}

static tp_status embedding_grad_run(const tp_call *c)
{
    TP_CUDA(cudaMemsetAsync(c->out[0].data, 0, tp_tensor_bytes(&c->out[0]), tp_queue_of(c)->stream));
    return runs_run(c, {nullptr, tp_out_f32(c, 0)});
}

static const tp_impl embedding_own = {"own", tp_accept_f32, embedding_run, nullptr, 0};
static const tp_impl embedding_grad_own = {"own", runs_prepare, embedding_grad_run, nullptr, 0};
static const tp_impl embedding_rows_own = {"own", runs_prepare, embedding_rows_run, nullptr, 0};
TP_CUDA_IMPLS(embedding, &embedding_own);
TP_CUDA_IMPLS(embedding_grad, &embedding_grad_own);
TP_CUDA_IMPLS(embedding_rows, &embedding_rows_own);
