/* ops.h - the list of ops, and one builder for each. A builder appends a node and returns its first output.
 *
 * Names, shapes and formulas follow ONNX where ONNX has the op, PyTorch otherwise. Shapes: N batch, C
 * channels, H and W height and width (images are NCHW), B rows of a batch. Float ops take float32; their
 * references take float64 and bfloat16 too, and on a GPU convolutions, pooling, batch norm and elementwise
 * ops take x in bfloat16 (then weights are bfloat16 as well; vectors, statistics and sums stay float32).
 * Optional inputs may be 0. Every error is sticky on the graph (TP_ESHAPE naming op, shapes and the rule). */
#ifndef TP_OPS_H
#define TP_OPS_H
#include "temper/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
#define TP_OPS(X)                                                                                            \
    /* elementwise */                                                                                        \
    X(neg) X(abs) X(exp) X(log) X(sqrt) X(rsqrt) X(sign) X(tanh) X(sigmoid) X(relu) X(leaky_relu) X(elu)     \
    X(gelu) X(silu) X(softplus) X(clip) X(relu_grad) X(leaky_relu_grad) X(elu_grad) X(gelu_grad)             \
    X(silu_grad) X(softplus_grad) X(tanh_grad) X(sigmoid_grad) X(clip_grad) X(add) X(sub) X(mul) X(div)      \
    X(pow) X(min) X(max) X(greater) X(where) X(cast)                                                         \
    /* reduce and shape */                                                                                   \
    X(reduce_sum) X(reduce_mean) X(reduce_max) X(reduce_max_grad) X(expand) X(reshape) X(detach)             \
    X(transpose) X(concat) X(slice) X(pad)                                                                   \
    /* linear, convolution, pooling, norms */                                                                \
    X(matmul) X(gemm) X(gemm_input_grad) X(gemm_weight_grad) X(conv) X(conv_input_grad) X(conv_weight_grad)  \
    X(max_pool) X(max_pool_grad) X(avg_pool) X(avg_pool_grad) X(batch_norm) X(batch_norm_grad)               \
    X(batch_norm_eval) X(layer_norm) X(layer_norm_grad) X(group_norm) X(group_norm_grad)                     \
    /* embedding, softmax, losses */                                                                         \
    X(embedding) X(embedding_grad) X(embedding_rows) X(softmax) X(softmax_grad) X(log_softmax)               \
    X(log_softmax_grad) X(softmax_cross_entropy) X(softmax_cross_entropy_grad) X(bce_with_logits)            \
    X(bce_with_logits_grad) X(regression_loss) X(regression_loss_grad) X(quad_penalty) X(quad_penalty_grad)  \
    /* random, data, optimizers */                                                                           \
    X(random_uniform) X(random_normal) X(dropout) X(sample_index) X(gather_batch) X(ring_read) X(ring_write)  \
    X(advance) X(clip_norm) X(count) X(optimize) X(optimize_rows) X(ema)
/* clang-format on */

/* ---- elementwise: y has x's shape ---- */
TP_API tp_val tp_neg(tp_graph *g, tp_val x);                      /* -x */
TP_API tp_val tp_abs(tp_graph *g, tp_val x);                      /* |x|; gradient sign(x) */
TP_API tp_val tp_exp(tp_graph *g, tp_val x);                      /* e^x */
TP_API tp_val tp_log(tp_graph *g, tp_val x);                      /* ln x */
TP_API tp_val tp_sqrt(tp_graph *g, tp_val x);                     /* x^(1/2) */
TP_API tp_val tp_rsqrt(tp_graph *g, tp_val x);                    /* x^(-1/2) */
TP_API tp_val tp_sign(tp_graph *g, tp_val x);                     /* -1, 0 or 1; gradient 0 */
TP_API tp_val tp_tanh(tp_graph *g, tp_val x);                     /* tanh x */
TP_API tp_val tp_sigmoid(tp_graph *g, tp_val x);                  /* 1 / (1 + e^-x) */
TP_API tp_val tp_relu(tp_graph *g, tp_val x);                     /* max(x, 0) */
TP_API tp_val tp_leaky_relu(tp_graph *g, tp_val x, double alpha); /* x > 0 ? x : alpha x */
TP_API tp_val tp_elu(tp_graph *g, tp_val x, double alpha);        /* x > 0 ? x : alpha (e^x - 1) */
TP_API tp_val tp_gelu(tp_graph *g, tp_val x);     /* x Phi(x), exact (erf), Hendrycks & Gimpel 2016 */
TP_API tp_val tp_silu(tp_graph *g, tp_val x);     /* x sigmoid(x) */
TP_API tp_val tp_softplus(tp_graph *g, tp_val x); /* ln(1 + e^x), stable for large |x| */
TP_API tp_val tp_clip(tp_graph *g, tp_val x, double lo,
                      double hi); /* min(max(x, lo), hi); gradient 1 inside */

/* Gradients of the above, given y or x and dy: dx, of x's shape. */
TP_API tp_val tp_relu_grad(tp_graph *g, tp_val y, tp_val dy);                     /* y > 0 ? dy : 0 */
TP_API tp_val tp_leaky_relu_grad(tp_graph *g, tp_val x, tp_val dy, double alpha); /* x > 0 ? dy : alpha dy */
TP_API tp_val tp_elu_grad(tp_graph *g, tp_val x, tp_val dy, double alpha); /* x > 0 ? dy : alpha e^x dy */
TP_API tp_val tp_gelu_grad(tp_graph *g, tp_val x, tp_val dy);              /* (Phi(x) + x phi(x)) dy */
TP_API tp_val tp_silu_grad(tp_graph *g, tp_val x, tp_val dy);     /* s (1 + x (1 - s)) dy, s = sigmoid(x) */
TP_API tp_val tp_softplus_grad(tp_graph *g, tp_val x, tp_val dy); /* sigmoid(x) dy */
TP_API tp_val tp_tanh_grad(tp_graph *g, tp_val y, tp_val dy);     /* (1 - y^2) dy */
TP_API tp_val tp_sigmoid_grad(tp_graph *g, tp_val y, tp_val dy);  /* y (1 - y) dy */
TP_API tp_val tp_clip_grad(tp_graph *g, tp_val x, tp_val dy, double lo,
                           double hi); /* lo <= x <= hi ? dy : 0 */

/* Two inputs, broadcast against each other as in NumPy and ONNX; y has the broadcast shape. */
TP_API tp_val tp_add(tp_graph *g, tp_val a, tp_val b);
TP_API tp_val tp_sub(tp_graph *g, tp_val a, tp_val b);
TP_API tp_val tp_mul(tp_graph *g, tp_val a, tp_val b);
TP_API tp_val tp_div(tp_graph *g, tp_val a, tp_val b);
TP_API tp_val tp_pow(tp_graph *g, tp_val a, tp_val b); /* a^b; gradient for b needs a > 0 */
TP_API tp_val tp_min(tp_graph *g, tp_val a, tp_val b); /* gradient goes to a on a tie */
TP_API tp_val tp_max(tp_graph *g, tp_val a, tp_val b); /* gradient goes to a on a tie */
TP_API tp_val tp_greater(tp_graph *g, tp_val a,
                         tp_val b); /* 1 where a > b, else 0, in a's dtype; gradient 0 */
TP_API tp_val tp_where(tp_graph *g, tp_val cond, tp_val a,
                       tp_val b); /* cond != 0 ? a : b; three-way broadcast */

/* x in another dtype: float32 or bfloat16 (nearest, ties to even). float64 stays as it is. */
typedef struct tp_cast_attr {
    tp_dtype to;
} tp_cast_attr;
TP_API tp_val tp_cast(tp_graph *g, tp_val x, tp_dtype to);

/* ---- reduce and shape ---- */

/* axes: bit i set reduces dimension i; 0 means every dimension. keep: reduced dimensions stay as 1. */
typedef struct tp_reduce_attr {
    uint32_t axes;
    int keep;
} tp_reduce_attr;
TP_API tp_val tp_reduce_sum(tp_graph *g, tp_val x, uint32_t axes, int keep);
TP_API tp_val tp_reduce_mean(tp_graph *g, tp_val x, uint32_t axes, int keep);
TP_API tp_val tp_reduce_max(tp_graph *g, tp_val x, uint32_t axes,
                            int keep); /* gradient shared equally among ties */
TP_API tp_val tp_reduce_max_grad(tp_graph *g, tp_val x, tp_val y, tp_val dy,
                                 uint32_t axes); /* y, dy: kept dimensions */
TP_API tp_val tp_expand(tp_graph *g, tp_val x,
                        tp_shape shape); /* broadcast x to shape (which must have x's last dims or 1) */
TP_API tp_val tp_reshape(tp_graph *g, tp_val x, tp_shape shape); /* a view; one dimension may be -1 */
TP_API tp_val tp_flatten(tp_graph *g, tp_val x, int axis); /* (prod d[:axis], prod d[axis:]); a reshape */
TP_API tp_val tp_detach(tp_graph *g, tp_val x);            /* x; gradient 0. A view */
typedef struct tp_transpose_attr {
    int perm[TP_MAX_DIMS];
} tp_transpose_attr;
TP_API tp_val tp_transpose(tp_graph *g, tp_val x,
                           const int *perm); /* y.d[i] = x.d[perm[i]]; perm has nd entries */
typedef struct tp_concat_attr {
    int axis;
} tp_concat_attr;
TP_API tp_val tp_concat(tp_graph *g, int n, const tp_val *x, int axis);
typedef struct tp_slice_attr {
    int axis;
    int64_t begin, end;
} tp_slice_attr;
TP_API tp_val tp_slice(tp_graph *g, tp_val x, int axis, int64_t begin,
                       int64_t end); /* x[begin:end] along axis; any dtype */
TP_API void tp_split(tp_graph *g, tp_val x, int axis, int n, const int64_t *sizes,
                     tp_val *out); /* n slices */
typedef struct tp_pad_attr {
    int64_t before[TP_MAX_DIMS], after[TP_MAX_DIMS];
    double value;
} tp_pad_attr;
TP_API tp_val tp_pad(tp_graph *g, tp_val x, const int64_t *before, const int64_t *after, double value);

/* ---- linear ---- */

/* Activations that fuse into gemm and conv: their gradient needs y alone. */
typedef enum tp_activation { TP_ACT_NONE = 0, TP_ACT_RELU, TP_ACT_TANH, TP_ACT_SIGMOID } tp_activation;

/* y = op(a) op(b), op = transpose of the last two dimensions where asked. Leading dimensions broadcast (ONNX
 * MatMul). */
typedef struct tp_matmul_attr {
    int trans_a, trans_b;
} tp_matmul_attr;
TP_API tp_val tp_matmul(tp_graph *g, tp_val a, tp_val b, int trans_a, int trans_b);

/* y(M,N) = act(op(a)(M,K) op(b)(K,N) + c), c of shape (N) or absent. A dense layer is gemm(x, w, b, 0, 1). */
typedef struct tp_gemm_attr {
    int trans_a, trans_b;
    tp_activation act;
} tp_gemm_attr;
TP_API tp_val tp_gemm(tp_graph *g, tp_val a, tp_val b, tp_val c, tp_gemm_attr attr);
/* The gradient of z, where a dense layer read y(M,K) = act(z): dz(M,K) = (op(a)(M,N) op(b)(N,K)) act'(y), a
 * the gradient of what the layer gave, b its weight. */
TP_API tp_val tp_gemm_input_grad(tp_graph *g, tp_val a, tp_val b, tp_val y, tp_gemm_attr attr);
/* The gradients of a dense layer's weight and bias: dw(N,K) = dy(M,N)^T x(M,K), and (+1) db(N), the sum of
 * the rows of dy. */
TP_API tp_val tp_gemm_weight_grad(tp_graph *g, tp_val dy, tp_val x);

/* ---- convolution, pooling ---- */

/* Spatial dimensions: 1 for x (N,C,W), 2 for x (N,C,H,W); entry 0 is H (or W in 1-D). Padding is symmetric,
 * of zeros. groups divides both channel counts; groups = C is depthwise. Zero strides, dilations and groups
 * mean 1. channels_last: x is (N,H,W,C), w (M,KH,KW,C/groups) and y (N,OH,OW,M), and so their gradients. */
typedef struct tp_conv_attr {
    int64_t stride[2], pad[2], dilation[2];
    int64_t groups;
    tp_activation act;
    int channels_last;
} tp_conv_attr;
/* y(N,M,OH,OW) = act(x(N,C,H,W) * w(M,C/groups,KH,KW) + b(M)), OH = (H + 2 pad - dilation (KH - 1) - 1) /
 * stride + 1. */
TP_API tp_val tp_conv(tp_graph *g, tp_val x, tp_val w, tp_val b, tp_conv_attr attr);
/* dx of x's shape, given w and dy (before the activation). act is ignored in both. */
TP_API tp_val tp_conv_input_grad(tp_graph *g, tp_shape x_shape, tp_val w, tp_val dy, tp_conv_attr attr);
/* dw of w's shape, given x and dy. */
TP_API tp_val tp_conv_weight_grad(tp_graph *g, tp_val x, tp_shape w_shape, tp_val dy, tp_conv_attr attr);
typedef struct tp_conv_grad_attr {
    tp_conv_attr conv;
    tp_shape shape; /* of dx, or of dw */
} tp_conv_grad_attr;

typedef struct tp_pool_attr {
    int64_t kernel[2], stride[2], pad[2]; /* zero stride: kernel; pad <= kernel / 2 */
    int channels_last;                    /* x is (N,H,W,C), and y too */
} tp_pool_attr;
TP_API tp_val tp_max_pool(tp_graph *g, tp_val x,
                          tp_pool_attr attr); /* first maximum wins; padding never does */
TP_API tp_val tp_max_pool_grad(tp_graph *g, tp_val x, tp_val y, tp_val dy, tp_pool_attr attr);
TP_API tp_val tp_avg_pool(tp_graph *g, tp_val x, tp_pool_attr attr); /* padding counts in the divisor */
TP_API tp_val tp_avg_pool_grad(tp_graph *g, tp_shape x_shape, tp_val dy, tp_pool_attr attr);
typedef struct tp_pool_grad_attr {
    tp_pool_attr pool;
    tp_shape shape; /* of dx */
} tp_pool_grad_attr;
TP_API tp_val tp_global_avg_pool(tp_graph *g, tp_val x,
                                 int channels_last); /* (N,C,...) or (N,...,C) -> (N,C): a reduce_mean */

/* ---- norms ---- */

/* Batch norm over every dimension but 1 (Ioffe & Szegedy 2015): y = act((x - mean) rstd gamma + beta +
 * residual), x (N,C,...). Training: batch statistics; running = (1 - momentum) running + momentum batch, with
 * the unbiased variance, as PyTorch. weight, optional, one value for each N or for each run of N / len rows
 * (images with channels last are (N H W, C)): rows of weight 0 (padding) take no part in the statistics.
 * residual, optional, has x's shape. act is none or relu. Node outputs: y, mean (C), rstd (C). */
typedef struct tp_norm_attr {
    double epsilon, momentum;
    int64_t groups;    /* group_norm only */
    tp_activation act; /* batch_norm and its gradient only */
} tp_norm_attr;
TP_API tp_val tp_batch_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val running_mean,
                            tp_val running_var, tp_val weight, tp_val residual, double epsilon,
                            double momentum, tp_activation act);
/* dx, dgamma (+1), dbeta (+2) of batch_norm without a residual, given its mean and rstd. With act relu, beta
 * is given too: dy counts where the norm of x is above 0. */
TP_API tp_val tp_batch_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                                 tp_val weight, tp_val beta, tp_activation act);
/* Evaluation and frozen mode: running statistics are constants; differentiable in x, gamma and beta. */
TP_API tp_val tp_batch_norm_eval(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val mean, tp_val var,
                                 double epsilon);
/* Layer norm over the last dimension (Ba et al. 2016): gamma, beta (D). Outputs: y, mean (rows), rstd (rows).
 */
TP_API tp_val tp_layer_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, double epsilon);
TP_API tp_val tp_layer_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy);
/* Group norm of x (N,C,...) (Wu & He 2018): gamma, beta (C). Outputs: y, mean (N,groups), rstd (N,groups). */
TP_API tp_val tp_group_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, int64_t groups, double epsilon);
TP_API tp_val tp_group_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                                 int64_t groups);

/* ---- embedding ---- */

/* y(ids..., D) = table(V,D)[ids]; an id outside [0, V) reads row 0 (data is checked before step 1). */
TP_API tp_val tp_embedding(tp_graph *g, tp_val table, tp_val ids);
/* Dense d table (V,D): rows summed in the order of ids. */
TP_API tp_val tp_embedding_grad(tp_graph *g, tp_val ids, tp_val dy, int64_t n_rows);
/* Sparse d table: outputs rows i64 (B), the distinct ids ascending, then -1; and (+1) sums float (B,D), zero
 * past the last row. B = number of ids. dy (ids..., D). Sums run in the order of ids. */
TP_API tp_val tp_embedding_rows(tp_graph *g, tp_val ids, tp_val dy, int64_t n_rows);
typedef struct tp_embedding_attr {
    int64_t n_rows;
} tp_embedding_attr;

/* ---- softmax and losses ---- */
TP_API tp_val tp_softmax(tp_graph *g, tp_val x);                     /* over the last dimension */
TP_API tp_val tp_softmax_grad(tp_graph *g, tp_val y, tp_val dy);     /* y (dy - <y, dy>) */
TP_API tp_val tp_log_softmax(tp_graph *g, tp_val x);                 /* x - logsumexp(x), last dimension */
TP_API tp_val tp_log_softmax_grad(tp_graph *g, tp_val y, tp_val dy); /* dy - e^y sum(dy) */

/* Losses give one value for each row: l (N). Averages and sample weights are graph code (see
 * tp_weighted_mean). softmax_cross_entropy: x (N,C) logits; target integers (N), or floats (N,C) that sum to
 * 1 (soft or one-hot labels). l = -sum_c q_c w_c log softmax(x)_c, q = (1 - smoothing) onehot + smoothing / C
 * (PyTorch's CrossEntropyLoss with reduction none). class_weight (C), optional. Gradient: never stores
 * probabilities. */
typedef struct tp_xent_attr {
    double smoothing;
} tp_xent_attr;
TP_API tp_val tp_softmax_cross_entropy(tp_graph *g, tp_val x, tp_val target, tp_val class_weight,
                                       double smoothing);
TP_API tp_val tp_softmax_cross_entropy_grad(tp_graph *g, tp_val x, tp_val target, tp_val class_weight,
                                            tp_val dl, double smoothing);
/* l (N) = mean over the columns of max(x,0) - x t + ln(1 + e^-|x|); x, t (N,C). */
TP_API tp_val tp_bce_with_logits(tp_graph *g, tp_val x, tp_val target);
TP_API tp_val tp_bce_with_logits_grad(tp_graph *g, tp_val x, tp_val target, tp_val dl);
/* l (N) = mean over the columns of f(x - t); x, t (N,C). mse: d^2. mae: |d|. huber: d^2/2 for |d| <= delta,
 * else delta (|d| - delta/2) (PyTorch HuberLoss). quantile: the pinball loss max(q (t - x), (q - 1) (t - x)).
 */
typedef enum tp_regression_kind {
    TP_REGRESSION_MSE = 0,
    TP_REGRESSION_MAE,
    TP_REGRESSION_HUBER,
    TP_REGRESSION_QUANTILE
} tp_regression_kind;
typedef struct tp_regression_attr {
    tp_regression_kind kind;
    double param; /* huber: delta > 0; quantile: q in (0,1) */
} tp_regression_attr;
TP_API tp_val tp_regression_loss(tp_graph *g, tp_val x, tp_val target, tp_regression_kind kind, double param);
TP_API tp_val tp_regression_loss_grad(tp_graph *g, tp_val x, tp_val target, tp_val dl,
                                      tp_regression_kind kind, double param);
TP_API tp_val tp_mse(tp_graph *g, tp_val x, tp_val target);
TP_API tp_val tp_mae(tp_graph *g, tp_val x, tp_val target);
TP_API tp_val tp_huber(tp_graph *g, tp_val x, tp_val target, double delta);
TP_API tp_val tp_quantile(tp_graph *g, tp_val x, tp_val target, double q);
/* () = sum(w l) / sum(w); l, w (N). */
TP_API tp_val tp_weighted_mean(tp_graph *g, tp_val l, tp_val w);
/* () = lambda / 2 sum f (w - w0)^2 (EWC, Kirkpatrick et al. 2017, eq. 3; also L2 to an anchor). lambda: (), a
 * value. */
TP_API tp_val tp_quad_penalty(tp_graph *g, tp_val w, tp_val w0, tp_val f, tp_val lambda);
TP_API tp_val tp_quad_penalty_grad(tp_graph *g, tp_val w, tp_val w0, tp_val f, tp_val lambda, tp_val dl);

/* ---- random ---- */

/* counter: uint64 (2) = {seed, step}. The same counter and stream give the same numbers on every device. */
typedef struct tp_random_attr {
    uint32_t stream;
    tp_shape shape;
    double a, b;
} tp_random_attr;
TP_API tp_val tp_random_uniform(tp_graph *g, tp_val counter, uint32_t stream, tp_shape shape, double lo,
                                double hi);
TP_API tp_val tp_random_normal(tp_graph *g, tp_val counter, uint32_t stream, tp_shape shape, double mean,
                               double std);
/* y = x / (1 - rate) with probability 1 - rate, else 0. Its gradient is itself with the same stream. 0 <=
 * rate < 1. */
typedef struct tp_dropout_attr {
    uint32_t stream;
    double rate;
} tp_dropout_attr;
TP_API tp_val tp_dropout(tp_graph *g, tp_val x, tp_val counter, uint32_t stream, double rate);

/* ---- data ---- */

/* Which rows make the batch of this step. counter (2) = {seed, step}; rows int64 (N): the part's row numbers.
 * With epoch = step / steps_per_epoch and p = (step mod steps_per_epoch) batch + i, output index i64 (batch)
 * is rows[order(seed, epoch, N, p)] (rows[p] without shuffle), and weight float32 (batch) (+1) is 1; past the
 * end of the epoch index is rows[0] and weight 0. */
typedef struct tp_sample_attr {
    int64_t batch, steps_per_epoch;
    int shuffle;
} tp_sample_attr;
TP_API tp_val tp_sample_index(tp_graph *g, tp_val counter, tp_val rows, tp_sample_attr attr);

/* y(B, row...) = (data[index] - shift) scale in float32, or the ids as int64 when attr.ids. data (N, row...)
 * of any dtype; shift, scale (L) or absent: L divides the row length and repeats for each run of row_len / L
 * elements (per feature: L = row length; per channel: L = C). Images (N,C,H,W) may be augmented: shift by up
 * to crop pixels each way into zeros (after normalisation) and mirrored, keyed by (seed, epoch, sample).
 * counter is needed only then. With attr.staged the rows were put into data in batch order already: y takes
 * rows first, first + 1, ... of data, and index only says which samples they are. */
typedef struct tp_gather_attr {
    int ids, crop, hflip;
    int64_t steps_per_epoch;
    int staged;
    int64_t first;
} tp_gather_attr;
TP_API tp_val tp_gather_batch(tp_graph *g, tp_val data, tp_val index, tp_val shift, tp_val scale,
                              tp_val counter, tp_gather_attr attr);

/* What changes from step to step lives in rings on the device, so that many steps run without the host.
 * counter (2) = {seed, step}. y (1) = ring(L)[step mod L], float. */
TP_API tp_val tp_ring_read(tp_graph *g, tp_val ring, tp_val counter);
/* EFFECT: row step mod L of ring (L,K) = the elements of values[0], values[1], ... one after another, K in
 * all. n <= TP_MAX_RING values. */
#define TP_MAX_RING 8
TP_API void tp_ring_write(tp_graph *g, tp_val ring, tp_val counter, int n, const tp_val *values);
/* EFFECT: step += 1 in counter (2). */
TP_API void tp_advance(tp_graph *g, tp_val counter);

/* Tensors that one multi-tensor op takes at most. */
#define TP_MAX_TENSORS 1024

/* ---- optimizers: each one pass over every tensor ---- */

/* Outputs: float32 (2) = {scale, ok}, and (+1) norm (). norm = global 2-norm of the n gradients; scale =
 * min(1, max_norm / (norm + 1e-6)) (1 if max_norm is 0); ok = 1 if the norm and the loss (optional) are
 * finite, else 0. */
typedef struct tp_clip_norm_attr {
    double max_norm;
} tp_clip_norm_attr;
TP_API tp_val tp_clip_norm(tp_graph *g, int n, const tp_val *dw, tp_val loss, double max_norm);

/* EFFECT: t int64 (1) += 1 where ok: the number of steps applied. */
TP_API void tp_count(tp_graph *g, tp_val t, tp_val clip);

typedef enum tp_optimizer_kind {
    TP_SGD = 0, /* Sutskever et al. 2013, as PyTorch: v = mu v + g; w -= lr v (nesterov: lr (g + mu v)). State
                   1: v */
    TP_ADAM,    /* Kingma & Ba 2015; weight decay joins the gradient. States: m, v */
    TP_ADAMW,   /* Loshchilov & Hutter 2019: decoupled decay w -= lr decay w. States: m, v */
    TP_LION,    /* Chen et al. 2023, decoupled decay. State 1: m */
    TP_RMSPROP, /* as PyTorch, with optional momentum. States: v, momentum buffer */
    TP_ADAGRAD  /* Duchi et al. 2011. State 1: sum of squares */
} tp_optimizer_kind;
typedef struct tp_optimizer_attr {
    tp_optimizer_kind kind;
    double beta1, beta2, epsilon; /* adam, adamw, lion (betas); rmsprop: beta2 = alpha; adagrad: epsilon */
    double momentum;              /* sgd, rmsprop */
    int nesterov;
    double ema; /* decay of the moving averages of dense weights; 0: there are none */
    int low;    /* 1: weights may have copies in bfloat16, which are written with them */
} tp_optimizer_attr;
/* Number of state tensors of w's shape that a kind keeps: 1 or 2. */
TP_API int tp_optimizer_states(tp_optimizer_kind kind);

/* EFFECT: updates w[i], s1[i], s2[i] (s2 only where the kind keeps two) in place from dw[i], and with
 * attr.ema then ema[i] as tp_ema does, and with attr.low low[i], where it is not 0, as w[i] in bfloat16. dw
 * may be bfloat16. lr float32 (1); t int64 (1) after tp_count; clip from tp_clip_norm (nothing is written
 * when ok is 0); table float32 (n,2): lr multiplier and weight decay of each tensor. */
TP_API void tp_optimize(tp_graph *g, tp_val lr, tp_val t, tp_val clip, tp_val table, int n, const tp_val *w,
                        const tp_val *dw, const tp_val *s1, const tp_val *s2, const tp_val *ema,
                        const tp_val *low, tp_optimizer_attr attr);
/* EFFECT: as tp_optimize for one table w (V,D), on the rows of tp_embedding_rows only (rows i64 (B), dw
 * (B,D)); rows of -1 are skipped, and decay touches only the rows of the batch. table (1,2). An average of a
 * table moves in every row, which is tp_ema's: attr.ema is not used. */
TP_API void tp_optimize_rows(tp_graph *g, tp_val lr, tp_val t, tp_val clip, tp_val table, tp_val w,
                             tp_val rows, tp_val dw, tp_val s1, tp_val s2, tp_optimizer_attr attr);
/* EFFECT: ema[i] = decay ema[i] + (1 - decay) w[i] where ok. */
typedef struct tp_ema_attr {
    double decay;
} tp_ema_attr;
TP_API void tp_ema(tp_graph *g, tp_val clip, int n, const tp_val *ema, const tp_val *w, double decay);

/* Attributes of the plain elementwise ops: leaky_relu, elu (a = alpha); clip (a = lo, b = hi). */
typedef struct tp_unary_attr {
    double a, b;
} tp_unary_attr;
typedef struct tp_expand_attr {
    tp_shape shape;
} tp_expand_attr; /* expand and reshape */

#ifdef __cplusplus
}
#endif
#endif
