/* pack.cuh - elements as they are stored, read and written several at a time, and as float in between.
 *
 * A kernel is a template of the stored type T: float, or uint16_t for bfloat16 (the upper half of a float32).
 * Packs of 16 bytes give the widest access a thread has; addresses are multiples of a pack. */
#ifndef TP_KERNELS_PACK_CUH
#define TP_KERNELS_PACK_CUH
#include "kernels/math.h"

/* N neighbouring elements; N is a power of two. */
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) tp_pack {
    T v[N];
};

template <typename T> constexpr int tp_pack_len = static_cast<int>(16 / sizeof(T));

TP_MATH float tp_bf16_float(uint16_t v)
{
    tp_float_bits b;
    b.u = (uint32_t)v << 16;
    return b.f;
}

/* To the nearest, ties to even; overflow gives infinity. A NaN stays one whatever its lower half holds. */
TP_MATH uint16_t tp_bf16_of(float v)
{
    tp_float_bits b;
    b.f = v;
    const uint32_t rounded = (b.u + 0x7fffu + (b.u >> 16 & 1u)) >> 16;
    return (uint16_t)(v != v ? b.u >> 16 | 0x40u : rounded);
}

TP_MATH float tp_float_of(float v)
{
    return v;
}
TP_MATH float tp_float_of(uint16_t v)
{
    return tp_bf16_float(v);
}
TP_MATH void tp_float_to(float *out, float v)
{
    *out = v;
}
TP_MATH void tp_float_to(uint16_t *out, float v)
{
    *out = tp_bf16_of(v);
}

/* N elements from p on, as floats. */
template <int N, typename T> TP_MATH tp_pack<float, N> tp_load_pack(const T *p)
{
    const tp_pack<T, N> raw = *reinterpret_cast<const tp_pack<T, N> *>(p);
    tp_pack<float, N> f;
    for (int k = 0; k < N; k++)
        f.v[k] = tp_float_of(raw.v[k]);
    return f;
}

/* N floats to p, each rounded to what is stored. */
template <int N, typename T> TP_MATH void tp_store_pack(T *p, const tp_pack<float, N> &f)
{
    tp_pack<T, N> raw;
    for (int k = 0; k < N; k++)
        tp_float_to(&raw.v[k], f.v[k]);
    *reinterpret_cast<tp_pack<T, N> *>(p) = raw;
}

#endif
