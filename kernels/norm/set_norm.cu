/* set_norm.cu - layer and group norm and their gradients.
 *
 * A set is a run of memory, seen as a row by a team of threads (rows.cuh): of up to 8192 elements it is read
 * once and stays in registers. The mean of a first pass is corrected by the mean of what is left without it,
 * so sums in float do. The gradients of gamma and beta are summed by the blocks that compute dx, over parts
 * whose number depends on the shape alone; a second kernel adds the parts of a column in a fixed order. */
#include "kernels/index.cuh"
#include "kernels/loss/rows.cuh"
#include "kernels/norm/norm.h"

#define WARPS (TP_THREADS / TP_WARP)

/* Rows whose sums by column are held as well: by warps up to 512 columns, by blocks up to 4096. */
typedef tp_row<true, 4, 1, true> tp_row_block_1024;
typedef tp_row<false, 1, 16, true> tp_row_odd_512;
typedef tp_row<true, 1, 8, true> tp_row_odd_2048;

/* Signed, so that indices made of it need no more registers: 128 of set_norm_grad_long, unsigned 153. */
__device__ static int over(int64_t k, const tp_divisor &by)
{
    return (int)tp_divide((uint32_t)k, by);
}

/* sets of len elements; element k of set i is of channel first(i) + k / s, s elements of a channel. */
struct set_shape {
    int64_t sets;
    int len, channels, s, all; /* channels of a set, of a sample */
    float inverse;             /* 1 / len */
    tp_divisor groups, spread; /* by the sets of a sample, by s */
    __device__ int first(int64_t i) const
    {
        return (int)(i - (int64_t)over(i, groups) * groups.d) * channels;
    }
};

static set_shape shape_of(norm_dims d)
{
    const int64_t channels = d.c / d.groups, len = channels * d.s;
    return {d.n * d.groups,
            (int)len,
            (int)channels,
            (int)d.s,
            (int)d.c,
            (float)(1.0 / (double)len),
            tp_divisor_of(d.groups),
            tp_divisor_of(d.s)};
}

static norm_dims dims_of(const tp_call *c, int last)
{
    return tp_norm_dims(c->in[0].shape, last, static_cast<const tp_norm_attr *>(c->attr)->groups);
}

/* Whether vectors of 4 lie within a set and, where a channel has several elements, within a channel. */
static bool is_even(const set_shape &r)
{
    return (r.s == 1 ? r.len : r.s) % 4 == 0;
}

/* y = v gamma + beta of a piece. */
template <typename R>
__device__ static void store_scaled(float *y, const R &v, const float *gamma, const float *beta,
                                    const set_shape &r, int first)
{
    TP_UNROLLED (j, R::vectors) {
        const int k = R::column(j, first);
        float gain[R::width], offset[R::width];
        if (k >= r.len)
            continue;
        if (r.s == 1) {
            tp_load_vector<R::width>(gain, gamma, k);
            tp_load_vector<R::width>(offset, beta, k);
        } else {
            TP_UNROLLED (e, R::width) {
                gain[e] = gamma[over(k, r.spread)];
                offset[e] = beta[over(k, r.spread)];
            }
        }
        TP_UNROLLED (e, R::width)
            gain[e] = fmaf(v.v[j][e], gain[e], offset[e]);
        tp_store_vector<R::width>(y, k, gain);
    }
}

template <typename R> __device__ static float mean_of(R &v, const float *row, const set_shape &r)
{
    typename R::total sum = 0;
    TP_PIECES (R, first, r.len) {
        float part = 0.0f;
        v.load(row, first, r.len, 0.0f);
        TP_ELEMENTS (R, j, e)
            part += v.v[j][e];
        sum += part;
    }
    return (float)R::team::sum(sum) * r.inverse;
}

/* Sums of x - m and its square; what is held of x becomes x - m. */
template <typename R>
__device__ static void deviations_of(R &v, const float *row, const set_shape &r, float m, float *mean,
                                     float *square)
{
    typename R::total sum = 0, squares = 0;
    TP_PIECES (R, first, r.len) {
        float part = 0.0f, squared = 0.0f;
        v.load_again(row, first, r.len, 0.0f);
        TP_UNROLLED (j, R::vectors) {
            const bool there = R::column(j, first) < r.len;
            TP_UNROLLED (e, R::width) {
                v.v[j][e] = there ? v.v[j][e] - m : 0.0f;
                part += v.v[j][e];
                squared = fmaf(v.v[j][e], v.v[j][e], squared);
            }
        }
        sum += part;
        squares += squared;
    }
    *mean = (float)R::team::sum(sum) * r.inverse;
    *square = (float)R::team::sum(squares) * r.inverse;
}

template <typename R>
__global__ void set_norm_rows(float *y, float *mean, float *rstd, const float *x, const float *gamma,
                              const float *beta, set_shape r, float epsilon)
{
    TP_ROWS (R, i, r.sets) {
        const float *row = x + i * r.len;
        R v;
        float rest, square;
        const float m = mean_of(v, row, r);
        deviations_of(v, row, r, m, &rest, &square);
        const float var = fmaf(-rest, rest, square);
        const float scale = 1.0f / sqrtf((var < 0.0f ? 0.0f : var) + epsilon);
        TP_PIECES (R, first, r.len) {
            if (!R::held) {
                v.load(row, first, r.len, 0.0f);
                TP_ELEMENTS (R, j, e)
                    v.v[j][e] -= m;
            }
            TP_ELEMENTS (R, j, e)
                v.v[j][e] = (v.v[j][e] - rest) * scale;
            store_scaled(y + i * r.len, v, gamma + r.first(i), beta + r.first(i), r, first);
        }
        if (R::team::lane() == 0) {
            mean[i] = m + rest;
            rstd[i] = scale;
        }
    }
}

static tp_status run_sets(const tp_call *c, norm_dims d)
{
    const tp_norm_attr *a = static_cast<const tp_norm_attr *>(c->attr);
    const set_shape r = shape_of(d);

    TP_LAUNCH_HELD_ROWS(set_norm_rows, r.sets, r.len, is_even(r), c, tp_out_f32(c, 0), tp_out_f32(c, 1),
                        tp_out_f32(c, 2), tp_in_f32(c, SN_X), tp_in_f32(c, SN_GAMMA), tp_in_f32(c, SN_BETA),
                        r, (float)a->epsilon);
    return TP_OK;
}

/* ---- gradients ---- */

/* What the gradients read. */
struct set_inputs {
    const float *x, *dy, *gamma, *mean, *rstd;
};

static set_inputs inputs_of(const tp_call *c)
{
    return {tp_in_f32(c, SG_X), tp_in_f32(c, SG_DY), tp_in_f32(c, SG_GAMMA), tp_in_f32(c, SG_MEAN),
            tp_in_f32(c, SG_RSTD)};
}

/* Two sums over a team; every thread must call. */
template <bool BLOCK, typename T> __device__ static void team_sums(T *a, T *b)
{
    *a = tp_warp_reduce(*a, tp_sum_of());
    *b = tp_warp_reduce(*b, tp_sum_of());
    if (BLOCK) {
        TP_SHARED(T, part, [WARPS][2]);
        __syncthreads(); /* of an earlier call nobody reads any more */
        if (threadIdx.x % TP_WARP == 0) {
            part[threadIdx.x / TP_WARP][0] = *a;
            part[threadIdx.x / TP_WARP][1] = *b;
        }
        __syncthreads();
        *a = part[0][0];
        *b = part[0][1];
        for (int w = 1; w < WARPS; w++) {
            *a += part[w][0];
            *b += part[w][1];
        }
    }
}

/* A piece of x and dy of a set, with the set's statistics. */
template <typename R> struct set_piece {
    R x, dy;
    float m, scale;
    __device__ void load(const set_inputs &in, int64_t i, int first, int len)
    {
        x.load(in.x + i * len, first, len, 0.0f);
        dy.load(in.dy + i * len, first, len, 0.0f);
        m = in.mean[i];
        scale = in.rstd[i];
    }
    /* x becomes xh; adds dy to beta and dy xh to gamma. */
    __device__ void add_columns(R &dbeta, R &dgamma)
    {
        TP_ELEMENTS (R, j, e) {
            x.v[j][e] = (x.v[j][e] - m) * scale;
            dbeta.v[j][e] += dy.v[j][e];
            dgamma.v[j][e] = fmaf(dy.v[j][e], x.v[j][e], dgamma.v[j][e]);
        }
    }
    /* dy becomes g = dy gamma; adds g and g xh. */
    __device__ void add_row(const R &gain, float *sum, float *dot)
    {
        TP_ELEMENTS (R, j, e) {
            dy.v[j][e] *= gain.v[j][e];
            *sum += dy.v[j][e];
            *dot = fmaf(dy.v[j][e], x.v[j][e], *dot);
        }
    }
    /* dx = rstd (g - mean(g) - xh mean(g xh)) in dy's place. */
    __device__ void differentiate(float mean_g, float mean_dot)
    {
        TP_ELEMENTS (R, j, e)
            dy.v[j][e] = scale * (dy.v[j][e] - fmaf(x.v[j][e], mean_dot, mean_g));
    }
};

/* The sets that a team walks: one group of samples begin, begin + step, ... below end. */
struct walk {
    int64_t begin, end;
    int step, group;
};

template <bool BLOCK> __device__ static walk walk_of(const set_shape &r, int64_t samples, int64_t per)
{
    const int64_t part = over(blockIdx.x, r.groups), begin = part * per;
    return {begin + (BLOCK ? 0 : threadIdx.x / TP_WARP), begin + per < samples ? begin + per : samples,
            BLOCK ? 1 : WARPS, (int)(blockIdx.x - part * r.groups.d)};
}

/* The sums of a block's warps, in their order, in the first warp's place. cols <= MOST. */
template <int MOST, typename R> __device__ static void add_warps(R &v, int cols)
{
    TP_SHARED(float4, aligned, [MOST / 4]);
    float *sum = reinterpret_cast<float *>(aligned);
    const int warp = (int)threadIdx.x / TP_WARP;
    for (int w = WARPS - 1; w >= 0; w--) {
        if (w == warp) {
            if (w < WARPS - 1) {
                R rest;
                rest.load(sum, 0, cols, 0.0f);
                TP_ELEMENTS (R, j, e)
                    v.v[j][e] += rest.v[j][e];
            }
            v.store(sum, 0, cols);
        }
        __syncthreads();
    }
}

/* One element a channel (s = 1), sets that are held: dx, and partial(parts, 2, C) with the sums of dy and of
 * dy xh. Grid: parts x groups. The next set is on its way while one is worked on. */
template <typename R>
__global__ void set_norm_grad_rows(float *dx, float *partial, set_inputs in, set_shape r, int64_t samples,
                                   int64_t per)
{
    constexpr bool BLOCK = std::is_same<typename R::team, tp_row_team<true>>::value;
    const walk w = walk_of<BLOCK>(r, samples, per);
    const int from = w.group * r.channels;
    R dbeta, dgamma;
    set_piece<R> now, next;

    TP_ELEMENTS (R, j, e)
        dbeta.v[j][e] = dgamma.v[j][e] = 0.0f;
    if (w.begin < w.end)
        next.load(in, w.begin * r.groups.d + w.group, 0, r.len);
    for (int64_t n = w.begin; n < w.end; n += w.step) {
        R gain;
        float sum = 0.0f, dot = 0.0f;
        now = next;
        if (n + w.step < w.end)
            next.load(in, (n + w.step) * r.groups.d + w.group, 0, r.len);
        gain.load(in.gamma + from, 0, r.len, 0.0f);
        now.add_columns(dbeta, dgamma);
        now.add_row(gain, &sum, &dot);
        team_sums<BLOCK>(&sum, &dot);
        now.differentiate(sum * r.inverse, dot * r.inverse);
        now.dy.store(dx + (n * r.groups.d + w.group) * r.len, 0, r.len);
    }
    if constexpr (!BLOCK) {
        add_warps<R::piece>(dbeta, r.len);
        add_warps<R::piece>(dgamma, r.len);
    }
    if (BLOCK || threadIdx.x < TP_WARP) {
        float *sums = partial + (int64_t)over(blockIdx.x, r.groups) * 2 * r.all + from;
        dbeta.store(sums, 0, r.len);
        dgamma.store(sums + r.all, 0, r.len);
    }
}

/* The same of sets that are not held: partial is read and written for each of them. */
template <typename R>
__global__ void set_norm_grad_long(float *dx, float *partial, set_inputs in, set_shape r, int64_t samples,
                                   int64_t per)
{
    const walk w = walk_of<true>(r, samples, per);
    float *sums = partial + (int64_t)over(blockIdx.x, r.groups) * 2 * r.all + w.group * r.channels;

    for (int64_t n = w.begin; n < w.end; n++) {
        const int64_t i = n * r.groups.d + w.group;
        set_piece<R> p;
        R gain;
        double sum = 0.0, dot = 0.0;
        TP_PIECES (R, first, r.len) {
            float part_sum = 0.0f, part_dot = 0.0f;
            R dbeta, dgamma;
            p.load(in, i, first, r.len);
            gain.load(in.gamma + w.group * r.channels, first, r.len, 0.0f);
            dbeta.load(sums, first, n > w.begin ? r.len : 0, 0.0f);
            dgamma.load(sums + r.all, first, n > w.begin ? r.len : 0, 0.0f);
            p.add_columns(dbeta, dgamma);
            dbeta.store(sums, first, r.len);
            dgamma.store(sums + r.all, first, r.len);
            p.add_row(gain, &part_sum, &part_dot);
            sum += part_sum;
            dot += part_dot;
        }
        team_sums<true>(&sum, &dot);
        TP_PIECES (R, first, r.len) {
            p.load(in, i, first, r.len);
            gain.load(in.gamma + w.group * r.channels, first, r.len, 0.0f);
            TP_ELEMENTS (R, j, e) {
                p.x.v[j][e] = (p.x.v[j][e] - p.m) * p.scale;
                p.dy.v[j][e] *= gain.v[j][e];
            }
            p.differentiate((float)sum * r.inverse, (float)dot * r.inverse);
            p.dy.store(dx + i * r.len, first, r.len);
        }
    }
}

/* ---- several elements a channel ---- */

/* A warp takes vectors of one channel at a time: a chunk is 32 W elements or what is left of the channel. */
struct chunks {
    int each, all; /* chunks of a channel, of a set */
    tp_divisor by; /* by each */
};

static chunks chunks_of(const set_shape &r, int width)
{
    const int each = (r.s + TP_WARP * width - 1) / (TP_WARP * width);
    return {each, each * r.channels, tp_divisor_of(each)};
}

/* V chunks a warp. */
template <int W, int V> struct chunk_row {
    float x[V][W], dy[V][W];

    /* Chunk j of this warp in a batch of WARPS * V. */
    __device__ static int number(int batch, int j)
    {
        return (batch * V + j) * WARPS + (int)threadIdx.x / TP_WARP;
    }
    /* Where this lane's elements are in the set: -1, nowhere. */
    __device__ static int place(int batch, int j, const set_shape &r, const chunks &q)
    {
        const int k = number(batch, j), ch = over(k, q.by);
        const int at = ((k - ch * q.each) * TP_WARP + (int)threadIdx.x % TP_WARP) * W;
        return k < q.all && at < r.s ? ch * r.s + at : -1;
    }
    /* x becomes xh */
    __device__ void load(const set_inputs &in, int64_t i, int batch, const set_shape &r, const chunks &q)
    {
        const float m = in.mean[i], scale = in.rstd[i];
        TP_UNROLLED (j, V) {
            const int at = place(batch, j, r, q);
            TP_UNROLLED (e, W)
                x[j][e] = dy[j][e] = 0.0f;
            if (at >= 0) {
                tp_load_vector<W>(x[j], in.x + i * r.len, at);
                tp_load_vector<W>(dy[j], in.dy + i * r.len, at);
            }
        }
        TP_UNROLLED (j, V)
            TP_UNROLLED (e, W)
                x[j][e] = (x[j][e] - m) * scale;
    }
    /* sums(chunks, 2): of dy and of dy xh. */
    __device__ void add(float *sums, int batch, const chunks &q) const
    {
        TP_UNROLLED (j, V) {
            float sum = 0.0f, dot = 0.0f;
            TP_UNROLLED (e, W) {
                sum += dy[j][e];
                dot = fmaf(dy[j][e], x[j][e], dot);
            }
            team_sums<false>(&sum, &dot);
            if (threadIdx.x % TP_WARP == 0 && number(batch, j) < q.all) {
                sums[2 * number(batch, j)] = sum;
                sums[2 * number(batch, j) + 1] = dot;
            }
        }
    }
};

/* partial(2, C of a sample) of set i from the sums of its chunks, and the set's sums of g and g xh. */
__device__ static void add_chunks(float *partial, const float *sums, const float *gamma, const set_shape &r,
                                  const chunks &q, double *sum, double *dot)
{
    *sum = *dot = 0.0;
    for (int ch = (int)threadIdx.x / TP_WARP; ch < r.channels; ch += WARPS) {
        double a = 0.0, b = 0.0;
        for (int k = (int)threadIdx.x % TP_WARP; k < q.each; k += TP_WARP) {
            a += (double)sums[2 * (ch * q.each + k)];
            b += (double)sums[2 * (ch * q.each + k) + 1];
        }
        team_sums<false>(&a, &b);
        if (threadIdx.x % TP_WARP == 0) {
            partial[ch] = (float)a;
            partial[r.all + ch] = (float)b;
            *sum += a * (double)gamma[ch];
            *dot += b * (double)gamma[ch];
        }
    }
    team_sums<true>(sum, dot);
}

/* Several elements a channel: dx, partial(N, 2, C) as above, sums(sets, chunks, 2). A block a set; a set of
 * one batch of chunks is read once. */
template <int W, int V>
__global__ void set_norm_grad_chunks(float *dx, float *partial, float *chunk_sums, set_inputs in, set_shape r,
                                     chunks q)
{
    const int batches = (q.all + WARPS * V - 1) / (WARPS * V);

    for (int64_t i = blockIdx.x; i < r.sets; i += gridDim.x) {
        chunk_row<W, V> v;
        const int first = r.first(i);
        const float scale = in.rstd[i];
        float *sums = chunk_sums + i * q.all * 2, *row = dx + i * r.len;
        double sum, dot;
        for (int b = 0; b < batches; b++) {
            v.load(in, i, b, r, q);
            v.add(sums, b, q);
        }
        __syncthreads(); /* chunk sums of all warps */
        add_chunks(partial + (int64_t)over(i, r.groups) * 2 * r.all + first, sums, in.gamma + first, r, q,
                   &sum, &dot);
        const float mean_g = (float)sum * r.inverse, mean_dot = (float)dot * r.inverse;
        for (int b = 0; b < batches; b++) {
            if (batches > 1)
                v.load(in, i, b, r, q);
            TP_UNROLLED (j, V) {
                const int at = v.place(b, j, r, q);
                if (at < 0)
                    continue;
                const float gain = in.gamma[first + over(v.number(b, j), q.by)];
                float out[W];
                TP_UNROLLED (e, W)
                    out[e] = scale * (v.dy[j][e] * gain - fmaf(v.x[j][e], mean_dot, mean_g));
                tp_store_vector<W>(row, at, out);
            }
        }
    }
}

/* dbeta and dgamma from partial(parts, 2, C): blocks of (32, rows) threads, 32 columns each. */
__global__ void set_norm_column_sums(float *dgamma, float *dbeta, const float *partial, int64_t parts,
                                     int channels)
{
    TP_SHARED(double, rest, [TP_WARP][TP_WARP]);
    const int64_t cols = 2 * (int64_t)channels, col = (int64_t)blockIdx.x * TP_WARP + threadIdx.x;
    double sum = 0.0;

    if (col < cols)
        for (int64_t p = threadIdx.y; p < parts; p += blockDim.y)
            sum += (double)partial[p * cols + col];
    rest[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || col >= cols)
        return;
    for (unsigned k = 1; k < blockDim.y; k++)
        sum += rest[k][threadIdx.x];
    if (col < channels)
        dbeta[col] = (float)sum;
    else
        dgamma[col - channels] = (float)sum;
}

/* ---- running them ---- */

/* Samples that a block walks, where a channel has one element: enough blocks for a device, few enough that
 * their sums are a small part of what moves (32 samples: 1 byte in 24). */
static int64_t samples_of(norm_dims d, int len)
{
    const int64_t least = len <= 512 ? 32 : 8, most = len <= 512 ? 1024 : 512, n = (d.n + most - 1) / most;
    return n > least ? n : least;
}

static int64_t parts_of(norm_dims d)
{
    const int64_t per = samples_of(d, (int)(d.c / d.groups));
    return d.s == 1 ? (d.n + per - 1) / per : d.n;
}

/* Bytes of partial, a multiple of 256. */
static size_t partial_bytes(norm_dims d)
{
    return ((size_t)(parts_of(d) * 2 * d.c) * sizeof(float) + 255) / 256 * 256;
}

static tp_status set_norm_prepare(tp_call *c, size_t *scratch, norm_dims d, int grad)
{
    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(d.c <= 1 << 30 && d.c / d.groups * d.s <= 1 << 30 && d.n * d.groups <= 1 << 30, TP_EUNSUP,
             "%lld channels, %lld sets of %lld elements; at most 2^30 of each", (long long)d.c,
             (long long)(d.n * d.groups), (long long)(d.c / d.groups * d.s));
    const set_shape r = shape_of(d);
    if (grad)
        *scratch =
            partial_bytes(d) +
            (d.s > 1 ? (size_t)r.sets * (size_t)chunks_of(r, is_even(r) ? 4 : 1).all * 2 * sizeof(float) : 0);
    return TP_OK;
}

#define LAUNCH_WALK(kernel, R)                                                                               \
    TP_LAUNCH((kernel<R>), (unsigned)(parts_of(d) * d.groups), TP_THREADS, 0, c, tp_out_f32(c, 0), partial,  \
              inputs_of(c), r, d.n, samples_of(d, r.len))

static tp_status run_rows_grad(const tp_call *c, norm_dims d, const set_shape &r, float *partial)
{
    if (is_even(r)) {
        if (r.len <= 128)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_128);
        else if (r.len <= 256)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_256);
        else if (r.len <= 512)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_512);
        else if (r.len <= 1024)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_block_1024);
        else if (r.len <= 2048)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_2048);
        else if (r.len <= 4096)
            LAUNCH_WALK(set_norm_grad_rows, tp_row_4096);
        else
            LAUNCH_WALK(set_norm_grad_long, tp_row_long);
    } else if (r.len <= 32)
        LAUNCH_WALK(set_norm_grad_rows, tp_row_odd_32);
    else if (r.len <= 256)
        LAUNCH_WALK(set_norm_grad_rows, tp_row_odd_256);
    else if (r.len <= 512)
        LAUNCH_WALK(set_norm_grad_rows, tp_row_odd_512);
    else if (r.len <= 2048)
        LAUNCH_WALK(set_norm_grad_rows, tp_row_odd_2048);
    else
        LAUNCH_WALK(set_norm_grad_long, tp_row_odd_long);
    return TP_OK;
}

#define LAUNCH_CHUNKS(W, V)                                                                                  \
    TP_LAUNCH((set_norm_grad_chunks<W, V>), (unsigned)r.sets, TP_THREADS, 0, c, tp_out_f32(c, 0), partial,   \
              sums, inputs_of(c), r, q)

static tp_status run_chunks_grad(const tp_call *c, const set_shape &r, float *partial, float *sums)
{
    const bool even = is_even(r);
    const chunks q = chunks_of(r, even ? 4 : 1);

    if (even && q.all <= WARPS)
        LAUNCH_CHUNKS(4, 1);
    else if (even)
        LAUNCH_CHUNKS(4, 8);
    else if (q.all <= WARPS)
        LAUNCH_CHUNKS(1, 1);
    else
        LAUNCH_CHUNKS(1, 8);
    return TP_OK;
}

static tp_status run_sets_grad(const tp_call *c, norm_dims d)
{
    const set_shape r = shape_of(d);
    float *partial = static_cast<float *>(c->scratch);

    if (r.s == 1)
        TP_TRY(run_rows_grad(c, d, r, partial));
    else
        TP_TRY(run_chunks_grad(c, r, partial, partial + partial_bytes(d) / sizeof(float)));
    const int64_t parts = parts_of(d);
    TP_LAUNCH(set_norm_column_sums, (unsigned)((2 * d.c + TP_WARP - 1) / TP_WARP),
              dim3(TP_WARP, (unsigned)(parts < TP_WARP ? parts : TP_WARP)), 0, c, tp_out_f32(c, 1),
              tp_out_f32(c, 2), partial, parts, (int)d.c);
    return TP_OK;
}

/* ---- the ops ---- */

#define SET_OP(op, last)                                                                                     \
    static tp_status op##_prepare(tp_call *c, size_t *scratch)                                               \
    {                                                                                                        \
        return set_norm_prepare(c, scratch, dims_of(c, last), 0);                                            \
    }                                                                                                        \
    static tp_status op##_run(const tp_call *c)                                                              \
    {                                                                                                        \
        return run_sets(c, dims_of(c, last));                                                                \
    }                                                                                                        \
    static tp_status op##_grad_prepare(tp_call *c, size_t *scratch)                                          \
    {                                                                                                        \
        return set_norm_prepare(c, scratch, dims_of(c, last), 1);                                            \
    }                                                                                                        \
    static tp_status op##_grad_run(const tp_call *c)                                                         \
    {                                                                                                        \
        return run_sets_grad(c, dims_of(c, last));                                                           \
    }                                                                                                        \
    static const tp_impl op##_own = {"own", op##_prepare, op##_run, nullptr, 0};                             \
    static const tp_impl op##_grad_own = {"own", op##_grad_prepare, op##_grad_run, nullptr, 0};              \
    TP_CUDA_IMPLS(op, &op##_own);                                                                            \
    TP_CUDA_IMPLS(op##_grad, &op##_grad_own)

SET_OP(layer_norm, 1);
SET_OP(group_norm, 0);
