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

/* N stored elements from p on as the words they are made of; an odd one of 16 bits has a word of its own. A
 * kernel that wants several loads under way takes all words first and makes floats of them then: unpacked
 * where it is loaded, each bfloat16 pack was waited for before the next was asked for. */
template <int N> __device__ inline tp_words<N> tp_load_words(const float *p)
{
    return *reinterpret_cast<const tp_words<N> *>(p);
}

template <int N> __device__ inline tp_words<(N + 1) / 2> tp_load_words(const uint16_t *p)
{
    if constexpr (N == 1)
        return {{p[0]}};
    else
        return *reinterpret_cast<const tp_words<N / 2> *>(p);
}

/* N elements that are stored as T, as floats. */
template <typename T, int N> using tp_stored = tp_words<sizeof(T) == 4 ? N : (N + 1) / 2>;

template <typename T, int N> __device__ inline tp_pack<float, N> tp_unpack(const tp_stored<T, N> &in)
{
    tp_pack<float, N> f;
    for (int k = 0; k < N; k++)
        if constexpr (sizeof(T) == 4)
            f.v[k] = __uint_as_float(in.w[k]);
        else
            f.v[k] = __uint_as_float(k % 2 != 0 ? in.w[k / 2] & 0xffff0000u : in.w[k / 2] << 16);
    return f;
}

/* N elements from p on, as floats. */
template <int N, typename T> __device__ inline tp_pack<float, N> tp_load_pack(const T *p)
{
    return tp_unpack<T, N>(tp_load_words<N>(p));
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
