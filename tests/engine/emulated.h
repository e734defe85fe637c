/* emulated.h - the GPU that the tests run on: the module that TEMPER_TEST_CUDA_MODULE names, by default the
 * emulated one (tests/emu), and the handles by which a test steers that. On a real GPU the handles are NULL.
 */
#ifndef TP_TESTS_EMULATED_H
#define TP_TESTS_EMULATED_H
#include "temper/device.h"
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <string>

/* From here on this process opens GPUs through the module of the tests. */
inline const char *use_test_module()
{
    const char *named = std::getenv("TEMPER_TEST_CUDA_MODULE"),
               *file = named != nullptr ? named : TEMPER_EMULATED_MODULE;
    setenv("TEMPER_CUDA_MODULE", file, 1);
    setenv("XDG_CACHE_HOME", "/dev/null", 1); /* choices of the tests are nobody else's */
    return file;
}

template <typename F> inline F emulated_symbol(const char *name)
{
    static void *library = dlopen(use_test_module(), RTLD_NOW | RTLD_LOCAL);
    return reinterpret_cast<F>(dlsym(library, name));
}

/* The order in which blocks and lanes run. */
inline void set_schedule(uint64_t which)
{
    static const auto set = emulated_symbol<void (*)(uint64_t)>("emu_schedule");
    if (set != nullptr)
        set(which);
}

/* Call number n of the CUDA runtime from now on fails; 0 for none. */
inline void set_failure(uint64_t n, int error)
{
    emulated_symbol<void (*)(uint64_t, int)>("emu_fail_at")(n, error);
}

/* The name of the call that was made to fail: of the runtime, or of a library. */
inline std::string failed_call()
{
    return emulated_symbol<const char *(*)()>("emu_failed")();
}

/* A call that gives something back: if it fails, nothing that anyone waits for is wrong. */
inline bool gives_back(const std::string &call)
{
    return call == "cudaFree" || call == "cudaFreeHost" || call.find("Destroy") != std::string::npos;
}

/* After the first eleven, says driver_types.h, the process must be terminated; so after 226 and 911, but
 * those need more than one GPU or another device; of 214, 220 and 999 it does not say what is left. */
constexpr int lost_errors[] = {700, 702, 710, 714, 715, 716, 717, 718,
                               719, 721, 810, 226, 911, 214, 220, 999};
const char *const lost_words = "the GPU is lost to this process";

/* "emu_calls", "emu_alive" (allocations, streams, events, graphs), "emu_syncs". */
inline uint64_t emulated_count(const char *what)
{
    return emulated_symbol<uint64_t (*)()>(what)();
}

inline bool is_emulated()
{
    return emulated_symbol<void *>("emu_schedule") != nullptr;
}

inline tp_device *gpu()
{
    static tp_device *dev = nullptr;
    if (dev == nullptr) {
        use_test_module();
        EXPECT_EQ(tp_device_open(&dev, "cuda"), TP_OK) << tp_last_error();
    }
    return dev;
}

#endif
