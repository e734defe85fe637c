/* tensors.cuh - one launch over many tensors: they are cut into pieces, and a block takes pieces whatever
 * tensor they are of. The list is a kernel argument (up to 32 KiB of them since CUDA 12.1), so more than
 * TP_GROUP tensors take several launches. */
#ifndef TP_KERNELS_TENSORS_CUH
#define TP_KERNELS_TENSORS_CUH
#include "kernels/cuda.cuh"

#define TP_GROUP 256
#define TP_PIECE 4096 /* elements: 16 a thread */

/* N pointers for each of up to TP_GROUP tensors. */
template <int N> struct tp_tensor_group {
    void *data[N][TP_GROUP];
    uint8_t narrow[N][TP_GROUP]; /* 1: bfloat16, else float32 */
    int64_t len[TP_GROUP];
    int64_t end[TP_GROUP]; /* pieces of this tensor and those before it */
    int n;
};

/* Tensors [first, first + TP_GROUP) of the lists that begin at input at[k] of c; returns how many there are.
 */
template <int N>
inline int tp_group_fill(tp_tensor_group<N> *g, const tp_call *c, const int *at, int first, int total)
{
    int64_t pieces = 0;

    g->n = total - first < TP_GROUP ? total - first : TP_GROUP;
    for (int i = 0; i < g->n; i++) {
        for (int k = 0; k < N; k++) {
            const tp_tensor *t = at[k] >= 0 ? &c->in[at[k] + first + i] : nullptr;
            g->data[k][i] = t != nullptr ? t->data : nullptr;
            g->narrow[k][i] = t != nullptr && t->dtype == TP_BF16;
        }
        g->len[i] = tp_len(&c->in[at[0] + first + i]);
        g->end[i] = pieces += (g->len[i] + TP_PIECE - 1) / TP_PIECE;
    }
    return g->n;
}

template <int N> inline int64_t tp_group_pieces(const tp_tensor_group<N> *g)
{
    return g->n > 0 ? g->end[g->n - 1] : 0;
}

/* The tensor that a piece is of. */
template <int N> __device__ inline int tp_group_find(const tp_tensor_group<N> *g, int64_t piece)
{
    int lo = 0, hi = g->n - 1;
    while (lo < hi) {
        const int mid = (lo + hi) / 2;
        if (piece < g->end[mid])
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

template <int N>
__device__ inline int64_t tp_group_offset(const tp_tensor_group<N> *g, int tensor, int64_t piece)
{
    return (piece - (tensor > 0 ? g->end[tensor - 1] : 0)) * TP_PIECE;
}

/* Tensor i of list k from element `at` on; NULL where there is none. */
template <typename T, int N>
__device__ inline T *tp_group_at(const tp_tensor_group<N> *g, int k, int i, int64_t at)
{
    T *data = static_cast<T *>(g->data[k][i]);
    return data != nullptr ? data + at : nullptr;
}

/* Blocks for so many pieces: a few for each multiprocessor, at least one. */
static inline unsigned tp_group_blocks(const tp_call *c, int64_t pieces)
{
    return tp_cuda_blocks(c, pieces * TP_THREADS);
}

#endif
