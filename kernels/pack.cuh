/* pack.cuh - elements as they are stored, read and written several at a time, and as float in between.
 *
 * A kernel is a template of the stored type T: float, or uint16_t for bfloat16. Packs of 16 bytes give the
 * widest access a thread has; addresses are multiples of a pack. Reads and writes go by words of 32 bits:
 * nvcc 13 splits stores of narrower or looser structs. */
#ifndef TP_KERNELS_PACK_CUH
#define TP_KERNELS_PACK_CUH
#include "kernels/cuda.cuh"

/* N neighbouring elements; N is a power of two. */
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) tp_pack {
    T v[N];
};

template <typename T> constexpr int tp_pack_len = static_cast<int>(16 / sizeof(T));

template <int WORDS> struct alignas(WORDS % 4 == 0 ? 16 : 4 * WORDS) tp_words {
    uint32_t w[WORDS];
};

/* N elements as they are, of any type. */
template <int N, typename T> __device__ inline tp_pack<T, N> tp_load_raw(const T *p)
{
    return *reinterpret_cast<const tp_pack<T, N> *>(p);
}

/* N elements from p on, as floats. */
template <int N> __device__ inline tp_pack<float, N> tp_load_pack(const float *p)
{
    const tp_words<N> in = *reinterpret_cast<const tp_words<N> *>(p);
    tp_pack<float, N> f;
    for (int k = 0; k < N; k++)
        f.v[k] = __uint_as_float(in.w[k]);
    return f;
}

template <int N> __device__ inline tp_pack<float, N> tp_load_pack(const uint16_t *p)
{
    tp_pack<float, N> f;
    if constexpr (N == 1)
        f.v[0] = tp_load(p, 0);
    else {
        const tp_words<N / 2> in = *reinterpret_cast<const tp_words<N / 2> *>(p);
        for (int k = 0; k < N / 2; k++) {
            f.v[2 * k] = __uint_as_float(in.w[k] << 16);
            f.v[2 * k + 1] = __uint_as_float(in.w[k] & 0xffff0000u);
        }
    }
    return f;
}

template <int WORDS> __device__ inline void tp_store_words(void *to, const tp_words<WORDS> &v)
{
    if constexpr (WORDS % 4 == 0)
        for (int k = 0; k < WORDS; k += 4)
            tp_store_float4(static_cast<float4 *>(to) + k / 4,
                            make_float4(__uint_as_float(v.w[k]), __uint_as_float(v.w[k + 1]),
                                        __uint_as_float(v.w[k + 2]), __uint_as_float(v.w[k + 3])));
    else
        *static_cast<tp_words<WORDS> *>(to) = v;
}

template <int N, typename T> __device__ inline void tp_store_raw(T *p, const tp_pack<T, N> &v)
{
    *reinterpret_cast<tp_pack<T, N> *>(p) = v;
}

/* N floats to p, each rounded to what is stored. */
template <int N> __device__ inline void tp_store_pack(float *p, const tp_pack<float, N> &f)
{
    tp_words<N> out;
    for (int k = 0; k < N; k++)
        out.w[k] = __float_as_uint(f.v[k]);
    tp_store_words<N>(p, out);
}

template <int N> __device__ inline void tp_store_pack(uint16_t *p, const tp_pack<float, N> &f)
{
    if constexpr (N == 1)
        tp_store(p, 0, f.v[0]);
    else {
        tp_words<N / 2> out;
        for (int k = 0; k < N / 2; k++)
            out.w[k] = tp_bf16_from_f32(f.v[2 * k]) | (uint32_t)tp_bf16_from_f32(f.v[2 * k + 1]) << 16;
        tp_store_words<N / 2>(p, out);
    }
}

template <int N> __device__ inline void tp_store_raw(float *p, const tp_pack<float, N> &v)
{
    tp_store_pack(p, v);
}

#endif
