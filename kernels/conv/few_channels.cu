/* few_channels.cu - convolution and its weight gradient where a filter has few taps, as in the first layer of
 * an image net: channels last, no groups. Then a row of taps lies in memory as the kw C neighbours under it,
 * and what moves is the output: x is read once (but for the rows between two strips), y or dy exactly once,
 * 16 bytes at a time. Sums are float32 with fused multiply-adds in every precision.
 *
 * A block loads a strip, the input under some rows of one image's output, into shared memory with zeros
 * around it. Forward, a thread makes 8 pixels x 8 filters of it in registers, the filters being in shared
 * memory too. For the weight gradient a thread has 4 filters x up to 27 taps in registers and walks over the
 * pixels; a block's threads add up in shared memory, and conv_weight_grad_sum_few adds the blocks' planes.
 * How many rows a block takes depends on the shape alone, and all is added in a fixed order. */
#include "kernels/conv/conv.h"
#include "kernels/conv/few_channels.cuh"
#include "kernels/pack.cuh"
#include <limits.h>

#define THREADS       128
#define MOST_CHANNELS 4
#define MOST_TAPS     64
#define MOST_FILTERS  256
#define SHARED_BYTES  49152 /* what a block has without asking */
#define STRIP_BYTES   16384 /* of a strip, unless one row of output needs more */
#define PROCESSORS    132   /* of an H100 or H200: units of work are cut for so many */

typedef tp_pack<float, 4> four;

/* sum += a * b */
__device__ static void add_product(four &sum, float a, const four &b)
{
    TP_UNROLL
    for (int e = 0; e < 4; e++)
        sum.v[e] = fmaf(a, b.v[e], sum.v[e]);
}

/* ---- strips ---- */

/* "Column" counts elements along an image row of W C, zeros before the image among them. */
struct few_dims {
    int images, h, oh, ow, filters, taps;
    int line, end;                     /* elements of an image row; of those that a window covers */
    int kh, run;                       /* a filter has kh rows of run = kw C taps */
    int step;                          /* columns from a pixel's taps to the next one's */
    int stride, dilation, above, left; /* of rows; zeros above and, in columns, before an image */
    int groups;                        /* of neighbouring pixels, in an output row */
    int pitch;                         /* columns of a row in shared memory, a multiple of 4 */
    int strip;                         /* most output rows of one */
    uint32_t per_pitch;                /* above 2^32 / pitch, by up to 1 */
};

__host__ __device__ static inline int strip_rows(const few_dims &d, int count)
{
    return (count - 1) * d.stride + (d.kh - 1) * d.dilation + 1;
}

/* The input under output rows [first, first + count) of an image. A strip has less than 2^14 columns in all,
 * so that a product with per_pitch rounded down is the quotient by pitch. */
template <typename E>
__device__ static void strip_load(float *tile, const E *x, const few_dims &d, int image, int first, int count)
{
    enum { AT_ONCE = 8 };
    const int top = first * d.stride - d.above, n = strip_rows(d, count) * d.pitch, across = blockDim.x;

    for (int from = threadIdx.x; from < n; from += AT_ONCE * across) {
        float v[AT_ONCE];
        TP_UNROLL
        for (int k = 0; k < AT_ONCE; k++) {
            const int at = from + k * across, row = (int)((uint64_t)(uint32_t)at * d.per_pitch >> 32),
                      i = top + row, j = at - row * d.pitch - d.left;
            v[k] = at < n && i >= 0 && i < d.h && j >= 0 && j < d.end
                       ? tp_load(x, (image * d.h + i) * d.line + j)
                       : 0.0f;
        }
        TP_UNROLL
        for (int k = 0; k < AT_ONCE; k++)
            if (from + k * across < n)
                tile[from + k * across] = v[k];
    }
}

/* One row of taps under P neighbouring pixels: at(u, p) is x under tap u of pixel p. */
template <int RUN, int STEP, int P> struct row_in_registers {
    enum { PIXELS = P, FOURS = ((P - 1) * STEP + RUN + 3) / 4 };
    four x[FOURS];

    __device__ row_in_registers(const float *from, const few_dims &)
    {
        TP_UNROLL
        for (int k = 0; k < FOURS; k++)
            x[k] = tp_load_pack<4>(from + 4 * k);
    }
    __device__ static constexpr int run(const few_dims &)
    {
        return RUN;
    }
    __device__ float at(int u, int p) const
    {
        return x[(u + p * STEP) / 4].v[(u + p * STEP) % 4];
    }
};

template <int P> struct row_in_memory {
    enum { PIXELS = P };
    const float *from;
    int step;

    __device__ row_in_memory(const float *x, const few_dims &d) : from(x), step(d.step)
    {
    }
    __device__ static int run(const few_dims &d)
    {
        return d.run;
    }
    __device__ float at(int u, int p) const
    {
        return from[u + p * step];
    }
};

/* ---- forward ---- */

/* Filters as rows of taps, eight for each of `lanes` lanes, zeros for those that are none, and the bias as
 * one more row. */
template <typename E>
__device__ static void filters_load(float *to, const E *w, const float *bias, const few_dims &d, int width)
{
    for (int k = threadIdx.x / TP_WARP; k <= d.taps; k += blockDim.x / TP_WARP)
        for (int m = threadIdx.x % TP_WARP; m < width; m += TP_WARP) {
            const float last = m < d.filters && bias != nullptr ? bias[m] : 0.0f;
            to[k * width + m] = k == d.taps ? last : (m < d.filters ? tp_load(w, m * d.taps + k) : 0.0f);
        }
}

/* 8 filters under each of the pixels of a group; `filters` are this lane's, and half a row further four more.
 */
template <typename ROW>
__device__ static void group_products(four (&sum)[ROW::PIXELS][2], const float *filters, const float *tile,
                                      const few_dims &d, int width)
{
    const four b0 = tp_load_pack<4>(filters + d.taps * width),
               b1 = tp_load_pack<4>(filters + d.taps * width + width / 2);

    TP_UNROLL
    for (int p = 0; p < ROW::PIXELS; p++) {
        sum[p][0] = b0;
        sum[p][1] = b1;
    }
    for (int r = 0; r < d.kh; r++) {
        const ROW x(tile + r * d.dilation * d.pitch, d);
        TP_UNROLL
        for (int u = 0; u < ROW::run(d); u++) {
            const float *at = filters + (r * d.run + u) * width;
            const four w0 = tp_load_pack<4>(at), w1 = tp_load_pack<4>(at + width / 2);
            TP_UNROLL
            for (int p = 0; p < ROW::PIXELS; p++) {
                add_product(sum[p][0], x.at(u, p), w0);
                add_product(sum[p][1], x.at(u, p), w1);
            }
        }
    }
}

/* NaN stays NaN. */
template <int P> __device__ static void group_relu(four (&sum)[P][2])
{
    TP_UNROLL
    for (int p = 0; p < P; p++) {
        TP_UNROLL
        for (int e = 0; e < 8; e++) {
            float &v = sum[p][e / 4].v[e % 4];
            v = v <= 0.0f ? 0.0f : v;
        }
    }
}

/* Up to `pixels` pixels of a group, and of each the four filters `further` on if there are these. */
template <typename E, int P>
__device__ static void group_store(E *to, const four (&sum)[P][2], int pixels, int filters, int further,
                                   bool both)
{
    TP_UNROLL
    for (int p = 0; p < P; p++) {
        if (p < pixels)
            tp_store_pack(to, sum[p][0]);
        if (p < pixels && both)
            tp_store_pack(to + further, sum[p][1]);
        to += filters;
    }
}

/* y = act(conv(x, w) + bias): a warp stores the filters of a pixel side by side. */
template <typename E, typename ROW>
__global__ void TP_RESIDENT(THREADS, 4)
    conv_strips_few(E *y, const E *x, const E *w, const float *bias, few_dims d, int lanes, int rectify)
{
    TP_DYN_SHARED(float, filters);
    const int width = 8 * lanes, spots = blockDim.x / lanes, lane = threadIdx.x % lanes,
              spot = threadIdx.x / lanes, strips = (d.oh + d.strip - 1) / d.strip;
    float *tile = filters + (d.taps + 1) * width;

    filters_load(filters, w, bias, d, width);
    for (int s = blockIdx.x; s < d.images * strips; s += gridDim.x) {
        const int image = s / strips, first = (s - image * strips) * d.strip,
                  count = d.oh - first < d.strip ? d.oh - first : d.strip;
        __syncthreads(); /* of the strip before nobody reads any more */
        strip_load(tile, x, d, image, first, count);
        __syncthreads();
        for (int g = spot < spots ? spot : INT_MAX; g < count * d.groups; g += spots) {
            const int i = g / d.groups, j = (g - i * d.groups) * ROW::PIXELS;
            E *to = y + ((image * d.oh + first + i) * d.ow + j) * d.filters + 4 * lane;
            four sum[ROW::PIXELS][2];
            group_products<ROW>(sum, filters + 4 * lane, tile + i * d.stride * d.pitch + j * d.step, d,
                                width);
            if (rectify)
                group_relu(sum);
            group_store(to, sum, d.ow - j, d.filters, 4 * lanes, 4 * (lane + lanes) < d.filters);
        }
    }
}

/* ---- weight gradient ---- */

/* The taps of which a thread has the sums, four filters each; add() takes P pixels, dy of which is `up`. */
template <int KH, int RUN, int STEP, int P> struct fixed_taps {
    enum {
        PIXELS = P,
        COUNT = KH * RUN,
        CHUNK = COUNT % 9 == 0 ? 9 : KH, /* are added at once over the threads of a block */
        RESIDENT = COUNT > 16 ? 3 : 4
    };
    const few_dims &d;

    __device__ fixed_taps(const few_dims &dims, int) : d(dims)
    {
    }
    __device__ void add(four (&sum)[COUNT], const float *tile, const four (&up)[P]) const
    {
        TP_UNROLL
        for (int r = 0; r < KH; r++) {
            const row_in_registers<RUN, STEP, P> x(tile + r * d.dilation * d.pitch, d);
            TP_UNROLL
            for (int p = 0; p < P; p++) {
                TP_UNROLL
                for (int u = 0; u < RUN; u++)
                    add_product(sum[r * RUN + u], x.at(u, p), up[p]);
            }
        }
    }
};

/* Sixteen taps from `first` on; those behind the last tap are the first one again. */
struct any_taps {
    enum { PIXELS = 4, COUNT = 16, CHUNK = 8, RESIDENT = 4 };
    int at[COUNT], step;

    __device__ any_taps(const few_dims &d, int first) : step(d.step)
    {
        TP_UNROLL
        for (int k = 0; k < COUNT; k++) {
            const int tap = first + k < d.taps ? first + k : 0, r = tap / d.run;
            at[k] = r * d.dilation * d.pitch + tap - r * d.run;
        }
    }
    __device__ void add(four (&sum)[COUNT], const float *tile, const four (&up)[PIXELS]) const
    {
        TP_UNROLL
        for (int p = 0; p < PIXELS; p++) {
            TP_UNROLL
            for (int k = 0; k < COUNT; k++)
                add_product(sum[k], tile[at[k] + p * step], up[p]);
        }
    }
};

/* Adds a block's sums, CHUNK taps at a time, into its plane(tap, filter). */
template <typename TAPS>
__device__ static void block_plane(float *plane, const four (&sum)[TAPS::COUNT], float *shared,
                                   const few_dims &d, int taps)
{
    const int lanes = d.filters / 4, spots = blockDim.x / lanes;
    four *mine = reinterpret_cast<four *>(shared) + threadIdx.x;

    TP_UNROLL
    for (int c = 0; c < TAPS::COUNT; c += TAPS::CHUNK) {
        __syncthreads(); /* of what was there before nobody reads any more */
        TP_UNROLL
        for (int k = 0; k < TAPS::CHUNK; k++)
            mine[k * THREADS] = sum[c + k];
        __syncthreads();
        for (int o = threadIdx.x; o < TAPS::CHUNK * d.filters; o += blockDim.x) {
            const int k = o / d.filters, m = o - k * d.filters;
            float v = shared[4 * k * THREADS + m];
            for (int s = 1; s < spots; s++)
                v += shared[4 * k * THREADS + s * d.filters + m];
            if (c + k < taps)
                plane[(c + k) * d.filters + m] = v;
        }
    }
}

/* Plane blockIdx.x is the sum over `rows` output rows, those of all images in a row, for taps from
 * blockIdx.y * COUNT on. */
template <typename E, typename TAPS>
__global__ void TP_RESIDENT(THREADS, TAPS::RESIDENT)
    conv_weight_grad_rows_few(float *planes, const E *x, const E *dy, few_dims d, int rows)
{
    TP_DYN_SHARED(float, tile);
    const int lanes = d.filters / 4, spots = blockDim.x / lanes, lane = threadIdx.x % lanes,
              spot = threadIdx.x / lanes, tap = blockIdx.y * TAPS::COUNT, total = d.images * d.oh,
              begin = blockIdx.x * rows, end = total - begin < rows ? total : begin + rows;
    const TAPS taps(d, tap);
    four sum[TAPS::COUNT] = {};

    for (int row = begin, count; row < end; row += count) {
        const int image = row / d.oh, first = row - image * d.oh;
        count = d.oh - first < d.strip ? d.oh - first : d.strip;
        count = end - row < count ? end - row : count;
        __syncthreads(); /* of the strip before nobody reads any more */
        strip_load(tile, x, d, image, first, count);
        __syncthreads();
        for (int g = spot < spots ? spot : INT_MAX; g < count * d.groups; g += spots) {
            const int i = g / d.groups, j = (g - i * d.groups) * TAPS::PIXELS;
            const E *from = dy + ((row + i) * d.ow + j) * d.filters + 4 * lane;
            four up[TAPS::PIXELS];
            TP_UNROLL
            for (int p = 0; p < TAPS::PIXELS; p++)
                up[p] = j + p < d.ow ? tp_load_pack<4>(from + p * d.filters) : four();
            taps.add(sum, tile + i * d.stride * d.pitch + j * d.step, up);
        }
    }
    block_plane<TAPS>(planes + (int64_t)blockIdx.x * d.taps * d.filters + tap * d.filters, sum, tile, d,
                      d.taps - tap);
}

/* dw(filter, tap) = the sum over planes(part, tap, filter): a block has 32 outputs, a warp every
 * 32nd plane. */
template <typename E>
__global__ void conv_weight_grad_sum_few(E *dw, const float *planes, int parts, int taps, int filters)
{
    TP_SHARED(double, sums, [TP_WARP][TP_WARP + 1]);
    const int lane = threadIdx.x % TP_WARP, warp = threadIdx.x / TP_WARP, n = taps * filters,
              first = blockIdx.x * TP_WARP;
    double sum = 0.0;

    if (first + lane < n)
        for (int p = warp; p < parts; p += TP_WARP)
            sum += (double)planes[(int64_t)p * n + first + lane];
    sums[warp][lane] = sum;
    __syncthreads();
    sum = tp_warp_reduce(sums[lane][warp], tp_sum_of());
    const int o = first + warp, tap = o / filters;
    if (lane == 0 && o < n)
        tp_store(dw, (o - tap * filters) * taps + tap, (float)sum);
}

/* ---- what is accepted ---- */

static tp_status accept(const tp_conv_dims &d)
{
    const int64_t taps = d.c * d.kh * d.kw;

    TP_CHECK(d.last, TP_EUNSUP, "channels first");
    TP_CHECK(d.groups == 1, TP_EUNSUP, "%lld groups", (long long)d.groups);
    TP_CHECK(d.c <= MOST_CHANNELS, TP_EUNSUP, "%lld channels, more than %d", (long long)d.c, MOST_CHANNELS);
    TP_CHECK(taps <= MOST_TAPS, TP_EUNSUP, "%lld taps a filter, more than %d", (long long)taps, MOST_TAPS);
    TP_CHECK(d.m % 4 == 0 && d.m <= MOST_FILTERS, TP_EUNSUP, "%lld filters, not a multiple of 4 up to %d",
             (long long)d.m, MOST_FILTERS);
    TP_CHECK(d.dilation[1] == 1, TP_EUNSUP, "dilated along the rows");
    TP_CHECK(d.n * d.oh * d.ow * d.m > 0 && taps > 0, TP_EUNSUP, "an image or a filter is empty");
    for (int64_t v : {d.n * d.h * d.w * d.c, d.n * d.oh * d.ow * d.m, d.h + 2 * d.pad[0], d.pad[1] * d.c,
                      d.stride[0], d.stride[1], d.kh * d.dilation[0]})
        TP_CHECK(v <= INT_MAX, TP_EUNSUP, "a size of %lld, more than 2^31 - 1", (long long)v);
    return TP_OK;
}

static int64_t at_most(int64_t v, int64_t most)
{
    return v < most ? v : most;
}

/* Pixels go in groups of `pixels`, and strips have up to `rows` output rows. */
static tp_status few_dims_of(few_dims *out, const tp_conv_dims &d, int pixels, int64_t rows)
{
    const int64_t run = d.kw * d.c, line = d.w * d.c, step = d.stride[1] * d.c, left = d.pad[1] * d.c,
                  end = (d.ow - 1) * step + run - left, groups = (d.ow + pixels - 1) / pixels,
                  pitch = (groups - 1) * pixels * step + ((pixels - 1) * step + run + 3) / 4 * 4;
    const int64_t row_bytes = pitch * (int64_t)sizeof(float), least = (d.kh - 1) * d.dilation[0] + 1;

    TP_CHECK(least <= SHARED_BYTES / row_bytes, TP_EUNSUP, "%lld bytes under a row of output, more than %d",
             (long long)(least * row_bytes), SHARED_BYTES);
    const int64_t more = (STRIP_BYTES / row_bytes - least) / d.stride[0], fit = more > 0 ? 1 + more : 1;
    out->images = (int)d.n;
    out->h = (int)d.h;
    out->oh = (int)d.oh;
    out->ow = (int)d.ow;
    out->filters = (int)d.m;
    out->taps = (int)(d.kh * run);
    out->line = (int)line;
    out->end = (int)(end < line ? end : line);
    out->kh = (int)d.kh;
    out->run = (int)run;
    out->step = (int)step;
    out->stride = (int)d.stride[0];
    out->dilation = (int)d.dilation[0];
    out->above = (int)d.pad[0];
    out->left = (int)left;
    out->groups = (int)groups;
    out->pitch = (int)pitch;
    out->strip = (int)at_most(at_most(rows, fit), d.oh);
    out->per_pitch = (uint32_t)(((uint64_t)1 << 32) / (uint64_t)pitch + 1);
    return TP_OK;
}

static size_t strip_bytes(const few_dims &d)
{
    return (size_t)strip_rows(d, d.strip) * (size_t)d.pitch * sizeof(float);
}

/* ---- conv ---- */

struct forward_plan {
    few_dims d;
    int lanes;
    size_t shared;
};

/* Strips such that every multiprocessor has some, and of one height as far as they can be. */
static tp_status forward_plan_of(forward_plan *f, const tp_call *c)
{
    const tp_conv_dims d =
        tp_conv_dims_of(c->in[0].shape, c->in[1].shape, *static_cast<const tp_conv_attr *>(c->attr));

    TP_TRY(accept(d));
    const int64_t wanted = d.n * d.oh / (8 * PROCESSORS) + 1;
    TP_TRY(few_dims_of(&f->d, d, row_in_memory<8>::PIXELS, wanted));
    const int strips = (f->d.oh + f->d.strip - 1) / f->d.strip;
    f->d.strip = (f->d.oh + strips - 1) / strips;
    f->lanes = (f->d.filters + 7) / 8;
    f->shared = strip_bytes(f->d) + (size_t)((f->d.taps + 1) * 8 * f->lanes) * sizeof(float);
    TP_CHECK(f->shared <= SHARED_BYTES, TP_EUNSUP, "%zu bytes of shared memory", f->shared);
    return TP_OK;
}

static tp_status forward_prepare(tp_call *c, size_t *scratch)
{
    const tp_activation act = static_cast<const tp_conv_attr *>(c->attr)->act;
    forward_plan f;

    TP_TRY(tp_accept_stored(c, scratch));
    TP_CHECK(act == TP_ACT_NONE || act == TP_ACT_RELU, TP_EUNSUP, "an activation other than relu");
    return forward_plan_of(&f, c);
}

template <typename E, typename ROW> static tp_status forward_launch(const tp_call *c, const forward_plan &f)
{
    const few_dims &d = f.d;
    const int64_t strips = (int64_t)d.images * ((d.oh + d.strip - 1) / d.strip);
    const float *bias = c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE ? tp_in_f32(c, 2) : nullptr;

    TP_LAUNCH((conv_strips_few<E, ROW>),
              (unsigned)at_most(strips, (int64_t)tp_queue_of(c)->multiprocessors * 4), THREADS, f.shared, c,
              tp_out_as<E>(c, 0), tp_in_as<E>(c, 0), tp_in_as<E>(c, 1), bias, d, f.lanes,
              static_cast<const tp_conv_attr *>(c->attr)->act == TP_ACT_RELU);
    return TP_OK;
}

template <typename E> static tp_status forward(const tp_call *c)
{
    forward_plan f;

    TP_TRY(forward_plan_of(&f, c));
    if (f.d.run == 3 && f.d.step == 1)
        return forward_launch<E, row_in_registers<3, 1, 8>>(c, f);
    if (f.d.run == 5 && f.d.step == 1)
        return forward_launch<E, row_in_registers<5, 1, 8>>(c, f);
    if (f.d.run == 9 && f.d.step == 3)
        return forward_launch<E, row_in_registers<9, 3, 8>>(c, f);
    return forward_launch<E, row_in_memory<8>>(c, f);
}

static tp_status forward_run(const tp_call *c)
{
    return TP_AS_STORED(forward, c);
}

/* ---- conv_weight_grad ---- */

struct weight_plan {
    few_dims d;
    int rows, parts;
    tp_status (*launch)(const tp_call *c, const weight_plan &w, float *planes);
};

template <typename E, typename TAPS>
static tp_status weight_launch(const tp_call *c, const weight_plan &w, float *planes)
{
    const size_t strip = strip_bytes(w.d), sums = (size_t)TAPS::CHUNK * THREADS * sizeof(four);
    const dim3 grid((unsigned)w.parts, (unsigned)((w.d.taps + TAPS::COUNT - 1) / TAPS::COUNT));

    TP_LAUNCH((conv_weight_grad_rows_few<E, TAPS>), grid, THREADS, strip > sums ? strip : sums, c, planes,
              tp_in_as<E>(c, 0), tp_in_as<E>(c, 1), w.d, w.rows);
    return TP_OK;
}

/* A part for each block that is resident at once, and planes of no more than 4 MB in all where that leaves
 * two for a multiprocessor. */
template <typename E, typename TAPS> static tp_status weight_plan_with(weight_plan *w, const tp_conv_dims &d)
{
    const int64_t rows = d.n * d.oh, planes = ((int64_t)1 << 20) / (d.m * d.c * d.kh * d.kw),
                  least = 2 * PROCESSORS,
                  most = at_most(planes > least ? planes : least, TAPS::RESIDENT * PROCESSORS);

    w->rows = (int)((rows + most - 1) / most);
    w->parts = (int)((rows + w->rows - 1) / w->rows);
    w->launch = weight_launch<E, TAPS>;
    return few_dims_of(&w->d, d, TAPS::PIXELS, w->rows);
}

template <typename E> static tp_status weight_plan_for(weight_plan *w, const tp_call *c)
{
    const tp_conv_grad_attr *a = static_cast<const tp_conv_grad_attr *>(c->attr);
    const tp_conv_dims d = tp_conv_dims_of(c->in[0].shape, a->shape, a->conv);
    const int64_t run = d.kw * d.c, step = d.stride[1] * d.c;

    TP_TRY(accept(d));
    if (d.kh == 3 && run == 3 && step == 1)
        return weight_plan_with<E, fixed_taps<3, 3, 1, 8>>(w, d);
    if (d.kh == 5 && run == 5 && step == 1)
        return weight_plan_with<E, fixed_taps<5, 5, 1, 4>>(w, d);
    if (d.kh == 3 && run == 9 && step == 3)
        return weight_plan_with<E, fixed_taps<3, 9, 3, 4>>(w, d);
    return weight_plan_with<E, any_taps>(w, d);
}

static tp_status weight_plan_of(weight_plan *w, const tp_call *c)
{
    return c->in[0].dtype == TP_BF16 ? weight_plan_for<uint16_t>(w, c) : weight_plan_for<float>(w, c);
}

static tp_status weight_prepare(tp_call *c, size_t *scratch)
{
    weight_plan w;

    TP_TRY(tp_accept_stored(c, scratch));
    TP_TRY(weight_plan_of(&w, c));
    *scratch = (size_t)w.parts * (size_t)(w.d.taps * w.d.filters) * sizeof(float);
    return TP_OK;
}

template <typename E> static tp_status weight_sum(const tp_call *c)
{
    weight_plan w;

    TP_TRY(weight_plan_of(&w, c));
    TP_LAUNCH(conv_weight_grad_sum_few<E>, (unsigned)(w.d.taps * w.d.filters + TP_WARP - 1) / TP_WARP,
              TP_WARP * TP_WARP, 0, c, tp_out_as<E>(c, 0), static_cast<const float *>(c->scratch), w.parts,
              w.d.taps, w.d.filters);
    return TP_OK;
}

static tp_status weight_run(const tp_call *c)
{
    weight_plan w;

    TP_TRY(weight_plan_of(&w, c));
    TP_TRY(w.launch(c, w, static_cast<float *>(c->scratch)));
    return TP_AS_STORED(weight_sum, c);
}

const tp_impl tp_conv_few = {"own_few", forward_prepare, forward_run, nullptr, 0};
const tp_impl tp_conv_weight_grad_few = {"own_few", weight_prepare, weight_run, nullptr, 0};
