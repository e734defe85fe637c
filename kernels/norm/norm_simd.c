/* norm_simd.c - batch, layer and group norm and their gradients in float32.
 *
 * Sums run in double, over TP_LANES partial sums or one for each channel, and a set (or a channel) belongs to
 * one thread: the bits do not depend on the number of threads. Where a channel is a run of elements (images)
 * the loops go along it; where it is one element (rows of features) they go along the channels. */
#include "kernels/cpu.h"
#include "kernels/norm/norm.h"
#include <math.h>

/* Channels summed side by side by a thread: a cache line of a row. */
#define BLOCK 16

typedef struct norm_job {
    const tp_call *c;
    norm_dims d;
} norm_job;

static tp_status run_over(const tp_call *c, norm_dims d, int64_t items, int64_t cost,
                          void (*body)(void *, int64_t, int64_t))
{
    norm_job j = {c, d};
    tp_parallel(items, 1 + TP_GRAIN / (4 * cost + 1), body, &j);
    return TP_OK;
}

static int64_t blocks(int64_t channels)
{
    return (channels + BLOCK - 1) / BLOCK;
}

static double lanes_total(double *lane)
{
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

static double rest(double mean)
{
    return mean - (double)(float)mean;
}

/* ---- along a run of elements ---- */

/* sum (x - shift) and sum (x - shift)^2 */
TP_SIMD static void run_sums(const float *x, int64_t n, double shift, double *sum, double *squares)
{
    double a[TP_LANES] = {0}, b[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            const double v = (double)x[i + k] - shift;
            a[k] += v;
            b[k] += v * v;
        }
    for (int k = 0; i + k < n; k++) {
        const double v = (double)x[i + k] - shift;
        a[k] += v;
        b[k] += v * v;
    }
    *sum += lanes_total(a);
    *squares += lanes_total(b);
}

/* sum dy and sum dy (x - mean) */
TP_SIMD static void run_dots(const float *x, const float *dy, int64_t n, double mean, double *sum,
                             double *dot)
{
    double a[TP_LANES] = {0}, b[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            a[k] += (double)dy[i + k];
            b[k] += (double)dy[i + k] * ((double)x[i + k] - mean);
        }
    for (int k = 0; i + k < n; k++) {
        a[k] += (double)dy[i + k];
        b[k] += (double)dy[i + k] * ((double)x[i + k] - mean);
    }
    *sum += lanes_total(a);
    *dot += lanes_total(b);
}

/* The same with dy gamma in place of dy, gamma of one element each. */
TP_SIMD static void run_dots_scaled(const float *x, const float *dy, const float *gamma, int64_t n,
                                    double mean, double *sum, double *dot)
{
    double a[TP_LANES] = {0}, b[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            const double v = (double)dy[i + k] * (double)gamma[i + k];
            a[k] += v;
            b[k] += v * ((double)x[i + k] - mean);
        }
    for (int k = 0; i + k < n; k++) {
        const double v = (double)dy[i + k] * (double)gamma[i + k];
        a[k] += v;
        b[k] += v * ((double)x[i + k] - mean);
    }
    *sum += lanes_total(a);
    *dot += lanes_total(b);
}

/* y = (x - mean) scale + shift: the subtraction first, so that a large mean costs no digits. What rounding
 * the mean to float32 lost (see rest) goes into shift, or is subtracted after it. */
TP_SIMD static void run_affine(float *y, const float *x, int64_t n, float mean, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale + shift;
}

TP_SIMD static void run_affine_each(float *y, const float *x, const float *gamma, const float *beta,
                                    int64_t n, float mean, float lost, float rstd)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean - lost) * rstd * gamma[i] + beta[i];
}

/* dx = a dy + b (x - mean) + shift */
TP_SIMD static void run_grad(float *dx, const float *dy, const float *x, int64_t n, float a, float b,
                             float mean, float shift)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = a * dy[i] + b * (x[i] - mean) + shift;
}

TP_SIMD static void run_grad_each(float *dx, const float *dy, const float *x, const float *gamma, int64_t n,
                                  float a, float b, float mean, float shift)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = a * gamma[i] * dy[i] + b * (x[i] - mean) + shift;
}

/* ---- along the channels, n at most BLOCK ---- */

TP_SIMD static void add_row(double *sum, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += (double)x[i];
}

TP_SIMD static void add_row_squares(double *squares, const float *x, const double *mean, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)x[i] - mean[i];
        squares[i] += v * v;
    }
}

TP_SIMD static void add_row_dots(double *sum, double *dot, const float *x, const float *dy, const float *mean,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += (double)dy[i];
        dot[i] += (double)dy[i] * ((double)x[i] - (double)mean[i]);
    }
}

/* One mean and deviation for the whole row: sums of dy and of dy (x - mean) rstd. */
TP_SIMD static void add_row_dots_same(double *sum, double *dot, const float *x, const float *dy, double mean,
                                      double rstd, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += (double)dy[i];
        dot[i] += (double)dy[i] * (((double)x[i] - mean) * rstd);
    }
}

TP_SIMD static void row_affine(float *y, const float *x, const float *mean, const float *scale,
                               const float *shift, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

TP_SIMD static void row_grad(float *dx, const float *dy, const float *x, const float *a, const float *b,
                             const float *mean, const float *shift, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = a[i] * dy[i] + b[i] * (x[i] - mean[i]) + shift[i];
}

TP_SIMD static void row_scale(float *dx, const float *dy, const float *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = a[i] * dy[i];
}

/* ---- batch norm: a set is a channel ---- */

/* y = relu(y + residual), of which either may be missing. */
TP_SIMD static void run_finish(float *y, const float *residual, int64_t n, int relu)
{
    for (int64_t i = 0; residual != NULL && i < n; i++)
        y[i] += residual[i];
    for (int64_t i = 0; relu && i < n; i++)
        y[i] = y[i] <= 0.0f ? 0.0f : y[i];
}

static void finish_run(const tp_call *c, int64_t at, int64_t n)
{
    if (tp_norm_relu(c) || tp_norm_has(c, BN_RESIDUAL))
        run_finish(tp_out_f32(c, 0) + at, tp_norm_has(c, BN_RESIDUAL) ? tp_in_f32(c, BN_RESIDUAL) + at : NULL,
                   n, tp_norm_relu(c));
}

/* Stores what a channel's statistics give, and returns rstd. */
static double finish_channel(const tp_call *c, int64_t ch, double count, double mean, double squares)
{
    const tp_norm_attr *a = c->attr;
    const double rstd = 1.0 / sqrt((count > 0.0 ? squares / count : 0.0) + a->epsilon);

    tp_out_f32(c, 1)[ch] = (float)mean;
    tp_out_f32(c, 2)[ch] = (float)rstd;
    tp_norm_running(c, ch, count, mean, squares);
    return rstd;
}

static void batch_norm_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;
    const float *x = tp_in_f32(c, BN_X);

    for (int64_t ch = begin; ch < end; ch++) {
        double count = 0.0, sum = 0.0, squares = 0.0, unused = 0.0;
        for (int64_t n = 0; n < d.n; n++)
            if (tp_norm_counts(c, BN_WEIGHT, n)) {
                count += (double)d.s;
                run_sums(x + (n * d.c + ch) * d.s, d.s, 0.0, &sum, &unused);
            }
        const double mean = count > 0.0 ? sum / count : 0.0;
        for (int64_t n = 0; n < d.n; n++)
            if (tp_norm_counts(c, BN_WEIGHT, n))
                run_sums(x + (n * d.c + ch) * d.s, d.s, mean, &unused, &squares);
        const double rstd = finish_channel(c, ch, count, mean, squares);
        const double scale = rstd * (double)tp_in_f32(c, BN_GAMMA)[ch];
        const float shift = (float)((double)tp_in_f32(c, BN_BETA)[ch] - rest(mean) * scale);
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t first = (n * d.c + ch) * d.s;
            run_affine(tp_out_f32(c, 0) + first, x + first, d.s, (float)mean, (float)scale, shift);
            finish_run(c, first, d.s);
        }
    }
}

/* Rows of features: blocks of channels. */
static void batch_norm_blocks(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t at = begin * BLOCK; at < end * BLOCK && at < d.c; at += BLOCK) {
        const int64_t width = d.c - at < BLOCK ? d.c - at : BLOCK;
        const float *x = tp_in_f32(c, BN_X) + at;
        double count = 0.0, mean[BLOCK] = {0}, squares[BLOCK] = {0};
        float scale[BLOCK], shift[BLOCK];
        for (int64_t n = 0; n < d.n; n++)
            if (tp_norm_counts(c, BN_WEIGHT, n)) {
                count += 1.0;
                add_row(mean, x + n * d.c, width);
            }
        for (int64_t k = 0; k < width; k++)
            mean[k] = count > 0.0 ? mean[k] / count : 0.0;
        for (int64_t n = 0; n < d.n; n++)
            if (tp_norm_counts(c, BN_WEIGHT, n))
                add_row_squares(squares, x + n * d.c, mean, width);
        for (int64_t k = 0; k < width; k++) {
            const double rstd = finish_channel(c, at + k, count, mean[k], squares[k]);
            const double by = rstd * (double)tp_in_f32(c, BN_GAMMA)[at + k];
            scale[k] = (float)by;
            shift[k] = (float)((double)tp_in_f32(c, BN_BETA)[at + k] - rest(mean[k]) * by);
        }
        for (int64_t n = 0; n < d.n; n++) {
            row_affine(tp_out_f32(c, 0) + n * d.c + at, x + n * d.c, tp_out_f32(c, 1) + at, scale, shift,
                       width);
            finish_run(c, n * d.c + at, width);
        }
    }
}

tp_status tp_batch_norm_simd(const tp_call *c)
{
    const norm_dims d = tp_norm_dims(c->in[0].shape, 0, 1);
    return d.s == 1 ? run_over(c, d, blocks(d.c), d.n * BLOCK, batch_norm_blocks)
                    : run_over(c, d, d.c, d.n * d.s, batch_norm_channels);
}

/* dx = a dy + b (x - mean) + shift on rows that count, a dy on the others. */
typedef struct channel_grad {
    double a, b, shift;
} channel_grad;

/* Through relu the gradient of the norm is written into dx, where the passes that follow find it. */
TP_SIMD static void run_mask(float *dx, const float *dy, const float *x, int64_t n, float mean, float scale,
                             float beta)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = (x[i] - mean) * scale + beta > 0.0f ? dy[i] : 0.0f;
}

TP_SIMD static void row_mask(float *dx, const float *dy, const float *x, const float *mean,
                             const float *scale, const float *beta, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = (x[i] - mean[i]) * scale[i] + beta[i] > 0.0f ? dy[i] : 0.0f;
}

static float norm_scale(const tp_call *c, int64_t ch)
{
    return (float)((double)tp_in_f32(c, BG_RSTD)[ch] * (double)tp_in_f32(c, BG_GAMMA)[ch]);
}

static const float *mask_channel(const tp_call *c, norm_dims d, int64_t ch)
{
    const float *x = tp_in_f32(c, BG_X), *dy = tp_in_f32(c, BG_DY);

    if (!tp_norm_relu(c))
        return dy;
    for (int64_t n = 0; n < d.n; n++) {
        const int64_t at = (n * d.c + ch) * d.s;
        run_mask(tp_out_f32(c, 0) + at, dy + at, x + at, d.s, tp_in_f32(c, BG_MEAN)[ch], norm_scale(c, ch),
                 tp_in_f32(c, BG_BETA)[ch]);
    }
    return tp_out_f32(c, 0);
}

static const float *mask_block(const tp_call *c, norm_dims d, int64_t at, int64_t width)
{
    const float *x = tp_in_f32(c, BG_X) + at, *dy = tp_in_f32(c, BG_DY) + at;
    float *dx = tp_out_f32(c, 0) + at, scale[BLOCK];

    if (!tp_norm_relu(c))
        return dy;
    for (int64_t k = 0; k < width; k++)
        scale[k] = norm_scale(c, at + k);
    for (int64_t n = 0; n < d.n; n++)
        row_mask(dx + n * d.c, dy + n * d.c, x + n * d.c, tp_in_f32(c, BG_MEAN) + at, scale,
                 tp_in_f32(c, BG_BETA) + at, width);
    return dx;
}

static channel_grad finish_channel_grad(const tp_call *c, int64_t ch, double count, double sum, double dot)
{
    const double rstd = (double)tp_in_f32(c, BG_RSTD)[ch];
    channel_grad g = {.a = rstd * (double)tp_in_f32(c, BG_GAMMA)[ch]};

    if (count > 0.0) {
        g.b = -g.a * rstd * rstd * dot / count;
        g.shift = -g.a * sum / count;
    }
    tp_out_f32(c, 1)[ch] = (float)(dot * rstd);
    tp_out_f32(c, 2)[ch] = (float)sum;
    return g;
}

static void batch_norm_grad_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;
    const float *x = tp_in_f32(c, BG_X);

    for (int64_t ch = begin; ch < end; ch++) {
        const float *dy = mask_channel(c, d, ch);
        const float mean = tp_in_f32(c, BG_MEAN)[ch];
        double count = 0.0, sum = 0.0, dot = 0.0;
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t at = (n * d.c + ch) * d.s;
            run_dots(x + at, dy + at, d.s, (double)mean, &sum, &dot);
            count += tp_norm_counts(c, BG_WEIGHT, n) ? (double)d.s : 0.0;
        }
        const channel_grad g = finish_channel_grad(c, ch, count, sum, dot);
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t at = (n * d.c + ch) * d.s;
            const float in = tp_norm_counts(c, BG_WEIGHT, n) ? 1.0f : 0.0f;
            run_grad(tp_out_f32(c, 0) + at, dy + at, x + at, d.s, (float)g.a, in * (float)g.b, mean,
                     in * (float)g.shift);
        }
    }
}

static void batch_norm_grad_blocks(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t at = begin * BLOCK; at < end * BLOCK && at < d.c; at += BLOCK) {
        const int64_t width = d.c - at < BLOCK ? d.c - at : BLOCK;
        const float *x = tp_in_f32(c, BG_X) + at, *dy = mask_block(c, d, at, width),
                    *mean = tp_in_f32(c, BG_MEAN) + at;
        double count = 0.0, sum[BLOCK] = {0}, dot[BLOCK] = {0};
        float a[BLOCK], b[BLOCK], shift[BLOCK];
        for (int64_t n = 0; n < d.n; n++) {
            add_row_dots(sum, dot, x + n * d.c, dy + n * d.c, mean, width);
            count += tp_norm_counts(c, BG_WEIGHT, n) ? 1.0 : 0.0;
        }
        for (int64_t k = 0; k < width; k++) {
            const channel_grad g = finish_channel_grad(c, at + k, count, sum[k], dot[k]);
            a[k] = (float)g.a;
            b[k] = (float)g.b;
            shift[k] = (float)g.shift;
        }
        for (int64_t n = 0; n < d.n; n++) {
            float *dx = tp_out_f32(c, 0) + n * d.c + at;
            if (tp_norm_counts(c, BG_WEIGHT, n))
                row_grad(dx, dy + n * d.c, x + n * d.c, a, b, mean, shift, width);
            else
                row_scale(dx, dy + n * d.c, a, width);
        }
    }
}

tp_status tp_batch_norm_grad_simd(const tp_call *c)
{
    const norm_dims d = tp_norm_dims(c->in[0].shape, 0, 1);
    return d.s == 1 ? run_over(c, d, blocks(d.c), d.n * BLOCK, batch_norm_grad_blocks)
                    : run_over(c, d, d.c, d.n * d.s, batch_norm_grad_channels);
}

static float eval_scale(const tp_call *c, int64_t ch)
{
    const tp_norm_attr *a = c->attr;
    return (float)((double)tp_in_f32(c, BN_GAMMA)[ch] / sqrt((double)tp_in_f32(c, BN_VAR)[ch] + a->epsilon));
}

static void batch_norm_eval_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t i = begin; i < end; i++) /* i = n * C + ch */
        run_affine(tp_out_f32(c, 0) + i * d.s, tp_in_f32(c, BN_X) + i * d.s, d.s,
                   tp_in_f32(c, BN_MEAN)[i % d.c], eval_scale(c, i % d.c), tp_in_f32(c, BN_BETA)[i % d.c]);
}

static void batch_norm_eval_blocks(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t at = begin * BLOCK; at < end * BLOCK && at < d.c; at += BLOCK) {
        const int64_t width = d.c - at < BLOCK ? d.c - at : BLOCK;
        float scale[BLOCK];
        for (int64_t k = 0; k < width; k++)
            scale[k] = eval_scale(c, at + k);
        for (int64_t n = 0; n < d.n; n++)
            row_affine(tp_out_f32(c, 0) + n * d.c + at, tp_in_f32(c, BN_X) + n * d.c + at,
                       tp_in_f32(c, BN_MEAN) + at, scale, tp_in_f32(c, BN_BETA) + at, width);
    }
}

tp_status tp_batch_norm_eval_simd(const tp_call *c)
{
    const norm_dims d = tp_norm_dims(c->in[0].shape, 0, 1);
    return d.s == 1 ? run_over(c, d, blocks(d.c), d.n * BLOCK, batch_norm_eval_blocks)
                    : run_over(c, d, d.n * d.c, d.s, batch_norm_eval_channels);
}

/* ---- layer and group norm: a set is a run of consecutive elements ---- */

static void set_norm_sets(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const tp_norm_attr *a = c->attr;
    const int64_t per = j->d.c / j->d.groups, s = j->d.s, len = per * s;

    for (int64_t set = begin; set < end; set++) {
        const float *x = tp_in_f32(c, SN_X) + set * len;
        const float *gamma = tp_in_f32(c, SN_GAMMA) + set % j->d.groups * per;
        const float *beta = tp_in_f32(c, SN_BETA) + set % j->d.groups * per;
        float *y = tp_out_f32(c, 0) + set * len;
        double sum = 0.0, squares = 0.0, unused = 0.0;
        run_sums(x, len, 0.0, &sum, &unused);
        const double mean = sum / (double)len;
        run_sums(x, len, mean, &unused, &squares);
        const double rstd = 1.0 / sqrt(squares / (double)len + a->epsilon);
        if (s == 1)
            run_affine_each(y, x, gamma, beta, len, (float)mean, (float)rest(mean), (float)rstd);
        else
            for (int64_t k = 0; k < per; k++) {
                const double scale = rstd * (double)gamma[k];
                run_affine(y + k * s, x + k * s, s, (float)mean, (float)scale,
                           (float)((double)beta[k] - rest(mean) * scale));
            }
        tp_out_f32(c, 1)[set] = (float)mean;
        tp_out_f32(c, 2)[set] = (float)rstd;
    }
}

/* With g = dy gamma and xh = (x - mean) rstd: dx = rstd (g - mean(g) - xh mean(g xh)). */
static void set_norm_grad_sets(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const int64_t per = j->d.c / j->d.groups, s = j->d.s, len = per * s;

    for (int64_t set = begin; set < end; set++) {
        const float *x = tp_in_f32(c, SG_X) + set * len, *dy = tp_in_f32(c, SG_DY) + set * len;
        const float *gamma = tp_in_f32(c, SG_GAMMA) + set % j->d.groups * per;
        const float mean = tp_in_f32(c, SG_MEAN)[set], rstd = tp_in_f32(c, SG_RSTD)[set];
        float *dx = tp_out_f32(c, 0) + set * len;
        double sum = 0.0, dot = 0.0;
        if (s == 1)
            run_dots_scaled(x, dy, gamma, len, (double)mean, &sum, &dot);
        else
            for (int64_t k = 0; k < per; k++) {
                double part = 0.0, part_dot = 0.0;
                run_dots(x + k * s, dy + k * s, s, (double)mean, &part, &part_dot);
                sum += (double)gamma[k] * part;
                dot += (double)gamma[k] * part_dot;
            }
        const double r = (double)rstd;
        const float b = (float)(-r * r * r * dot / (double)len), shift = (float)(-r * sum / (double)len);
        if (s == 1)
            run_grad_each(dx, dy, x, gamma, len, rstd, b, mean, shift);
        else
            for (int64_t k = 0; k < per; k++)
                run_grad(dx + k * s, dy + k * s, x + k * s, s, (float)(r * (double)gamma[k]), b, mean, shift);
    }
}

/* dgamma and dbeta of images: a channel at a time, over every sample. */
static void set_norm_grad_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t ch = begin; ch < end; ch++) {
        double dgamma = 0.0, dbeta = 0.0;
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t at = (n * d.c + ch) * d.s, set = n * d.groups + ch / (d.c / d.groups);
            double dot = 0.0;
            run_dots(tp_in_f32(c, SG_X) + at, tp_in_f32(c, SG_DY) + at, d.s,
                     (double)tp_in_f32(c, SG_MEAN)[set], &dbeta, &dot);
            dgamma += dot * (double)tp_in_f32(c, SG_RSTD)[set];
        }
        tp_out_f32(c, 1)[ch] = (float)dgamma;
        tp_out_f32(c, 2)[ch] = (float)dbeta;
    }
}

/* dgamma and dbeta of rows of features: blocks of channels, within one group each. */
static void set_norm_grad_blocks(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;
    const int64_t per = d.c / d.groups, in_group = blocks(per);

    for (int64_t block = begin; block < end; block++) {
        const int64_t group = block / in_group, from = block % in_group * BLOCK, at = group * per + from;
        const int64_t width = per - from < BLOCK ? per - from : BLOCK;
        double sum[BLOCK] = {0}, dot[BLOCK] = {0};
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t set = n * d.groups + group;
            add_row_dots_same(sum, dot, tp_in_f32(c, SG_X) + n * d.c + at, tp_in_f32(c, SG_DY) + n * d.c + at,
                              (double)tp_in_f32(c, SG_MEAN)[set], (double)tp_in_f32(c, SG_RSTD)[set], width);
        }
        for (int64_t k = 0; k < width; k++) {
            tp_out_f32(c, 1)[at + k] = (float)dot[k];
            tp_out_f32(c, 2)[at + k] = (float)sum[k];
        }
    }
}

static tp_status set_norm(const tp_call *c, int last)
{
    const norm_dims d = tp_norm_dims(c->in[0].shape, last, ((const tp_norm_attr *)c->attr)->groups);
    return run_over(c, d, d.n * d.groups, d.c / d.groups * d.s, set_norm_sets);
}

static tp_status set_norm_grad(const tp_call *c, int last)
{
    const norm_dims d = tp_norm_dims(c->in[0].shape, last, ((const tp_norm_attr *)c->attr)->groups);
    TP_TRY(run_over(c, d, d.n * d.groups, d.c / d.groups * d.s, set_norm_grad_sets));
    return d.s == 1 ? run_over(c, d, d.groups * blocks(d.c / d.groups), d.n * BLOCK, set_norm_grad_blocks)
                    : run_over(c, d, d.c, d.n * d.s, set_norm_grad_channels);
}

tp_status tp_layer_norm_simd(const tp_call *c)
{
    return set_norm(c, 1);
}

tp_status tp_layer_norm_grad_simd(const tp_call *c)
{
    return set_norm_grad(c, 1);
}

tp_status tp_group_norm_simd(const tp_call *c)
{
    return set_norm(c, 0);
}

tp_status tp_group_norm_grad_simd(const tp_call *c)
{
    return set_norm_grad(c, 0);
}
