/* device_cuda.cu - the module libtemper_cuda.so: memory, copies and running plans on a GPU.
 *
 * A plan is captured once as a CUDA graph; running it is one launch. What is run many times in a row is
 * captured a second time, unrolled, so that a launch carries several steps. Plans go onto one stream, so
 * program order is execution order; copies in and out have one more each. */
#include "host/core/mem.h"
#include "host/graph/cuda_module.h"
#include "host/graph/plan.h"
#include "kernels/libraries.cuh"
#include <cctype>
#include <cstdarg>
#include <cstdio>
#include <cstring>

/* ---- what the module borrows from libtemper ---- */

static const tp_cuda_host *host;

tp_status tp_error_set(tp_status st, const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return host->error(st, file, line, text);
}

const char *tp_last_error(void)
{
    return host->last_error();
}

tp_status tp_alloc(void *out_pointer, size_t count, size_t size, const char *what)
{
    return host->alloc(out_pointer, count, size, what);
}

void tp_free(void *p)
{
    host->free(p);
}

/* ---- errors ---- */

/* After these the process cannot use the device any more: those of which driver_types.h says that the process
 * must be terminated, and three (214, 220, 999) of which it does not say what is left. */
static int is_sticky(cudaError_t e)
{
    switch (static_cast<int>(e)) {
    case 214: /* uncorrectable ECC */
    case 220: /* uncorrectable NVLink */
    case 226: /* contained */
    case 700: /* illegal address */
    case 702: /* launch timeout */
    case 710: /* assert */
    case 714: /* hardware stack */
    case 715: /* illegal instruction */
    case 716: /* misaligned address */
    case 717: /* invalid address space */
    case 718: /* invalid program counter */
    case 719: /* launch failure */
    case 721: /* tensor memory leak */
    case 810: /* MPS client terminated */
    case 911: /* external device */
    case 999: /* unknown */
        return 1;
    default:
        return 0;
    }
}

tp_status tp_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return TP_OK;
    (void)cudaGetLastError();
    TP_FAIL(error == cudaErrorMemoryAllocation ? TP_ENOMEM : TP_EDEVICE, "cuda: %s: %s (error %d)%s", what,
            cudaGetErrorString(error), static_cast<int>(error),
            is_sticky(error) ? "; the GPU is lost to this process" : "");
}

tp_status tp_cuda_check_alive(const char *what)
{
    size_t left, total;
    const cudaError_t e = cudaMemGetInfo(&left, &total); /* allowed while a stream is captured */

    if (is_sticky(e))
        return tp_cuda_check(e, what);
    (void)cudaGetLastError();
    return TP_OK;
}

/* ---- a device ---- */

struct cuda_context {
    tp_cuda_queue queue;
    tp_libraries libraries;          /* the queue's */
    cudaStream_t streams[TP_QUEUES]; /* the first is the queue's */
    cudaEvent_t marks[TP_DEVICE_MARKS];
    char device[192]; /* the queue's */
};

static cuda_context *context_of(tp_device *dev)
{
    return static_cast<cuda_context *>(dev->ctx);
}

/* Every call begins with this: in the thread that makes it another GPU may be current. */
static cudaError_t make_current(tp_device *dev)
{
    return cudaSetDevice(context_of(dev)->queue.index);
}

static tp_status out_of_memory(size_t bytes, const char *what)
{
    size_t left = 0, total = 0;

    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&left, &total);
    TP_FAIL(TP_ENOMEM, "cuda: no memory for %s: %zu bytes asked, %zu of %zu free", what, bytes, left, total);
}

static tp_status cuda_alloc(tp_device *dev, void **out, size_t bytes, const char *what)
{
    const size_t asked = bytes > 0 ? bytes : TP_WARP;
    *out = nullptr;
    TP_TRY(tp_cuda_check(make_current(dev), what));
    const cudaError_t e = cudaMalloc(out, asked);

    if (e == cudaErrorMemoryAllocation)
        return out_of_memory(asked, what);
    TP_TRY(tp_cuda_check(e, what));
    tp_status st = tp_cuda_check(cudaMemsetAsync(*out, 0, asked, context_of(dev)->queue.stream), what);
    if (st == TP_OK) /* the other queues do not follow this one */
        st = tp_cuda_check(cudaStreamSynchronize(context_of(dev)->queue.stream), what);
    if (st != TP_OK) {
        (void)cudaFree(*out);
        *out = nullptr;
    }
    return st;
}

static void cuda_release(tp_device *dev, void *p)
{
    (void)make_current(dev);
    (void)cudaFree(p);
}

static tp_status copy(tp_device *dev, void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    cudaStream_t stream = context_of(dev)->queue.stream;

    TP_CUDA(make_current(dev));
    TP_CUDA(cudaMemcpyAsync(dst, src, bytes, kind, stream));
    TP_CUDA(cudaStreamSynchronize(stream));
    return TP_OK;
}

static tp_status cuda_upload(tp_device *dev, void *dst, const void *src, size_t bytes)
{
    return copy(dev, dst, src, bytes, cudaMemcpyHostToDevice);
}

static tp_status cuda_download(tp_device *dev, void *dst, const void *src, size_t bytes)
{
    return copy(dev, dst, src, bytes, cudaMemcpyDeviceToHost);
}

static tp_status cuda_memory(tp_device *dev, size_t *free_bytes, size_t *total)
{
    TP_CUDA(make_current(dev));
    TP_CUDA(cudaMemGetInfo(free_bytes, total));
    return TP_OK;
}

static tp_status cuda_host_alloc(tp_device *dev, void **out, size_t bytes, const char *what)
{
    const size_t asked = bytes > 0 ? bytes : TP_WARP;

    *out = nullptr;
    TP_TRY(tp_cuda_check(make_current(dev), what));
    const cudaError_t e = cudaHostAlloc(out, asked, cudaHostAllocDefault);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        TP_FAIL(TP_ENOMEM, "cuda: no pinned host memory for %s: %zu bytes asked", what, asked);
    }
    TP_TRY(tp_cuda_check(e, what));
    memset(*out, 0, asked);
    return TP_OK;
}

static void cuda_host_release(tp_device *dev, void *p)
{
    (void)make_current(dev);
    (void)cudaFreeHost(p);
}

static tp_status cuda_enqueue_copy(tp_device *dev, tp_queue queue, void *dst, const void *src, size_t bytes,
                                   tp_direction direction)
{
    const cudaMemcpyKind kind = direction == TP_TO_DEVICE     ? cudaMemcpyHostToDevice
                                : direction == TP_FROM_DEVICE ? cudaMemcpyDeviceToHost
                                                              : cudaMemcpyDeviceToDevice;

    TP_CUDA(make_current(dev));
    TP_CUDA(cudaMemcpyAsync(dst, src, bytes, kind, context_of(dev)->streams[queue]));
    return TP_OK;
}

static tp_status cuda_mark(tp_device *dev, tp_queue queue, int mark)
{
    TP_CUDA(make_current(dev));
    TP_CUDA(cudaEventRecord(context_of(dev)->marks[mark], context_of(dev)->streams[queue]));
    return TP_OK;
}

static tp_status cuda_follow(tp_device *dev, tp_queue queue, int mark)
{
    TP_CUDA(make_current(dev));
    TP_CUDA(cudaStreamWaitEvent(context_of(dev)->streams[queue], context_of(dev)->marks[mark], 0));
    return TP_OK;
}

static tp_status cuda_await(tp_device *dev, int mark)
{
    TP_CUDA(make_current(dev));
    TP_CUDA(cudaEventSynchronize(context_of(dev)->marks[mark]));
    return TP_OK;
}

/* ---- running a plan ---- */

/* A plan as a graph: once, and `length` times in a row. */
struct captured {
    cudaGraphExec_t once, many;
    int64_t length;
};

static tp_status walk(tp_plan *p)
{
    for (int i = 0; i < p->n_steps; i++)
        if (p->steps[i].impl != nullptr)
            TP_TRY(p->steps[i].impl->run(&p->steps[i].call));
    return TP_OK;
}

/* How many bytes a graph asks for the runtime does not say. */
static tp_status check_graph(cudaError_t e, const tp_plan *p, int64_t times, const char *what)
{
    size_t left = 0, total = 0;

    if (e != cudaErrorMemoryAllocation)
        return tp_cuda_check(e, what);
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&left, &total);
    TP_FAIL(TP_ENOMEM, "cuda: no memory for the graph of a plan: %lld times %d steps, %zu of %zu bytes free",
            static_cast<long long>(times), p->n_steps, left, total);
}

static tp_status capture(tp_device *dev, tp_plan *p, int64_t times, cudaGraphExec_t *out)
{
    cudaStream_t stream = context_of(dev)->queue.stream;
    cudaGraph_t graph = nullptr;
    tp_status st = TP_OK;

    /* Relaxed: a library may load its kernels when it is first called. */
    TP_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    for (int64_t i = 0; i < times && st == TP_OK; i++)
        st = walk(p);
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    if (st == TP_OK)
        st = tp_cuda_check(ended, "capture of a plan");
    else
        (void)cudaGetLastError(); /* that the capture failed too is nothing for the next plan to report */
    if (st == TP_OK)
        st = check_graph(cudaGraphInstantiate(out, graph, 0), p, times, "instantiation of a plan");
    if (graph != nullptr)
        (void)cudaGraphDestroy(graph);
    return st;
}

/* The longest row asked for is kept as one graph; a shorter one is launched step by step. */
static tp_status ready(tp_device *dev, tp_plan *p, int64_t times)
{
    if (p->captured == nullptr)
        TP_TRY(tp_alloc(&p->captured, 1, sizeof(captured), "captured plan"));
    captured *c = static_cast<captured *>(p->captured);
    if (c->once == nullptr)
        TP_TRY(capture(dev, p, 1, &c->once));
    if (times > c->length && times > 1) {
        if (c->many != nullptr)
            (void)cudaGraphExecDestroy(c->many);
        c->many = nullptr;
        c->length = 0;
        TP_TRY(capture(dev, p, times, &c->many));
        c->length = times;
    }
    return TP_OK;
}

/* With times or poison every step is launched by itself. */
static tp_status poison_dead(tp_plan *p, const tp_step *s, cudaStream_t stream)
{
    for (int i = 0; i < s->n_dying; i++) {
        const tp_slot *slot = &p->slots[p->dying[s->first_dying + i]];
        TP_CUDA(cudaMemsetAsync(p->arena + slot->offset, 0xff, slot->bytes, stream));
    }
    return TP_OK;
}

static tp_status timed_step(tp_step *s, cudaStream_t stream, cudaEvent_t start, cudaEvent_t end)
{
    float ms = 0.0f;

    TP_CUDA(cudaEventRecord(start, stream));
    TP_TRY(s->impl->run(&s->call));
    TP_CUDA(cudaEventRecord(end, stream));
    TP_CUDA(cudaEventSynchronize(end));
    TP_CUDA(cudaEventElapsedTime(&ms, start, end));
    s->seconds = static_cast<double>(ms) * 1e-3;
    return TP_OK;
}

static tp_status walk_slowly(tp_plan *p, cudaStream_t stream, cudaEvent_t start, cudaEvent_t end)
{
    if (p->opts.poison)
        TP_CUDA(cudaMemsetAsync(p->arena, 0xff, p->arena_bytes, stream));
    for (int i = 0; i < p->n_steps; i++) {
        tp_step *s = &p->steps[i];
        if (s->impl != nullptr)
            TP_TRY(p->opts.timed ? timed_step(s, stream, start, end) : s->impl->run(&s->call));
        if (p->opts.poison)
            TP_TRY(poison_dead(p, s, stream));
    }
    return TP_OK;
}

static tp_status run_slowly(tp_device *dev, tp_plan *p, int64_t times)
{
    cudaEvent_t start = nullptr, end = nullptr;
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_cuda_check(cudaEventCreate(&start), "event"), st, done);
    TP_TRY_GOTO(tp_cuda_check(cudaEventCreate(&end), "event"), st, done);
    for (int64_t i = 0; i < times && st == TP_OK; i++)
        st = walk_slowly(p, context_of(dev)->queue.stream, start, end);
done:
    if (start != nullptr)
        (void)cudaEventDestroy(start);
    if (end != nullptr)
        (void)cudaEventDestroy(end);
    return st;
}

static tp_status cuda_run(tp_device *dev, tp_plan *p, int64_t times)
{
    cudaStream_t stream = context_of(dev)->queue.stream;

    TP_CUDA(make_current(dev));
    if (p->opts.poison || p->opts.timed)
        return run_slowly(dev, p, times);
    TP_TRY(ready(dev, p, times));
    const captured *c = static_cast<captured *>(p->captured);
    if (times > 1 && times == c->length) {
        return check_graph(cudaGraphLaunch(c->many, stream), p, times, "launch of a plan");
    }
    for (; times > 0; times--)
        TP_TRY(check_graph(cudaGraphLaunch(c->once, stream), p, 1, "launch of a plan"));
    return TP_OK;
}

static void cuda_forget(tp_device *dev, tp_plan *p)
{
    captured *c = static_cast<captured *>(p->captured);

    if (c == nullptr)
        return;
    (void)make_current(dev);
    if (c->once != nullptr)
        (void)cudaGraphExecDestroy(c->once);
    if (c->many != nullptr)
        (void)cudaGraphExecDestroy(c->many);
    tp_free(c);
    p->captured = nullptr;
}

/* ---- implementations ---- */

#define DECLARE(op) extern "C" const tp_impl *const tp_cuda_##op[];
TP_OPS(DECLARE)
#undef DECLARE

static const struct {
    const char *op;
    const tp_impl *const *impls;
} table[] = {
#define ENTRY(op) {#op, tp_cuda_##op},
    TP_OPS(ENTRY)
#undef ENTRY
};

static const tp_impl *const *cuda_impls(const tp_op *op)
{
    for (const auto &entry : table)
        if (strcmp(entry.op, op->name) == 0)
            return entry.impls;
    return nullptr;
}

/* ---- opening ---- */

static void stop(cuda_context *ctx)
{
    for (cudaStream_t stream : ctx->streams)
        if (stream != nullptr)
            (void)cudaStreamSynchronize(stream);
    tp_libraries_close(&ctx->libraries);
    for (cudaEvent_t mark : ctx->marks)
        if (mark != nullptr)
            (void)cudaEventDestroy(mark);
    for (cudaStream_t stream : ctx->streams)
        if (stream != nullptr)
            (void)cudaStreamDestroy(stream);
}

static void cuda_close(tp_device *dev)
{
    cuda_context *ctx = context_of(dev);

    (void)make_current(dev);
    stop(ctx);
    tp_free(ctx);
}

static const tp_device_ops cuda_ops = {cuda_alloc,  cuda_release,    cuda_upload,       cuda_download,
                                       cuda_memory, cuda_host_alloc, cuda_host_release, cuda_enqueue_copy,
                                       cuda_mark,   cuda_follow,     cuda_await,        cuda_run,
                                       cuda_forget, cuda_impls,      cuda_close};

static tp_status count(int *out)
{
    int driver = 0;

    *out = 0;
    const cudaError_t e = cudaGetDeviceCount(out);
    if (e == cudaErrorInsufficientDriver) {
        (void)cudaGetLastError();
        (void)cudaDriverGetVersion(&driver);
        TP_CHECK(driver != 0, TP_EDEVICE, "no GPU: no NVIDIA driver");
        TP_FAIL(TP_EDEVICE, "no GPU: the NVIDIA driver is too old: it knows CUDA %d.%d, 13.0 is wanted",
                driver / 1000, driver % 1000 / 10);
    }
    if (e == cudaErrorNoDevice) {
        (void)cudaGetLastError();
        *out = 0;
        TP_FAIL(TP_EDEVICE, "no GPU: the NVIDIA driver finds none");
    }
    TP_CHECK(e != cudaErrorMemoryAllocation, TP_EDEVICE, "no GPU: out of memory before any was counted");
    TP_TRY(tp_cuda_check(e, "device count"));
    TP_CHECK(*out > 0, TP_EDEVICE, "no GPU: the NVIDIA driver finds none");
    return TP_OK;
}

/* A GPU that has no room for another process is one that is not there. */
static tp_status no_room(int index)
{
    size_t left = 0, total = 0;

    const int known = cudaSetDevice(index) == cudaSuccess && cudaMemGetInfo(&left, &total) == cudaSuccess;
    (void)cudaGetLastError();
    TP_CHECK(known, TP_EDEVICE, "no GPU: out of memory on cuda:%d (it does not say what is free)", index);
    TP_FAIL(TP_EDEVICE, "no GPU: out of memory on cuda:%d (%zu of %zu bytes free)", index, left, total);
}

#ifndef TP_EMULATED
#define DRIVER_FILE "/proc/driver/nvidia/version"
#else
#define DRIVER_FILE emu::driver_file()
#endif

/* The first word with a point in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Sep 23
 * ...". */
static void read_driver_build(char *build, size_t size)
{
    char line[256] = "", *rest = nullptr;
    FILE *f = fopen(DRIVER_FILE, "re");

    build[0] = '\0';
    if (f == nullptr)
        return;
    if (fgets(line, sizeof(line), f) == nullptr)
        line[0] = '\0';
    (void)fclose(f);
    for (char *word = strtok_r(line, " \t\n", &rest); word != nullptr && build[0] == '\0';
         word = strtok_r(nullptr, " \t\n", &rest))
        if (isdigit(static_cast<unsigned char>(word[0])) && strchr(word, '.') != nullptr)
            snprintf(build, size, "%s", word);
}

/* "580.159.04 (CUDA 13.0)", or "CUDA 13.0" where the build is not known. */
static const char *driver_text(const tp_device_info *info, char *text, size_t size)
{
    const int known = info->driver_build[0] != '\0';

    snprintf(text, size, "%s%sCUDA %d.%d%s", info->driver_build, known ? " (" : "", info->driver / 1000,
             info->driver % 1000 / 10, known ? ")" : "");
    return text;
}

static tp_status ask_current(int index, tp_device_info *out)
{
    cudaDeviceProp prop;

    memset(out, 0, sizeof(*out));
    TP_CUDA(cudaGetDeviceProperties(&prop, index));
    TP_CUDA(cudaDriverGetVersion(&out->driver));
    TP_CUDA(cudaRuntimeGetVersion(&out->runtime));
    read_driver_build(out->driver_build, sizeof(out->driver_build));
    snprintf(out->name, sizeof(out->name), "%s", prop.name);
    out->capability = 10 * prop.major + prop.minor;
    out->multiprocessors = prop.multiProcessorCount;
    TP_CUDA(cudaMemGetInfo(&out->free_bytes, &out->memory_bytes));
    return TP_OK;
}

/* Makes a GPU current and asks it what it is. */
static tp_status ask(int index, tp_device_info *out)
{
    tp_status st = tp_cuda_check(cudaSetDevice(index), "choice of a GPU");

    if (st == TP_OK)
        st = ask_current(index, out);
    return st == TP_ENOMEM ? no_room(index) : st;
}

/* Leaves the GPU current that was. */
static tp_status describe(int index, tp_device_info *out)
{
    tp_libraries libraries = {};
    int before = 0;

    TP_CUDA(cudaGetDevice(&before));
    const tp_status st = ask(index, out);
    if (st == TP_OK) {
        tp_libraries_describe(&libraries, out->cublaslt, sizeof(out->cublaslt), out->cudnn,
                              sizeof(out->cudnn));
        tp_libraries_close(&libraries);
    }
    (void)cudaSetDevice(before);
    return st;
}

static tp_status start(cuda_context *ctx)
{
    for (cudaStream_t &stream : ctx->streams)
        TP_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (cudaEvent_t &mark : ctx->marks)
        TP_CUDA(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming));
    return TP_OK;
}

static tp_status open_device(tp_device *dev, int index)
{
    tp_device_info info;
    cuda_context *ctx = nullptr;
    char driver[64];

    TP_TRY(ask(index, &info));
    TP_TRY(tp_alloc(&ctx, 1, sizeof(*ctx), "device"));
    const tp_status st = start(ctx);
    if (st != TP_OK) {
        stop(ctx);
        tp_free(ctx);
        return st == TP_ENOMEM ? no_room(index) : st;
    }
    (void)driver_text(&info, driver, sizeof(driver));
    snprintf(ctx->device, sizeof(ctx->device), "%.100s, driver %s", info.name, driver);
    ctx->queue = {index, ctx->streams[TP_QUEUE_RUN], info.multiprocessors, ctx->device, &ctx->libraries};
    dev->kind = TP_CUDA;
    dev->ops = &cuda_ops;
    dev->ctx = ctx;
    dev->queue = &ctx->queue;
    dev->multiprocessors = info.multiprocessors;
    snprintf(dev->text, sizeof(dev->text), "cuda:%d: %s, capability %d.%d, %.1f GiB, driver %s", index,
             info.name, info.capability / 10, info.capability % 10,
             static_cast<double>(info.memory_bytes) / (1 << 30), driver);
    return TP_OK;
}

static const tp_cuda_module module = {count, describe, open_device};

const tp_cuda_module *tp_cuda_module_get(const tp_cuda_host *libtemper)
{
    if (libtemper->abi != tp_cuda_module_abi)
        return nullptr;
    host = libtemper;
    return &module;
}
