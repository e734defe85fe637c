/* shape.cu - ops that move elements and compute nothing: each is read once and written once.
 *
 * Neighbouring dimensions are joined on the host; what is left is walked in 32-bit arithmetic (index.cuh).
 * Slice, concat and transposes that keep the innermost dimension copy runs in units of up to 16 bytes, four
 * units a thread under way. Other transposes go through tiles of shared memory, so that both sides are read
 * and written in rows. Expand is the identity, broadcast (map.cuh). */
#include "kernels/elementwise/map.cuh"

/* ---- copies ---- */

#define COPY_UNROLL 4

/* y = x at the places of a walk: argument 0 is y, argument 1 x. */
template <typename V> __global__ void copy_units(V *y, const V *x, tp_places<2> p)
{
    const uint32_t first = blockIdx.x * (COPY_UNROLL * TP_THREADS) + threadIdx.x;
    int64_t at[COPY_UNROLL][2];
    V v[COPY_UNROLL];

    for (int u = 0; u < COPY_UNROLL; u++)
        if (first + u * TP_THREADS < p.total) {
            tp_place(p, first + u * TP_THREADS, at[u]);
            v[u] = x[at[u][1]];
        }
    for (int u = 0; u < COPY_UNROLL; u++)
        if (first + u * TP_THREADS < p.total)
            y[at[u][0]] = v[u];
}

/* Adds a dimension inside those of w; one that goes on where it ends is joined with it. */
static void add_dim(tp_walk *w, int64_t d, int64_t y_stride, int64_t x_stride)
{
    const int64_t stride[TP_WALK_ARGS] = {y_stride, x_stride, 0};
    const int k = w->nd - 1;

    if (d == 1)
        return;
    if (w->nd > 0 && w->stride[0][k] == d * y_stride && w->stride[1][k] == d * x_stride)
        w->d[k] *= d;
    else
        w->d[w->nd++] = d;
    for (int a = 0; a < w->n_args; a++)
        w->stride[a][w->nd - 1] = stride[a];
}

/* Elements of dimensions d, at their strides in y and x. */
static tp_walk copy_walk(tp_shape d, const int64_t *y_stride, const int64_t *x_stride)
{
    tp_walk w = {};

    w.n_args = 2;
    for (int i = 0; i < d.nd; i++)
        add_dim(&w, d.d[i], y_stride[i], x_stride[i]);
    if (w.nd == 0) {
        w.d[w.nd++] = 1;
        w.stride[0][0] = w.stride[1][0] = 1;
    }
    return w;
}

/* The largest unit of up to 16 bytes that runs, strides and offsets are whole multiples of. */
static int64_t unit_of(const tp_walk &w, int64_t size, const int64_t *offset)
{
    const int inner = w.nd - 1;
    int64_t unit = w.stride[0][inner] == 1 && w.stride[1][inner] == 1 ? 16 : size;

    for (; unit > size; unit /= 2) {
        bool whole = w.d[inner] * size % unit == 0;
        for (int a = 0; a < 2; a++) {
            whole = whole && offset[a] * size % unit == 0;
            for (int k = 0; k < inner; k++)
                whole = whole && w.stride[a][k] * size % unit == 0;
        }
        if (whole)
            break;
    }
    return unit;
}

/* Strides and offsets are in units of V. */
template <typename V>
static tp_status copy_launch(const tp_call *c, int input, const tp_walk &w, const int64_t *offset)
{
    V *y = static_cast<V *>(c->out[0].data);
    const V *x = static_cast<const V *>(c->in[input].data);

    return tp_walk_pieces(w, 0, offset, [&](const tp_walk &piece, int64_t, const int64_t *at) {
        const tp_places<2> p = tp_places_of<2>(&piece);
        TP_LAUNCH(copy_units<V>, tp_tiles(p.total, COPY_UNROLL * TP_THREADS), TP_THREADS, 0, c, y + at[0],
                  x + at[1], p);
        return TP_OK;
    });
}

/* Copies input number `input` by w, whose strides are in elements, from x[offset[1]] on to y[offset[0]] on.
 */
static tp_status copy_run(const tp_call *c, int input, tp_walk w, const int64_t *offset)
{
    const int64_t size = (int64_t)tp_dtype_size(c->out[0].dtype), unit = unit_of(w, size, offset);
    const int64_t per = unit / size, from[TP_WALK_ARGS] = {offset[0] / per, offset[1] / per, 0};

    if (tp_walk_total(&w) == 0)
        return TP_OK;
    w.d[w.nd - 1] /= per;
    for (int k = 0; k + 1 < w.nd; k++)
        for (int a = 0; a < w.n_args; a++)
            w.stride[a][k] /= per;
    switch (unit) {
    case 1:
        return copy_launch<uint8_t>(c, input, w, from);
    case 2:
        return copy_launch<uint16_t>(c, input, w, from);
    case 4:
        return copy_launch<uint32_t>(c, input, w, from);
    case 8:
        return copy_launch<uint64_t>(c, input, w, from);
    default:
        return copy_launch<tp_pack<uint32_t, 4>>(c, input, w, from);
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

static tp_status slice_run(const tp_call *c)
{
    const tp_slice_attr *a = static_cast<const tp_slice_attr *>(c->attr);
    int64_t from[TP_MAX_DIMS], to[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, from);
    dense_strides(c->out[0].shape, to);
    const int64_t offset[] = {0, a->begin * from[a->axis]};
    return copy_run(c, 0, copy_walk(c->out[0].shape, to, from), offset);
}

/* One launch an input. */
static tp_status concat_run(const tp_call *c)
{
    const tp_concat_attr *a = static_cast<const tp_concat_attr *>(c->attr);
    int64_t from[TP_MAX_DIMS], to[TP_MAX_DIMS], at = 0;

    dense_strides(c->out[0].shape, to);
    for (int i = 0; i < c->n_in; i++) {
        const int64_t offset[] = {at * to[a->axis], 0};
        dense_strides(c->in[i].shape, from);
        TP_TRY(copy_run(c, i, copy_walk(c->in[i].shape, to, from), offset));
        at += c->in[i].shape.d[a->axis];
    }
    return TP_OK;
}

struct same {
    __device__ float operator()(float x) const
    {
        return x;
    }
};

static tp_status expand_run(const tp_call *c)
{
    return tp_map_broadcast<float, 1>(c, same());
}

/* ---- transpose ---- */

#define TILE_SIDE   64
#define TILE_AREA   4096                         /* elements of a tile, or a few less */
#define TILE_FLOATS (TILE_AREA + TILE_AREA / 32) /* with the columns that keep lanes in different banks */
#define TILE_UNROLL 8                            /* loads of a thread under way */
#define TILE_LEAST  256 /* a smaller matrix is found in the cache, whatever the order it is read in */

/* y(..., C, R) = x(..., R, C): the rows of a matrix lie x_row apart in x, its columns y_col apart in y. */
struct tile_job {
    int64_t rows, cols, x_row, y_col;
    uint32_t tile_rows, tile_cols, pitch, blocks;
    tp_divisor by_tile_rows, by_tile_cols, down, across; /* down, across: tiles of a matrix */
    tp_places<2> matrix;                                 /* where matrices lie in y and x */
};

/* A block takes a tile. */
__global__ void transpose_tile(float *y, const float *x, tile_job j)
{
    TP_SHARED(float, tile, [TILE_FLOATS]);
    const uint32_t strip = tp_divide(blockIdx.x, j.down), matrix = tp_divide(strip, j.across);
    const int64_t top = (int64_t)(blockIdx.x - strip * j.down.d) * j.tile_rows,
                  left = (int64_t)(strip - matrix * j.across.d) * j.tile_cols;
    const uint32_t rows = (uint32_t)(j.rows - top < j.tile_rows ? j.rows - top : j.tile_rows),
                   cols = (uint32_t)(j.cols - left < j.tile_cols ? j.cols - left : j.tile_cols),
                   area = j.tile_rows * j.tile_cols;
    int64_t at[2];

    tp_place(j.matrix, matrix, at);
    x += at[1] + top * j.x_row + left;
    y += at[0] + left * j.y_col + top;
    for (uint32_t part = 0; part < area; part += TILE_UNROLL * TP_THREADS) {
        const uint32_t k = part + threadIdx.x;
        float v[TILE_UNROLL];
        uint32_t to[TILE_UNROLL];
        for (int u = 0; u < TILE_UNROLL; u++) {
            const uint32_t r = tp_divide(k + u * TP_THREADS, j.by_tile_cols),
                           col = k + u * TP_THREADS - r * j.tile_cols;
            to[u] = r * j.pitch + col;
            if (r < rows && col < cols)
                v[u] = x[r * j.x_row + col];
            else
                to[u] = TILE_FLOATS;
        }
        __syncwarp(); /* or the compiler would wait for four loads before it asks for the others */
        for (int u = 0; u < TILE_UNROLL; u++)
            if (to[u] < TILE_FLOATS)
                tile[to[u]] = v[u];
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < area; k += TP_THREADS) {
        const uint32_t col = tp_divide(k, j.by_tile_rows), r = k - col * j.tile_rows;
        if (r < rows && col < cols)
            y[col * j.y_col + r] = tile[r * j.pitch + col];
    }
}

/* Of joined dimensions in the output's order. */
static tp_walk transpose_walk(const tp_call *c)
{
    const tp_transpose_attr *a = static_cast<const tp_transpose_attr *>(c->attr);
    int64_t dense[TP_MAX_DIMS], from[TP_MAX_DIMS], to[TP_MAX_DIMS];

    dense_strides(c->in[0].shape, dense);
    dense_strides(c->out[0].shape, to);
    for (int i = 0; i < c->in[0].shape.nd; i++)
        from[i] = dense[a->perm[i]];
    return copy_walk(c->out[0].shape, to, from);
}

/* The dimension of the output that is the innermost of the input. */
static int columns_of(const tp_walk &w)
{
    int k = 0;
    while (w.stride[1][k] != 1)
        k++;
    return k;
}

static tp_status transpose_tile_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(tp_len(&c->in[0]) > 0, TP_EUNSUP, "x is empty");
    const tp_walk w = transpose_walk(c);
    const int cols = columns_of(w), rows = w.nd - 1;
    TP_CHECK(cols != rows, TP_EUNSUP, "the innermost dimension stays");
    TP_CHECK(w.d[rows] * w.d[cols] >= TILE_LEAST, TP_EUNSUP, "a matrix of %lld by %lld", (long long)w.d[rows],
             (long long)w.d[cols]);
    return TP_OK;
}

/* What one side of the matrix lacks is given to the other, in whole warps; | 1 as in the pitch. */
static int64_t tile_side(int64_t have, int64_t other)
{
    const int64_t most = other < TILE_SIDE ? TILE_AREA / (other | 1) / TP_WARP * TP_WARP : TILE_SIDE;
    return have < most ? have : most;
}

static tile_job tile_job_of(tp_walk w)
{
    const int c = columns_of(w), r = w.nd - 1;
    tile_job j = {};

    j.rows = w.d[r];
    j.cols = w.d[c];
    j.x_row = w.stride[1][r];
    j.y_col = w.stride[0][c];
    j.tile_rows = (uint32_t)tile_side(j.rows, j.cols);
    j.tile_cols = (uint32_t)tile_side(j.cols, j.rows);
    j.pitch = j.tile_cols | 1u;
    j.by_tile_rows = tp_divisor_of(j.tile_rows);
    j.by_tile_cols = tp_divisor_of(j.tile_cols);
    j.down = tp_divisor_of((j.rows + j.tile_rows - 1) / j.tile_rows);
    j.across = tp_divisor_of((j.cols + j.tile_cols - 1) / j.tile_cols);
    w.d[r] = w.d[c] = 1;
    j.matrix = tp_places_of<2>(&w);
    j.blocks = j.down.d * j.across.d * j.matrix.total;
    return j;
}

static tp_status transpose_tile_run(const tp_call *c)
{
    const tile_job j = tile_job_of(transpose_walk(c));
    TP_LAUNCH(transpose_tile, j.blocks, TP_THREADS, 0, c, tp_out_f32(c, 0), tp_in_f32(c, 0), j);
    return TP_OK;
}

static tp_status transpose_run(const tp_call *c)
{
    const int64_t offset[] = {0, 0};
    return copy_run(c, 0, transpose_walk(c), offset);
}

/* ---- pad ---- */

#define PAD_UNROLL 4

/* Dimensions in packs. */
struct pad_dims {
    int nd;
    uint32_t total, in[TP_MAX_DIMS], before[TP_MAX_DIMS];
    tp_divisor out[TP_MAX_DIMS];
};

/* The pack of x that goes to place i, or -1 outside x. */
__device__ static int64_t pad_from(const pad_dims &p, uint32_t i)
{
    int64_t from = 0, step = 1;
    bool inside = true;

    TP_ROLLED
    for (int k = p.nd - 1; k >= 0; k--) {
        const uint32_t outer = tp_divide(i, p.out[k]), at = i - outer * p.out[k].d - p.before[k];
        inside = inside && at < p.in[k]; /* before the first wraps to a large number */
        from += at * step;
        step *= p.in[k];
        i = outer;
    }
    return inside ? from : -1;
}

template <int N, typename T> __global__ void pad_fill(T *y, const T *x, pad_dims p, float value)
{
    const uint32_t first = blockIdx.x * (PAD_UNROLL * TP_THREADS) + threadIdx.x;
    tp_pack<float, N> v[PAD_UNROLL];

    for (int u = 0; u < PAD_UNROLL; u++)
        if (first + u * TP_THREADS < p.total) {
            const int64_t from = pad_from(p, first + u * TP_THREADS);
            if (from >= 0)
                v[u] = tp_load_pack<N>(x + from * N);
            else
                for (int k = 0; k < N; k++)
                    v[u].v[k] = value;
        }
    for (int u = 0; u < PAD_UNROLL; u++)
        if (first + u * TP_THREADS < p.total)
            tp_store_pack(y + (int64_t)(first + u * TP_THREADS) * N, v[u]);
}

/* A dimension without padding is joined with the one around it, if there is one. */
struct pad_shape {
    int nd;
    int64_t out[TP_MAX_DIMS], in[TP_MAX_DIMS], before[TP_MAX_DIMS];
};

static pad_shape pad_joined(const tp_call *c)
{
    const tp_pad_attr *a = static_cast<const tp_pad_attr *>(c->attr);
    const tp_shape in = c->in[0].shape, out = c->out[0].shape;
    pad_shape p = {0, {1}, {1}, {0}};

    for (int i = 0; i < in.nd; i++) {
        const int k = p.nd - 1;
        if (k >= 0 && in.d[i] == out.d[i]) {
            p.out[k] *= in.d[i];
            p.in[k] *= in.d[i];
            p.before[k] *= in.d[i];
        } else {
            p.out[p.nd] = out.d[i];
            p.in[p.nd] = in.d[i];
            p.before[p.nd++] = a->before[i];
        }
    }
    p.nd = p.nd > 0 ? p.nd : 1; /* a scalar */
    return p;
}

template <int N> static tp_status pad_launch(const tp_call *c, const pad_shape &s)
{
    pad_dims p = {};

    p.nd = s.nd;
    p.total = (uint32_t)(tp_len(&c->out[0]) / N);
    for (int k = 0; k < s.nd; k++) {
        const int64_t per = k == s.nd - 1 ? N : 1;
        p.out[k] = tp_divisor_of(s.out[k] / per);
        p.in[k] = (uint32_t)(s.in[k] / per);
        p.before[k] = (uint32_t)(s.before[k] / per);
    }
    TP_LAUNCH((pad_fill<N, float>), tp_tiles(p.total, PAD_UNROLL * TP_THREADS), TP_THREADS, 0, c,
              tp_out_f32(c, 0), tp_in_f32(c, 0), p, (float)static_cast<const tp_pad_attr *>(c->attr)->value);
    return TP_OK;
}

static tp_status pad_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(tp_len(&c->out[0]) < TP_INDEX_LIMIT, TP_EUNSUP, "%lld elements, the most is 2^31 - 1",
             (long long)tp_len(&c->out[0]));
    return TP_OK;
}

static tp_status pad_run(const tp_call *c)
{
    constexpr int N = tp_pack_len<float>;
    const pad_shape s = pad_joined(c);
    const int k = s.nd - 1;

    if (tp_len(&c->out[0]) == 0)
        return TP_OK;
    return s.out[k] % N == 0 && s.in[k] % N == 0 && s.before[k] % N == 0 ? pad_launch<N>(c, s)
                                                                         : pad_launch<1>(c, s);
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
static const tp_impl pad_own = {"own", pad_prepare, pad_run, nullptr, 0};
static const tp_impl concat_own = {"own", tp_accept_f32, concat_run, nullptr, 0};
TP_CUDA_IMPLS(expand, &expand_own);
TP_CUDA_IMPLS(transpose, &transpose_own_tile, &transpose_own);
TP_CUDA_IMPLS(slice, &slice_own);
TP_CUDA_IMPLS(pad, &pad_own);
TP_CUDA_IMPLS(concat, &concat_own);

/* Views: nothing runs. */
TP_CUDA_IMPLS(reshape, nullptr);
TP_CUDA_IMPLS(detach, nullptr);
