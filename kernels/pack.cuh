/* pack.cuh - N stored numbers that lie side by side, read and written at once (up to 16 bytes an access) and
 * computed with in float32. T is float, or uint16_t for bfloat16. Where N > 1 the place must be a multiple of
 * N numbers from the start of an allocation. */
#ifndef TP_KERNELS_PACK_CUH
#define TP_KERNELS_PACK_CUH
#include "kernels/cuda.cuh"

/* Numbers of a type in 16 bytes. */
template <typename T> struct tp_wide {
    static const int N = 16 / (int)sizeof(T);
};

template <int WORDS> struct alignas(WORDS % 4 == 0 ? 16 : 4 * WORDS) tp_words {
    uint32_t w[WORDS];
};

template <int N> __device__ inline void tp_load_pack(float (&v)[N], const float *p)
{
    const tp_words<N> in = *reinterpret_cast<const tp_words<N> *>(p);
    for (int k = 0; k < N; k++)
        v[k] = __uint_as_float(in.w[k]);
}

template <int N> __device__ inline void tp_load_pack(float (&v)[N], const uint16_t *p)
{
    if constexpr (N == 1) {
        v[0] = tp_load(p, 0);
        return;
    } else {
        const tp_words<N / 2> in = *reinterpret_cast<const tp_words<N / 2> *>(p);
        for (int k = 0; k < N / 2; k++) {
            v[2 * k] = __uint_as_float(in.w[k] << 16);
            v[2 * k + 1] = __uint_as_float(in.w[k] & 0xffff0000u);
        }
    }
}

template <int N> __device__ inline void tp_store_pack(float *p, const float (&v)[N])
{
    tp_words<N> out;
    for (int k = 0; k < N; k++)
        out.w[k] = __float_as_uint(v[k]);
    *reinterpret_cast<tp_words<N> *>(p) = out;
}

template <int N> __device__ inline void tp_store_pack(uint16_t *p, const float (&v)[N])
{
    if constexpr (N == 1) {
        tp_store(p, 0, v[0]);
        return;
    } else {
        tp_words<N / 2> out;
        for (int k = 0; k < N / 2; k++)
            out.w[k] = tp_bf16_from_f32(v[2 * k]) | (uint32_t)tp_bf16_from_f32(v[2 * k + 1]) << 16;
        *reinterpret_cast<tp_words<N / 2> *>(p) = out;
    }
}

#endif
