/* quad_penalty.cu - lambda / 2 sum f (w - w0)^2 and its gradient: w, w0 and f are read once. The sum runs in
 * double, a block for each piece of PIECE elements, then one block over the pieces in a fixed order. */
#include "kernels/cuda.cuh"

#define PIECE 8192

__global__ void quad_penalty_pieces(double *partial, const float *w, const float *w0, const float *f,
                                    int64_t n)
{
    const int64_t at = (int64_t)blockIdx.x * PIECE, end = at + PIECE < n ? at + PIECE : n;
    double sum = 0.0;

    for (int64_t i = at + threadIdx.x; i < end; i += blockDim.x) {
        const double d = (double)w[i] - (double)w0[i];
        sum += (double)f[i] * d * d;
    }
    sum = tp_block_sum(sum);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ void quad_penalty_finish(float *y, const double *partial, int64_t pieces, const float *lambda)
{
    double sum = 0.0;

    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x)
        sum += partial[i];
    sum = tp_block_sum(sum);
    if (threadIdx.x == 0)
        y[0] = (float)(0.5 * (double)lambda[0] * sum);
}

__global__ void quad_penalty_grad_map(float *dw, const float *w, const float *w0, const float *f,
                                      const float *lambda, const float *dl, int64_t n)
{
    const float scale = lambda[0] * dl[0];
    TP_GRID_LOOP (i, n) {
        dw[i] = scale * f[i] * (w[i] - w0[i]);
    }
}

static int64_t pieces_of(const tp_call *c)
{
    return (tp_len(&c->in[0]) + PIECE - 1) / PIECE;
}

static tp_status quad_penalty_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = (size_t)pieces_of(c) * sizeof(double);
    return TP_OK;
}

static tp_status quad_penalty_run(const tp_call *c)
{
    double *partial = static_cast<double *>(c->scratch);
    const int64_t pieces = pieces_of(c);

    if (pieces > 0)
        TP_LAUNCH(quad_penalty_pieces, (unsigned)pieces, TP_THREADS, 0, c, partial, tp_in_f32(c, 0),
                  tp_in_f32(c, 1), tp_in_f32(c, 2), tp_len(&c->in[0]));
    TP_LAUNCH(quad_penalty_finish, 1, TP_THREADS, 0, c, tp_out_f32(c, 0), partial, pieces, tp_in_f32(c, 3));
    return TP_OK;
}

static tp_status quad_penalty_grad_run(const tp_call *c)
{
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(quad_penalty_grad_map, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2), tp_in_f32(c, 3), tp_in_f32(c, 4), n);
    return TP_OK;
}

static const tp_impl quad_penalty_own = {"own", quad_penalty_prepare, quad_penalty_run, nullptr, 0};
static const tp_impl quad_penalty_grad_own = {"own", tp_accept_f32, quad_penalty_grad_run, nullptr, 0};
TP_CUDA_IMPLS(quad_penalty, &quad_penalty_own);
TP_CUDA_IMPLS(quad_penalty_grad, &quad_penalty_grad_own);
