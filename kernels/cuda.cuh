/* cuda.cuh - what every .cu file shares: launching, shared memory, grid loops, reductions in a fixed order.
 *
 * The same files are compiled by nvcc for a GPU and, for the tests, as plain C++ against the emulated runtime
 * of tests/emu, which runs every CUDA thread as a fiber. What makes both possible:
 *   - kernels are launched with TP_LAUNCH, never with <<< >>>;
 *   - shared memory is declared with TP_SHARED and TP_DYN_SHARED;
 *   - warps are not in step: values cross lanes through __shfl_*_sync and its kin, with the full mask;
 *   - anything that only a GPU understands (PTX, mma, cp.async) has a plain twin.
 * Bits: no float atomics, sums in a fixed tree whose shape depends on the data's shape alone, nvcc with
 * -fmad=false (fmaf where a fused product is meant), and the functions of kernels/math.h: a GPU, the
 * emulation and, for elementwise ops, the CPU loops agree to the bit. */
#ifndef TP_KERNELS_CUDA_CUH
#define TP_KERNELS_CUDA_CUH
#include "kernels/op.h"

#ifndef TP_EMULATED
#include <cuda_runtime.h>
#define TP_SHARED(T, name, dims) __shared__ T name dims
#define TP_DYN_SHARED(T, name)                                                                               \
    extern __shared__ __align__(16) unsigned char tp_dyn_shared[];                                           \
    T *name = reinterpret_cast<T *>(tp_dyn_shared)
#define TP_LAUNCH(kernel, grid, block, bytes, c, ...)                                                        \
    do {                                                                                                     \
        (kernel)<<<(grid), (block), (bytes), tp_queue_of(c)->stream>>>(__VA_ARGS__);                         \
        TP_TRY(tp_cuda_check(cudaGetLastError(), #kernel));                                                  \
    } while (0)
/* Before a loop whose arrays must stay in registers. */
#define TP_UNROLL _Pragma("unroll")
/* Before a loop whose copies would cost registers. */
#define TP_ROLLED _Pragma("unroll 1")
/* Registers for that many blocks on a multiprocessor. */
#define TP_RESIDENT(threads, blocks) __launch_bounds__(threads, blocks)
#else
#define TP_UNROLL
#define TP_ROLLED
#define TP_RESIDENT(threads, blocks)
#endif

/* What the implementations of a CUDA device launch on: tp_call's queue. Its GPU is current while they run. */
typedef struct tp_cuda_queue {
    int index; /* of the GPU */
    cudaStream_t stream;
    int multiprocessors;
    const char *device; /* name of the GPU and version of its driver: what a choice is kept under */
    struct tp_libraries *libraries;
} tp_cuda_queue;

static inline const tp_cuda_queue *tp_queue_of(const tp_call *c)
{
    return static_cast<const tp_cuda_queue *>(c->queue);
}

/* TP_OK, or TP_EDEVICE (TP_ENOMEM when memory was what lacked) with a line that names what was done. */
tp_status tp_cuda_check(cudaError_t error, const char *what);
/* Where a library has failed: the error after which the GPU is lost to this process, if that is why. */
tp_status tp_cuda_check_alive(const char *what);

#define TP_CUDA(call) TP_TRY(tp_cuda_check((call), #call))

#define TP_WARP     32
#define TP_THREADS  256 /* of a block, where nothing else asks for another number */
#define TP_ALL_LANE 0xffffffffu

/* A float4 in one store: nvcc 13 cuts a plain one into pieces at times. */
__device__ static inline void tp_store_float4(float4 *to, float4 v)
{
#ifndef TP_EMULATED
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(v.x),
                 "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
#else
    *to = v;
#endif
}

/* Blocks of TP_THREADS for a TP_GRID_LOOP over n items: enough to fill the device, at least one. */
static inline unsigned tp_cuda_blocks(const tp_call *c, int64_t n)
{
    const int64_t wanted = (n + TP_THREADS - 1) / TP_THREADS,
                  most = (int64_t)tp_queue_of(c)->multiprocessors * (2048 / TP_THREADS);
    return (unsigned)(wanted < 1 ? 1 : (wanted < most ? wanted : most));
}

/* Every i of [0, n), spread over the whole grid. */
#define TP_GRID_LOOP(i, n)                                                                                   \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                                \
         i += (int64_t)gridDim.x * blockDim.x)

/* ---- reductions: the tree is the same whatever the order in which lanes, warps and blocks run ---- */

struct tp_sum_of {
    template <typename T> __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};

/* NaN wins, as in the loops of the CPU. */
struct tp_max_of {
    template <typename T> __device__ T operator()(T a, T b) const
    {
        return b > a || b != b ? b : a;
    }
};

/* Every lane of the warp gets the result; every lane must call. */
template <typename T, typename F> __device__ inline T tp_warp_reduce(T v, F f)
{
    for (int k = TP_WARP / 2; k > 0; k /= 2)
        v = f(v, __shfl_xor_sync(TP_ALL_LANE, v, k));
    return v;
}

/* Every thread of a block of whole warps gets the result; every thread must call. */
template <typename T, typename F> __device__ inline T tp_block_reduce(T v, F f)
{
    TP_SHARED(T, part, [TP_WARP]);
    const unsigned lane = threadIdx.x % TP_WARP, warp = threadIdx.x / TP_WARP, warps = blockDim.x / TP_WARP;

    v = tp_warp_reduce(v, f);
    __syncthreads(); /* of an earlier call nobody reads any more */
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    v = part[0];
    for (unsigned k = 1; k < warps; k++)
        v = f(v, part[k]);
    return v;
}

template <typename T> __device__ inline T tp_block_sum(T v)
{
    return tp_block_reduce(v, tp_sum_of());
}

template <typename T> __device__ inline T tp_block_max(T v)
{
    return tp_block_reduce(v, tp_max_of());
}

/* ---- what is stored ---- */

/* Kernels that compute in float32 are templates of how their tensors are stored: float, or uint16_t for
 * bfloat16. */
__device__ inline float tp_load(const float *p, int64_t i)
{
    return p[i];
}
__device__ inline float tp_load(const uint16_t *p, int64_t i)
{
    return tp_bf16_to_f32(p[i]);
}
__device__ inline void tp_store(float *p, int64_t i, float v)
{
    p[i] = v;
}
__device__ inline void tp_store(uint16_t *p, int64_t i, float v)
{
    p[i] = tp_bf16_from_f32(v);
}

template <typename T> static inline const T *tp_in_as(const tp_call *c, int i)
{
    return static_cast<const T *>(c->in[i].data);
}
template <typename T> static inline T *tp_out_as(const tp_call *c, int i)
{
    return static_cast<T *>(c->out[i].data);
}

/* run<T>(c) for how input 0 is stored. */
#define TP_AS_STORED(run, c) ((c)->in[0].dtype == TP_BF16 ? run<uint16_t>(c) : run<float>(c))

/* ---- tables ---- */

/* Integer elements whatever their dtype: ids, labels, rows. */
__host__ __device__ inline int64_t tp_load_int(const void *data, tp_dtype dtype, int64_t i)
{
    switch (dtype) {
    case TP_I64:
        return static_cast<const int64_t *>(data)[i];
    case TP_I32:
        return static_cast<const int32_t *>(data)[i];
    case TP_I16:
        return static_cast<const int16_t *>(data)[i];
    case TP_I8:
        return static_cast<const int8_t *>(data)[i];
    case TP_U64:
        return static_cast<int64_t>(static_cast<const uint64_t *>(data)[i]);
    case TP_U32:
        return static_cast<const uint32_t *>(data)[i];
    case TP_U16:
        return static_cast<const uint16_t *>(data)[i];
    default:
        return static_cast<const uint8_t *>(data)[i];
    }
}

/* TP_CUDA_IMPLS(op, &impl, ...): the ordered list of an op, fastest first; one for every op of TP_OPS. */
#define TP_CUDA_IMPLS(op, ...)                                                                               \
    extern "C" const tp_impl *const tp_cuda_##op[];                                                          \
    const tp_impl *const tp_cuda_##op[] = {__VA_ARGS__, nullptr}

#endif
