/* cuda_emu.h - the part of CUDA that Temper's .cu files use, on the CPU, for tests.
 *
 * Force-included before a .cu file that is compiled as C++. Every CUDA thread of a block is a fiber of one OS
 * thread and runs until it waits for others, in an order that a test chooses (emu_schedule); blocks run one
 * after another in such an order too. Shared memory is a heap block of its own for each block, filled with
 * NaN, so that AddressSanitizer sees an overrun and an unwritten read shows. Barriers know their place in the
 * source. Work on a stream is done as late as the API allows; in an odd order (emu_schedule) that of every
 * stream but the first is done as early as it can be. Several threads may call. Of several GPUs each has its
 * own memory, streams and events: a stream takes work only from a thread whose current GPU is its own (CUDA
 * asks that of launches only), and only on its GPU's memory. It says nothing about time, tensor-core
 * arithmetic or the memory model of a GPU. */
#ifndef TP_TESTS_CUDA_EMU_H
#define TP_TESTS_CUDA_EMU_H
#define TP_EMULATED 1
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__

/* ---- types ---- */

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorStreamCaptureInvalidated = 901
};

typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_exec *cudaGraphExec_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};

/* ---- runtime ---- */

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end);

/* ---- inside a kernel ---- */

namespace emu
{
struct where {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern const where *here; /* of the CUDA thread that runs */

void barrier(const char *file, int line);
/* Gives this lane's value and returns the warp's 32, after every lane has given one at the same place. */
const uint64_t *exchange(unsigned mask, uint64_t value, const char *file, int line);
unsigned lane();
void *shared(const void *key, size_t bytes);
void *dyn_shared();
/* What stands for /proc/driver/nvidia/version: the file that TEMPER_EMU_DRIVER_FILE names. */
const char *driver_file();

void launch_kernel(const char *name, dim3 grid, dim3 block, size_t bytes, cudaStream_t stream,
                   std::function<void()> body);

/* For the emulated libraries: work of theirs; the GPU that is current in this thread; ends the process unless
 * it is the one that the thing belongs to. */
void run_on_stream(cudaStream_t stream, std::function<void()> work);
int device();
void expect_device(int device, const char *thing);
/* Calls of libraries are calls of the runtime: each asks whether it has to fail. */
bool library_fails(const char *call);

template <typename... P, typename... A>
inline void launch(const char *name, dim3 grid, dim3 block, size_t bytes, cudaStream_t stream,
                   void (*kernel)(P...), A... args)
{
    launch_kernel(name, grid, block, bytes, stream, [=] { kernel(static_cast<P>(args)...); });
}

template <typename T> inline uint64_t pack(T v)
{
    static_assert(sizeof(T) <= 8, "a lane passes at most 8 bytes");
    uint64_t raw = 0;
    std::memcpy(&raw, &v, sizeof(T));
    return raw;
}
template <typename T> inline T unpack(uint64_t raw)
{
    T v;
    std::memcpy(&v, &raw, sizeof(T));
    return v;
}

template <typename T> inline T shfl(unsigned mask, T v, unsigned from, const char *file, int line)
{
    const uint64_t *all = exchange(mask, pack(v), file, line);
    return unpack<T>(all[from % 32]);
}
inline unsigned ballot(unsigned mask, bool v, const char *file, int line)
{
    const uint64_t *all = exchange(mask, v, file, line);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; i++)
        bits |= all[i] != 0 ? 1u << i : 0u;
    return bits;
}
/* A race between threads would show to ThreadSanitizer, hence real atomics. There is none for floats. */
template <typename T> inline T atomic_add(T *p, T v)
{
    static_assert(std::is_integral<T>::value, "float atomics depend on the order of the threads");
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
template <typename T> inline T atomic_max(T *p, T v)
{
    static_assert(std::is_integral<T>::value, "float atomics depend on the order of the threads");
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v > old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
} // namespace emu

#define threadIdx (emu::here->thread)
#define blockIdx  (emu::here->block)
#define blockDim  (emu::here->block_dim)
#define gridDim   (emu::here->grid_dim)

#define __syncthreads()             emu::barrier(__FILE__, __LINE__)
#define __syncwarp(...)             ((void)emu::exchange(0xffffffffu, 0, __FILE__, __LINE__))
#define __shfl_sync(mask, v, from)  emu::shfl(mask, v, (unsigned)(from), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, v, k) emu::shfl(mask, v, emu::lane() ^ (unsigned)(k), __FILE__, __LINE__)
#define __shfl_down_sync(mask, v, k)                                                                         \
    emu::shfl(mask, v, emu::lane() + (unsigned)(k) < 32 ? emu::lane() + (unsigned)(k) : emu::lane(),         \
              __FILE__, __LINE__)
#define __shfl_up_sync(mask, v, k)                                                                           \
    emu::shfl(mask, v, emu::lane() >= (unsigned)(k) ? emu::lane() - (unsigned)(k) : emu::lane(), __FILE__,   \
              __LINE__)
#define __ballot_sync(mask, v) emu::ballot(mask, (v) != 0, __FILE__, __LINE__)
#define __any_sync(mask, v)    (emu::ballot(mask, (v) != 0, __FILE__, __LINE__) != 0)
#define __all_sync(mask, v)    (emu::ballot(mask, (v) != 0, __FILE__, __LINE__) == 0xffffffffu)
#define atomicAdd(p, v)        emu::atomic_add(p, v)
#define atomicMax(p, v)        emu::atomic_max(p, v)
#define __popc(v)              __builtin_popcount(v)
#define __float_as_uint(v)     emu::unpack<uint32_t>(emu::pack<float>(v))
#define __uint_as_float(v)     emu::unpack<float>(emu::pack<uint32_t>(v))

/* One address per declaration is its key. */
#define TP_SHARED(T, name, dims)                                                                             \
    static const char name##_key = 0;                                                                        \
    typedef T name##_type dims;                                                                              \
    name##_type &name = *static_cast<name##_type *>(emu::shared(&name##_key, sizeof(name##_type)))
#define TP_DYN_SHARED(T, name) T *name = static_cast<T *>(emu::dyn_shared())
#define TP_LAUNCH(kernel, grid, block, bytes, c, ...)                                                        \
    do {                                                                                                     \
        emu::launch(#kernel, (grid), (block), (bytes), tp_queue_of(c)->stream, (kernel), __VA_ARGS__);       \
        TP_TRY(tp_cuda_check(cudaGetLastError(), #kernel));                                                  \
    } while (0)

/* ---- for the tests ---- */

#define EMU_MAX_DEVICES 8

extern "C" {
/* The order in which blocks and lanes run: 0 ascending, 1 descending, others a shuffle seeded by it, in which
 * one warp of a block is slow: it runs only when no other can. */
__attribute__((visibility("default"))) void emu_schedule(uint64_t which);
/* Call number n of the runtime from now on returns error; sticky errors stay. 0 turns it off. */
__attribute__((visibility("default"))) void emu_fail_at(uint64_t n, int error);
/* The call that was made to fail; "" if it has not come to that. */
__attribute__((visibility("default"))) const char *emu_failed(void);
/* Calls of runtime and libraries, what of the device is alive, and synchronisations so far. */
__attribute__((visibility("default"))) uint64_t emu_calls(void);
__attribute__((visibility("default"))) uint64_t emu_alive(void);
__attribute__((visibility("default"))) uint64_t emu_syncs(void);
/* There are n GPUs, at most EMU_MAX_DEVICES; GPU k has k + 1 multiprocessors. */
__attribute__((visibility("default"))) void emu_devices(int n);
/* The GPU that is current in this thread. */
__attribute__((visibility("default"))) int emu_device(void);
}

#endif
