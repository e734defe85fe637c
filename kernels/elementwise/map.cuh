/* map.cuh - y = f(x, ...), element by element: what the kernels of unary.cu and binary.cu share.
 *
 * Reads each input once and writes y once. A block takes a tile of UNROLL packs of 16 bytes a thread, a
 * block's width apart, and asks for all of them before it computes: about 64 bytes a thread are on their way,
 * what the memory of an H200 wants. y may be the memory of the first input. Results do not depend on the
 * grid. */
#ifndef TP_KERNELS_MAP_CUH
#define TP_KERNELS_MAP_CUH
#include "kernels/index.cuh"
#include "kernels/pack.cuh"

template <typename T, int ARGS> struct tp_map_inputs {
    const T *x[ARGS];
};

template <typename F> __device__ inline float tp_apply(const F &f, const float (&v)[1])
{
    return f(v[0]);
}
template <typename F> __device__ inline float tp_apply(const F &f, const float (&v)[2])
{
    return f(v[0], v[1]);
}
template <typename F> __device__ inline float tp_apply(const F &f, const float (&v)[3])
{
    return f(v[0], v[1], v[2]);
}

template <int N, int ARGS, typename F>
__device__ inline tp_pack<float, N> tp_apply_pack(const F &f, const tp_pack<float, N> (&x)[ARGS])
{
    tp_pack<float, N> y;

    for (int k = 0; k < N; k++) {
        float v[ARGS];
        for (int a = 0; a < ARGS; a++)
            v[a] = x[a].v[k];
        y.v[k] = tp_apply(f, v);
    }
    return y;
}

/* Every input has the shape of y. */
template <int UNROLL, int ARGS, typename T, typename F>
__global__ void map_packs(T *y, tp_map_inputs<T, ARGS> in, int64_t n, F f)
{
    constexpr int N = tp_pack_len<T>;
    const int64_t first = (int64_t)blockIdx.x * (UNROLL * TP_THREADS) + threadIdx.x;
    tp_pack<float, N> x[UNROLL][ARGS];

    for (int u = 0; u < UNROLL; u++)
        for (int a = 0; a < ARGS; a++)
            if (first + u * TP_THREADS < n / N)
                x[u][a] = tp_load_pack<N>(in.x[a] + (first + u * TP_THREADS) * N);
    for (int u = 0; u < UNROLL; u++)
        if (first + u * TP_THREADS < n / N)
            tp_store_pack(y + (first + u * TP_THREADS) * N, tp_apply_pack(f, x[u]));
    if (first < n % N) {
        const int64_t i = n / N * N + first;
        float v[ARGS];
        for (int a = 0; a < ARGS; a++)
            v[a] = tp_load(in.x[a], i);
        tp_store(y, i, tp_apply(f, v));
    }
}

/* N elements of an input from at on: neighbours, or all the same one. */
template <int N, typename T>
__device__ inline tp_pack<float, N> tp_load_spread(const T *x, int64_t at, bool dense)
{
    tp_pack<float, N> f;

    if (dense)
        return tp_load_pack<N>(x + at);
    const float v = tp_load(x, at);
    for (int k = 0; k < N; k++)
        f.v[k] = v;
    return f;
}

/* Inputs are broadcast: a place is N elements of the innermost dimension, over which an input is dense (bit a
 * of dense) or stands still. */
template <int N, int UNROLL, int ARGS, typename T, typename F>
__global__ void map_places(T *y, tp_map_inputs<T, ARGS> in, tp_places<ARGS> p, unsigned dense, F f)
{
    const uint32_t first = blockIdx.x * (UNROLL * TP_THREADS) + threadIdx.x;
    tp_pack<float, N> x[UNROLL][ARGS];

    for (int u = 0; u < UNROLL; u++)
        if (first + u * TP_THREADS < p.total) {
            int64_t at[ARGS];
            tp_place(p, first + u * TP_THREADS, at);
            for (int a = 0; a < ARGS; a++)
                x[u][a] = tp_load_spread<N>(in.x[a], at[a], (dense >> a & 1u) != 0);
        }
    for (int u = 0; u < UNROLL; u++)
        if (first + u * TP_THREADS < p.total)
            tp_store_pack(y + (int64_t)(first + u * TP_THREADS) * N, tp_apply_pack(f, x[u]));
}

/* Loads under way a thread: fewer inputs, more packs of each. */
template <int ARGS> constexpr int tp_map_unroll = ARGS == 1 ? 4 : 2;

/* Is there at most a pack for each thread the device holds? Then packs are spread over as many threads as
 * can be. */
static inline bool tp_map_is_small(const tp_call *c, int64_t packs)
{
    return packs <= (int64_t)tp_queue_of(c)->multiprocessors * 2048;
}

template <typename T, int ARGS> static tp_map_inputs<T, ARGS> tp_map_inputs_of(const tp_call *c)
{
    tp_map_inputs<T, ARGS> in;
    for (int a = 0; a < ARGS; a++)
        in.x[a] = static_cast<const T *>(c->in[a].data);
    return in;
}

/* y = f(x, ...) where every input has y's shape. */
template <typename T, int ARGS, typename F> static tp_status tp_map(const tp_call *c, F f)
{
    constexpr int UNROLL = tp_map_unroll<ARGS>;
    const int64_t n = tp_len(&c->out[0]), packs = n / tp_pack_len<T>;
    const tp_map_inputs<T, ARGS> in = tp_map_inputs_of<T, ARGS>(c);
    T *y = static_cast<T *>(c->out[0].data);

    if (tp_map_is_small(c, packs))
        TP_LAUNCH((map_packs<1, ARGS, T, F>), tp_tiles(packs, TP_THREADS), TP_THREADS, 0, c, y, in, n, f);
    else
        TP_LAUNCH((map_packs<UNROLL, ARGS, T, F>), tp_tiles(packs, UNROLL * TP_THREADS), TP_THREADS, 0, c, y,
                  in, n, f);
    return TP_OK;
}

/* The same however x is stored. */
template <int ARGS, typename F> static tp_status tp_map_stored(const tp_call *c, F f)
{
    return c->in[0].dtype == TP_BF16 ? tp_map<uint16_t, ARGS>(c, f) : tp_map<float, ARGS>(c, f);
}

template <int N, typename T, int ARGS, typename F>
static tp_status tp_map_walk(const tp_call *c, tp_walk w, unsigned dense, F f)
{
    constexpr int UNROLL = tp_map_unroll<ARGS>;
    const int64_t start[TP_WALK_ARGS] = {0};

    w.d[w.nd - 1] /= N;
    for (int a = 0; a < ARGS; a++)
        w.stride[a][w.nd - 1] *= N;
    return tp_walk_pieces(w, 0, start, [&](const tp_walk &piece, int64_t first, const int64_t *at) {
        tp_map_inputs<T, ARGS> in = tp_map_inputs_of<T, ARGS>(c);
        for (int a = 0; a < ARGS; a++)
            in.x[a] += at[a];
        const tp_places<ARGS> p = tp_places_of<ARGS>(&piece);
        TP_LAUNCH((map_places<N, UNROLL, ARGS, T, F>), tp_tiles(p.total, UNROLL * TP_THREADS), TP_THREADS, 0,
                  c, static_cast<T *>(c->out[0].data) + first * N, in, p, dense, f);
        return TP_OK;
    });
}

/* y = f(x, ...) where inputs are broadcast against each other. */
template <typename T, int ARGS, typename F> static tp_status tp_map_broadcast(const tp_call *c, F f)
{
    constexpr int N = tp_pack_len<T>;
    unsigned dense = 0;
    tp_walk w;

    if (tp_len(&c->out[0]) == 0)
        return TP_OK;
    tp_walk_init(&w, c);
    for (int a = 0; a < ARGS; a++)
        dense |= w.stride[a][w.nd - 1] != 0 ? 1u << a : 0u;
    return w.d[w.nd - 1] % N == 0 ? tp_map_walk<N, T, ARGS>(c, w, dense, f)
                                  : tp_map_walk<1, T, ARGS>(c, w, dense, f);
}

#endif
