/* clip.cu - the global norm of all gradients, the factor that clips it, and whether the step may be applied.
 * Every gradient is read once: a block sums the squares of a piece in double, then one block adds the pieces
 * up in a fixed order. */
#include "kernels/optim/tensors.cuh"
#include "kernels/pack.cuh"
#include <cmath>

#define CLIP_EACH   (TP_PIECE / (4 * TP_THREADS)) /* vectors of a thread, all under way at once */
#define CLIP_FINISH 1024                          /* threads that add the pieces up */

__device__ static double square_sum(const tp_pack<float, 4> &f)
{
    const float *v = f.v;
    return (double)v[0] * (double)v[0] + (double)v[1] * (double)v[1] + (double)v[2] * (double)v[2] +
           (double)v[3] * (double)v[3];
}

/* This thread's part of a piece of n elements. */
template <typename T> __device__ static double piece_sum(const T *x, int64_t n)
{
    tp_pack<float, 4> v[CLIP_EACH];
    double sum = 0.0;

    TP_UNROLL
    for (int k = 0; k < CLIP_EACH; k++) {
        const int64_t at = 4 * ((int64_t)k * TP_THREADS + threadIdx.x);
        v[k] = {};
        if (at + 4 <= n)
            v[k] = tp_load_pack<4>(x + at);
    }
    TP_UNROLL
    for (int k = 0; k < CLIP_EACH; k++)
        sum += square_sum(v[k]);
    if ((int64_t)threadIdx.x < n % 4) {
        const double rest = (double)tp_load(x, n / 4 * 4 + threadIdx.x);
        sum += rest * rest;
    }
    return sum;
}

__global__ void clip_norm_pieces(double *partial, tp_tensor_group<1> g)
{
    for (int64_t piece = blockIdx.x; piece < g.end[g.n - 1]; piece += gridDim.x) {
        const int i = tp_group_find(&g, piece);
        const int64_t at = tp_group_offset(&g, i, piece), left = g.len[i] - at,
                      n = left < TP_PIECE ? left : TP_PIECE;
        const double sum = tp_block_sum(g.narrow[0][i] ? piece_sum(tp_group_at<uint16_t>(&g, 0, i, at), n)
                                                       : piece_sum(tp_group_at<float>(&g, 0, i, at), n));
        if (threadIdx.x == 0)
            partial[piece] = sum;
    }
}

/* result: {scale, ok}; norm: () */
__global__ void clip_norm_finish(float *result, float *norm_out, const double *partial, int64_t pieces,
                                 const float *loss, double max_norm)
{
    double sum = 0.0;

    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x)
        sum += partial[i];
    sum = tp_block_sum(sum);
    if (threadIdx.x == 0) {
        const double norm = sqrt(sum), factor = max_norm / (norm + 1e-6);
        const float l = loss != nullptr ? loss[0] : 0.0f;
        result[0] = max_norm > 0.0 && factor < 1.0 ? (float)factor : 1.0f;
        result[1] = norm - norm == 0.0 && l - l == 0.0f ? 1.0f : 0.0f; /* finite: the difference is no NaN */
        norm_out[0] = (float)norm;
    }
}

static int64_t pieces_of(const tp_call *c)
{
    int64_t pieces = 0;
    for (int i = 1; i < c->n_in; i++)
        pieces += (tp_len(&c->in[i]) + TP_PIECE - 1) / TP_PIECE;
    return pieces;
}

static tp_status clip_norm_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_stored(c, scratch));
    *scratch = (size_t)pieces_of(c) * sizeof(double);
    return TP_OK;
}

static tp_status clip_norm_run(const tp_call *c)
{
    const tp_clip_norm_attr *attr = static_cast<const tp_clip_norm_attr *>(c->attr);
    const int total = c->n_in - 1, at[1] = {1};
    double *partial = static_cast<double *>(c->scratch);
    int64_t pieces = 0;

    for (int first = 0; first < total; first += TP_GROUP) {
        tp_tensor_group<1> g;
        tp_group_fill(&g, c, at, first, total);
        if (tp_group_pieces(&g) > 0)
            TP_LAUNCH(clip_norm_pieces, tp_group_blocks(c, tp_group_pieces(&g)), TP_THREADS, 0, c,
                      partial + pieces, g);
        pieces += tp_group_pieces(&g);
    }
    TP_LAUNCH(clip_norm_finish, 1, CLIP_FINISH, 0, c, tp_out_f32(c, 0), tp_out_f32(c, 1), partial, pieces,
              c->in[0].dtype != TP_DTYPE_NONE ? tp_in_f32(c, 0) : nullptr, attr->max_norm);
    return TP_OK;
}

static const tp_impl clip_norm_own = {"own", clip_norm_prepare, clip_norm_run, nullptr, 0};
TP_CUDA_IMPLS(clip_norm, &clip_norm_own);
