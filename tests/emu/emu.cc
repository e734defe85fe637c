/* emu.cc - the runtime behind cuda_emu.h: fibers for the threads of a block, and the host calls. */
#include "tests/emu/cuda_emu.h"
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#elif __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define EMU_TSAN 1
#endif

#ifdef EMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace
{

[[noreturn]] void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emulated CUDA: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

/* ---- one block ---- */

const unsigned WARP = 32;
const size_t STACK_BYTES = (size_t)256 << 10;

enum class state { fresh, ready, barrier, warp, done };

struct carrier;

struct thread {
    emu::where at;
    state now;
    unsigned number;
    carrier *on;
    const char *file; /* of the barrier or warp operation it waits at */
    int line;
    void *tsan;
};

/* Where a stack stands. swapcontext costs two system calls for the signal mask, so on x86-64 the registers
 * that a call keeps are changed by hand. */
#if defined(__x86_64__)
struct place {
    void *top;
};

extern "C" void emu_switch_stack(void **from, void *to);
asm(R"(
    .text
    .hidden emu_switch_stack
    .type emu_switch_stack, @function
emu_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch_stack, . - emu_switch_stack
)");

void make_place(place *p, char *stack, size_t bytes, void (*entry)())
{
    void **top = reinterpret_cast<void **>(stack + bytes);
    top[-1] = nullptr; /* where entry would return to; it stands as after a call */
    top[-2] = reinterpret_cast<void *>(entry);
    p->top = top - 8;
}

void change_place(place *from, place *to)
{
    emu_switch_stack(&from->top, to->top);
}
#else
struct place {
    ucontext_t context;
};

void make_place(place *p, char *stack, size_t bytes, void (*entry)())
{
    getcontext(&p->context);
    p->context.uc_stack.ss_sp = stack;
    p->context.uc_stack.ss_size = bytes;
    p->context.uc_link = nullptr;
    makecontext(&p->context, entry, 0);
}

void change_place(place *from, place *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

/* A stack: runs fresh threads one after another until one of them has to wait. */
struct carrier {
    place at;
    char *stack;
    thread *running;
    void *fake; /* AddressSanitizer's */
};

struct warp_state {
    uint64_t slot[2][WARP];
    unsigned arrived, generation;
    const char *file;
    int line;
};

/* Made anew for each block: by those of the one before it would be ordered behind that one. */
struct block_tags {
    char barrier, shared;
};

struct block_run {
    const char *kernel;
    const std::function<void()> *body;
    std::vector<thread> threads;
    std::vector<unsigned> order;
    std::vector<warp_state> warps;
    std::vector<std::pair<const void *, void *>> shared;
    void *dynamic; /* made when it is first asked for */
    size_t dynamic_bytes;
    size_t position;
    unsigned slow; /* a warp that runs only when no other can; none if there is no such warp */
    bool let_slow;
    unsigned at_barrier, left;
    const thread *first; /* at the barrier */
    char start_tag, end_tag;
    std::unique_ptr<block_tags> tags;
};

block_run run;
thread *current;
carrier scheduler;
std::vector<carrier *> &idle =
    *new std::vector<carrier *>(); /* never destroyed, so never lost to a leak check */
uint64_t schedule;

/* ThreadSanitizer takes every CUDA thread for a thread of its own, which happens at the same time as the
 * others but where a barrier or a warp orders them. Thread i of every second block is one such thread with
 * one stack, so that what it leaves there is not taken for a race, and what two blocks that follow each
 * other do is. This file itself is not instrumented. */
#ifdef EMU_TSAN
const unsigned MOST_THREADS = 1024;
void *home;      /* the OS thread that runs the kernel */
unsigned parity; /* of the blocks run so far */
std::vector<void *> &fibers = *new std::vector<void *>();
std::vector<carrier *> &carriers = *new std::vector<carrier *>();
#endif

void tsan_switch(thread *t)
{
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(t != nullptr ? t->tsan : home, __tsan_switch_to_fiber_no_sync);
#else
    (void)t;
#endif
}

void acquire(void *tag)
{
#ifdef EMU_TSAN
    __tsan_acquire(tag);
#else
    (void)tag;
#endif
}

void release(void *tag)
{
#ifdef EMU_TSAN
    __tsan_release(tag);
#else
    (void)tag;
#endif
}

void set_current(thread *t)
{
    current = t;
    emu::here = t != nullptr ? &t->at : nullptr;
    tsan_switch(t);
}

#ifdef EMU_ASAN
const void *scheduler_bottom;
size_t scheduler_size;
#endif

void jump(carrier *from, carrier *to)
{
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to == &scheduler ? scheduler_bottom : to->stack,
                                   to == &scheduler ? scheduler_size : STACK_BYTES);
#endif
    change_place(&from->at, &to->at);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake, from == &scheduler ? nullptr : &scheduler_bottom,
                                    from == &scheduler ? nullptr : &scheduler_size);
#endif
}

bool may_run(const thread *t)
{
    return (t->now == state::fresh || t->now == state::ready) &&
           (run.let_slow || t->number / WARP != run.slow);
}

/* The next thread in the order that has not begun, if the scheduler stands before it. */
thread *next_fresh()
{
#ifdef EMU_TSAN
    return nullptr;
#endif
    if (run.position + 1 >= run.order.size())
        return nullptr;
    thread *t = &run.threads[run.order[run.position + 1]];
    if (t->now != state::fresh || !may_run(t))
        return nullptr;
    run.position++;
    return t;
}

void run_thread(carrier *c, thread *t)
{
    c->running = t;
    t->on = c;
    t->now = state::ready;
    set_current(t);
    acquire(&run.start_tag);
    (*run.body)();
    release(&run.end_tag);
    t->now = state::done;
    run.left--;
}

void carrier_main()
{
    carrier *c = current->on;
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    for (;;) {
        for (thread *t = c->running; t != nullptr; t = next_fresh())
            run_thread(c, t);
        c->running = nullptr;
#ifndef EMU_TSAN
        idle.push_back(c);
#endif
        set_current(nullptr);
        jump(c, &scheduler);
    }
}

carrier *take_carrier(unsigned number)
{
#ifdef EMU_TSAN
    number += parity * MOST_THREADS;
    if (carriers[number] != nullptr)
        return carriers[number];
#endif
    (void)number;
    if (!idle.empty()) {
        carrier *c = idle.back();
        idle.pop_back();
        return c;
    }
    carrier *c = new carrier();
    c->stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (c->stack == MAP_FAILED)
        die("no memory for the stack of a CUDA thread");
    make_place(&c->at, c->stack, STACK_BYTES, carrier_main);
#ifdef EMU_TSAN
    carriers[number] = c;
#endif
    return c;
}

void resume(thread *t)
{
    if (t->now == state::fresh) {
        t->on = take_carrier(t->number);
        t->on->running = t;
        current = t; /* carrier_main finds itself by it */
        jump(&scheduler, t->on);
        return;
    }
    set_current(t);
    jump(&scheduler, t->on);
}

/* The thread gives up the processor until the scheduler takes it up again. */
void wait_here(state why, const char *file, int line)
{
    thread *me = current;
    me->now = why;
    me->file = file;
    me->line = line;
    set_current(nullptr);
    jump(me->on, &scheduler);
}

void report_stuck()
{
    for (const thread &t : run.threads)
        if (t.now == state::barrier || t.now == state::warp)
            fprintf(stderr, "  thread %u waits at %s:%d\n", t.number, t.file, t.line);
    die("%s, block (%u,%u,%u): threads wait for others that never come (%u of %zu have ended)", run.kernel,
        run.threads[0].at.block.x, run.threads[0].at.block.y, run.threads[0].at.block.z,
        (unsigned)run.threads.size() - run.left, run.threads.size());
}

void begin_threads(uint3 block, dim3 grid_dim, dim3 block_dim)
{
    const unsigned n = block_dim.x * block_dim.y * block_dim.z;
    run.threads.assign(n, thread());
    for (unsigned i = 0; i < n; i++) {
        thread &t = run.threads[i];
        t.number = i;
        t.now = state::fresh;
        t.at = {{i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y},
                block,
                block_dim,
                grid_dim};
#ifdef EMU_TSAN
        if (fibers[i + parity * MOST_THREADS] == nullptr)
            fibers[i + parity * MOST_THREADS] = __tsan_create_fiber(0);
        t.tsan = fibers[i + parity * MOST_THREADS];
#endif
    }
    run.warps = std::vector<warp_state>((n + WARP - 1) / WARP); /* anew, as they are tags too */
    run.tags.reset(new block_tags());
    run.at_barrier = 0;
    run.left = n;
    run.slow =
        schedule > 1 ? (unsigned)((schedule + block.x) % run.warps.size()) : (unsigned)run.warps.size();
    run.let_slow = false;
}

void end_threads()
{
    acquire(&run.end_tag);
    for (auto &s : run.shared)
        free(s.second);
    run.shared.clear();
    free(run.dynamic);
    run.dynamic = nullptr;
}

void run_block(uint3 block, dim3 grid_dim, dim3 block_dim, size_t bytes)
{
#ifdef EMU_TSAN
    parity = 1 - parity;
#endif
    begin_threads(block, grid_dim, block_dim);
    run.dynamic_bytes = bytes;
    while (run.left > 0) {
        bool moved = false;
        for (run.position = 0; run.position < run.order.size(); run.position++) {
            thread *t = &run.threads[run.order[run.position]];
            if (!may_run(t))
                continue;
            moved = true;
            resume(t);
        }
        if (!moved && run.let_slow)
            report_stuck();
        run.let_slow = !moved;
    }
    end_threads();
}

std::vector<unsigned> ordered(unsigned n, uint64_t salt)
{
    std::vector<unsigned> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (schedule == 1)
        std::reverse(order.begin(), order.end());
    if (schedule > 1) {
        std::mt19937_64 rng(schedule * 1000003u + salt);
        std::shuffle(order.begin(), order.end(), rng);
    }
    return order;
}

void run_kernel(const char *name, dim3 grid, dim3 block, size_t bytes, const std::function<void()> &body)
{
    static uint64_t launches = 0;

    if (run.body != nullptr)
        die("%s: a kernel inside a kernel", name);
    run.kernel = name;
    run.body = &body;
    run.order = ordered(block.x * block.y * block.z, ++launches);
#ifdef EMU_TSAN
    home = __tsan_get_current_fiber();
    fibers.resize(2 * MOST_THREADS);
    carriers.resize(2 * MOST_THREADS);
#endif
    release(&run.start_tag);
    for (unsigned b : ordered(grid.x * grid.y * grid.z, launches))
        run_block({b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y}, grid, block, bytes);
    run.body = nullptr;
}

} // namespace

/* ---- what kernels call ---- */

const emu::where *emu::here;

unsigned emu::lane()
{
    return current->number % WARP;
}

/* Two places in the source. A name is mostly one address, and comparing letters for each thread took a third
 * of the time of the tests. */
static bool differs(const char *file, int line, const char *other_file, int other_line)
{
    return line != other_line || (file != other_file && strcmp(file, other_file) != 0);
}

void emu::barrier(const char *file, int line)
{
    if (run.at_barrier == 0)
        run.first = current;
    const thread *first = run.first;
    if (first != current && differs(first->file, first->line, file, line))
        die("%s: thread %u waits at %s:%d, thread %u at %s:%d", run.kernel, first->number, first->file,
            first->line, current->number, file, line);
    release(&run.tags->barrier);
    if (++run.at_barrier < run.threads.size())
        wait_here(state::barrier, file, line);
    else {
        run.at_barrier = 0;
        for (thread &t : run.threads)
            if (t.now == state::barrier)
                t.now = state::ready;
    }
    acquire(&run.tags->barrier);
}

const uint64_t *emu::exchange(unsigned mask, uint64_t value, const char *file, int line)
{
    warp_state &w = run.warps[current->number / WARP];
    const unsigned me = current->number % WARP;

    if (mask != 0xffffffffu || run.threads.size() % WARP != 0)
        die("%s:%d: a warp operation without all 32 lanes", file, line);
    if (w.arrived != 0 && differs(w.file, w.line, file, line))
        die("%s: lanes of one warp are at %s:%d and %s:%d", run.kernel, w.file, w.line, file, line);
    w.file = file;
    w.line = line;
    const unsigned generation = w.generation;
    w.slot[generation % 2][me] = value;
    w.arrived |= 1u << me;
    release(&w);
    if (w.arrived != 0xffffffffu)
        wait_here(state::warp, file, line);
    else {
        w.arrived = 0;
        w.generation++;
        const unsigned first = current->number - me;
        for (unsigned i = first; i < first + WARP; i++)
            if (run.threads[i].now == state::warp)
                run.threads[i].now = state::ready;
    }
    acquire(&w);
    return w.slot[generation % 2];
}

void *emu::shared(const void *key, size_t bytes)
{
    acquire(&run.tags->shared);
    for (auto &s : run.shared)
        if (s.first == key)
            return s.second;
    void *p = aligned_alloc(16, (bytes + 15) / 16 * 16);
#ifdef EMU_ASAN
    free(p);
    p = malloc(bytes); /* to the byte, so that an overrun is seen */
#endif
    memset(p, 0xff, bytes);
    run.shared.emplace_back(key, p);
    release(&run.tags->shared);
    return p;
}

void *emu::dyn_shared()
{
    if (run.dynamic_bytes == 0)
        die("%s: dynamic shared memory was not asked for", run.kernel);
    acquire(&run.tags->shared);
    if (run.dynamic == nullptr) {
        run.dynamic = malloc(run.dynamic_bytes);
        memset(run.dynamic, 0xff, run.dynamic_bytes);
        release(&run.tags->shared);
    }
    return run.dynamic;
}

/* ---- the runtime ---- */

struct emu_event {
    int device = 0;
    uint64_t done_at = 0, wanted = 0; /* times recorded: done, asked for */
    emu_stream *stream = nullptr;     /* of the last time */
};
struct emu_graph {
    std::vector<std::function<void()>> work;
    bool invalid = false; /* a launch that failed while it was captured */
};
struct emu_exec {
    std::vector<std::function<void()>> work;
};
struct emu_work {
    std::function<void()> run;
    emu_event *after = nullptr; /* waits until this has been reached so many times */
    uint64_t times = 0;
};
struct emu_stream {
    int device = 0;
    std::deque<emu_work> queue;
    emu_graph *capture = nullptr;
};

namespace
{

struct block_of_memory {
    size_t bytes;
    int device;
};

struct runtime {
    uint64_t calls = 0, alive = 0, syncs = 0;
    uint64_t fail_at = 0;
    int fail_with = 0;
    const char *failed = ""; /* the call that was made to fail */
    cudaError_t sticky = cudaSuccess;
    std::recursive_mutex mutex;                                  /* held by every call */
    size_t limit = (size_t)16 << 30, used[EMU_MAX_DEVICES] = {}; /* of each GPU */
    int devices = 1, driver = 13000;
    std::map<const void *, block_of_memory> blocks;
    std::vector<emu_stream *> streams;

    runtime()
    {
        const char *fail = getenv("TEMPER_EMU_FAIL"), *memory = getenv("TEMPER_EMU_MEMORY"),
                   *count = getenv("TEMPER_EMU_DEVICES"), *order = getenv("TEMPER_EMU_SCHEDULE"),
                   *version = getenv("TEMPER_EMU_DRIVER");
        unsigned long long n = 0;
        if (fail != nullptr && sscanf(fail, "%llu:%d", &n, &fail_with) == 2)
            fail_at = n;
        if (memory != nullptr)
            limit = strtoull(memory, nullptr, 10);
        if (count != nullptr)
            devices = std::min(atoi(count), EMU_MAX_DEVICES);
        if (version != nullptr)
            driver = atoi(version);
        if (order != nullptr)
            schedule = strtoull(order, nullptr, 10);
    }
};

runtime &rt()
{
    static runtime *r = new runtime(); /* never destroyed: callers may outlive static objects */
    return *r;
}

/* In the thread's own block of memory: LeakSanitizer takes some addresses of blocks made later for its own.
 */
__attribute__((tls_model("initial-exec"))) thread_local cudaError_t last = cudaSuccess;
__attribute__((tls_model("initial-exec"))) thread_local int current_device = 0;

#define LOCK() const std::lock_guard<std::recursive_mutex> lock_(rt().mutex)

/* Those after which driver_types.h says that the process must be terminated, and 214, 220, 999. */
bool is_sticky(int e)
{
    static const int lost[] = {214, 220, 226, 700, 702, 710, 714, 715,
                               716, 717, 718, 719, 721, 810, 911, 999};
    return std::find(std::begin(lost), std::end(lost), e) != std::end(lost);
}

/* Every call begins here: what it has to fail with, if anything. */
cudaError_t enter(const char *call = __builtin_FUNCTION())
{
    runtime &r = rt();
    r.calls++;
    if (r.sticky != cudaSuccess)
        return last = r.sticky;
    if (r.fail_at != 0 && r.calls == r.fail_at) {
        r.failed = call;
        if (is_sticky(r.fail_with)) {
            r.sticky = static_cast<cudaError_t>(r.fail_with);
            for (emu_stream *s : r.streams) /* a lost device does nothing more */
                s->queue.clear();
        }
        return last = static_cast<cudaError_t>(r.fail_with);
    }
    return cudaSuccess;
}

#define ENTER()                                                                                              \
    LOCK();                                                                                                  \
    do {                                                                                                     \
        const cudaError_t e_ = enter();                                                                      \
        if (e_ != cudaSuccess)                                                                               \
            return e_;                                                                                       \
    } while (0)

/* May this thread give the stream work? */
bool is_current(const emu_stream *s)
{
    return s->device == current_device;
}

#define ENTER_STREAM(stream)                                                                                 \
    ENTER();                                                                                                 \
    do {                                                                                                     \
        if (!is_current(stream))                                                                             \
            return last = cudaErrorInvalidResourceHandle;                                                    \
    } while (0)

/* Host memory, or memory of the stream's own GPU? */
bool is_reached_by(const emu_stream *s, const void *p)
{
    auto after = rt().blocks.upper_bound(p);
    if (after == rt().blocks.begin())
        return true;
    const auto &block = *--after;
    return static_cast<const char *>(p) >= static_cast<const char *>(block.first) + block.second.bytes ||
           block.second.device == s->device;
}

void reach(const emu_event *event, uint64_t times);

void work_off_one(emu_stream *s)
{
    const emu_work w = std::move(s->queue.front());
    s->queue.pop_front();
    if (w.after != nullptr)
        reach(w.after, w.times);
    else
        w.run();
}

/* Does what the event waits for and no more. What it was recorded behind was asked for before it, so streams
 * that follow each other's events cannot wait in a circle. */
void reach(const emu_event *event, uint64_t times)
{
    while (event->done_at < times && !event->stream->queue.empty())
        work_off_one(event->stream);
}

void drain(emu_stream *s)
{
    while (!s->queue.empty())
        work_off_one(s);
}

void drain_all()
{
    for (emu_stream *s : rt().streams)
        drain(s);
}

/* Every stream but the first, up to what waits for it. */
void hurry()
{
    for (size_t i = 1; i < rt().streams.size(); i++) {
        emu_stream *s = rt().streams[i];
        while (!s->queue.empty() && (s->queue.front().after == nullptr ||
                                     s->queue.front().after->done_at >= s->queue.front().times))
            work_off_one(s);
    }
}

void submit(emu_stream *s, emu_work w)
{
    if (s == nullptr)
        die("the default stream is not used here");
    if (s->capture != nullptr && w.after != nullptr)
        die("a captured stream follows an event");
    if (s->capture != nullptr)
        s->capture->work.push_back(std::move(w.run));
    else if (rt().sticky == cudaSuccess)
        s->queue.push_back(std::move(w));
    if (schedule % 2 == 1)
        hurry();
}

} // namespace

void emu::launch_kernel(const char *name, dim3 grid, dim3 block, size_t bytes, cudaStream_t stream,
                        std::function<void()> body)
{
    const uint64_t threads = (uint64_t)block.x * block.y * block.z,
                   blocks = (uint64_t)grid.x * grid.y * grid.z;

    LOCK();
    if (enter() != cudaSuccess) {
        if (stream->capture != nullptr)
            stream->capture->invalid = true;
        return;
    }
    if (threads == 0 || threads > 1024 || blocks == 0 || grid.y > 65535 || grid.z > 65535 ||
        bytes > 227 * 1024) {
        last = cudaErrorInvalidConfiguration;
        return;
    }
    if (!is_current(stream)) {
        last = cudaErrorInvalidResourceHandle;
        return;
    }
    submit(stream, {[=] { run_kernel(name, grid, block, bytes, body); }});
}

void emu::run_on_stream(cudaStream_t stream, std::function<void()> work)
{
    LOCK();
    expect_device(stream->device, "a stream");
    submit(stream, {std::move(work)});
}

/* A library has a CUDA runtime of its own: its error is not the caller's last one. */
bool emu::library_fails(const char *call)
{
    LOCK();
    const cudaError_t before = last;
    const bool fails = enter(call) != cudaSuccess;
    last = before;
    return fails;
}

const char *emu::driver_file()
{
    const char *file = getenv("TEMPER_EMU_DRIVER_FILE");
    return file != nullptr ? file : "";
}

int emu::device()
{
    return current_device;
}

void emu::expect_device(int device, const char *thing)
{
    if (device != current_device)
        die("%s of GPU %d is used while GPU %d is current", thing, device, current_device);
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    default:
        return "emulated failure";
    }
}
cudaError_t cudaGetLastError()
{
    LOCK();
    const cudaError_t e = last;
    last = rt().sticky;
    return e;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    ENTER();
    *version = rt().driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    ENTER();
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count)
{
    ENTER();
    if (rt().driver < 13000)
        return last = cudaErrorInsufficientDriver;
    *count = rt().devices;
    return rt().devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device)
{
    ENTER();
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    ENTER();
    if (device < 0 || device >= rt().devices)
        return last = cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    ENTER();
    memset(prop, 0, sizeof(*prop));
    snprintf(prop->name, sizeof(prop->name), "emulated on the CPU");
    prop->totalGlobalMem = rt().limit;
    prop->major = 9;
    prop->minor = 0;
    prop->multiProcessorCount = device + 1;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    ENTER();
    *free_bytes = rt().limit - rt().used[current_device];
    *total = rt().limit;
    return cudaSuccess;
}

/* Not zeroed: whoever reads what was not written shows it. */
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    ENTER();
    if (bytes > rt().limit - rt().used[current_device])
        return last = cudaErrorMemoryAllocation;
    *p = malloc(bytes > 0 ? bytes : 1);
    memset(*p, 0xff, bytes);
    rt().blocks[*p] = {bytes, current_device};
    rt().used[current_device] += bytes;
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    LOCK();
    if (p == nullptr)
        return cudaSuccess;
    drain_all();
    auto at = rt().blocks.find(p);
    if (at == rt().blocks.end())
        die("cudaFree of what is not device memory");
    rt().used[at->second.device] -= at->second.bytes;
    rt().alive--;
    rt().blocks.erase(at);
    free(p);
    return enter();
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    ENTER();
    (void)flags;
    *p = malloc(bytes > 0 ? bytes : 1);
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    LOCK();
    if (p == nullptr)
        return cudaSuccess;
    drain_all();
    rt().alive--;
    free(p);
    return enter();
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    ENTER_STREAM(stream);
    (void)kind;
    if (!is_reached_by(stream, dst) || !is_reached_by(stream, src))
        return last = cudaErrorInvalidValue;
    submit(stream, {[=] { memcpy(dst, src, bytes); }});
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    ENTER_STREAM(stream);
    if (!is_reached_by(stream, dst))
        return last = cudaErrorInvalidValue;
    submit(stream, {[=] { memset(dst, value, bytes); }});
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    ENTER();
    (void)flags;
    *stream = new emu_stream();
    (*stream)->device = current_device;
    rt().streams.push_back(*stream);
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    LOCK();
    drain(stream);
    rt().streams.erase(std::find(rt().streams.begin(), rt().streams.end(), stream));
    delete stream;
    rt().alive--;
    return enter();
}
/* One that fails has waited all the same: a copy from memory that is not pinned is done when the call
 * returns. */
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    LOCK();
    const cudaError_t e = enter();
    if (stream->capture != nullptr)
        die("a synchronisation during capture");
    rt().syncs++;
    drain(stream);
    return e;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    ENTER_STREAM(stream);
    (void)mode;
    stream->capture = new emu_graph();
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    LOCK();
    *graph = stream->capture;
    stream->capture = nullptr;
    cudaError_t e = enter();
    if (e == cudaSuccess && (*graph)->invalid)
        e = last = cudaErrorStreamCaptureInvalidated;
    if (e != cudaSuccess) {
        delete *graph;
        *graph = nullptr;
        rt().alive--;
    }
    return e;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    ENTER();
    (void)flags;
    *exec = new emu_exec{graph->work};
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    LOCK();
    delete graph;
    rt().alive--;
    return enter();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    LOCK();
    drain_all();
    delete exec;
    rt().alive--;
    return enter();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    ENTER_STREAM(stream);
    submit(stream, {[=] {
               for (auto &f : exec->work)
                   f();
           }});
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    ENTER();
    *event = new emu_event();
    (*event)->device = current_device;
    rt().alive++;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    LOCK();
    drain_all();
    delete event;
    rt().alive--;
    return enter();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    ENTER_STREAM(stream);
    if (event->device != stream->device)
        return last = cudaErrorInvalidResourceHandle;
    const uint64_t wanted = ++event->wanted;
    event->stream = stream;
    submit(stream, {[=] { event->done_at = wanted; }});
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    ENTER_STREAM(stream);
    (void)flags;
    if (event->wanted > 0)
        submit(stream, {[] {}, event, event->wanted});
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    LOCK();
    const cudaError_t e = enter();
    rt().syncs++;
    if (event->wanted > 0)
        reach(event, event->wanted);
    return e;
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    ENTER();
    return event->done_at < event->wanted ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    ENTER();
    (void)start, (void)end;
    *ms = 0.0f; /* the emulation has no clock */
    return cudaSuccess;
}

void emu_schedule(uint64_t which)
{
    schedule = which;
}
void emu_fail_at(uint64_t n, int error)
{
    LOCK();
    rt().calls = 0;
    rt().fail_at = n;
    rt().fail_with = error;
    rt().failed = "";
    rt().sticky = last = cudaSuccess;
}
uint64_t emu_calls(void)
{
    LOCK();
    return rt().calls;
}
const char *emu_failed(void)
{
    LOCK();
    return rt().failed;
}
uint64_t emu_alive(void)
{
    LOCK();
    return rt().alive;
}
uint64_t emu_syncs(void)
{
    LOCK();
    return rt().syncs;
}
void emu_devices(int n)
{
    LOCK();
    rt().devices = n;
    current_device = 0;
}
int emu_device(void)
{
    return current_device;
}
