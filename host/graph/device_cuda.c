/* device_cuda.c - finds libtemper_cuda.so and opens a GPU through it. Where it looks: the file that
 * TEMPER_CUDA_MODULE names, and nothing else if it names one; else beside libtemper; else where the dynamic
 * loader looks. */
#include "host/core/mem.h"
#include "host/graph/cuda_module.h"
#include "host/graph/plan.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULE "libtemper_cuda.so"

static tp_status module_error(tp_status st, const char *file, int line, const char *text)
{
    return tp_error_set(st, file, line, "%s", text);
}

static tp_cuda_host host = {0, module_error, tp_last_error, tp_alloc, tp_free};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const tp_cuda_module *module;
static char why[TP_DEVICE_TEXT / 2];

/* The file in libtemper's own folder, or "" if there is none. */
static void beside(char *path, size_t size)
{
    Dl_info info;

    path[0] = '\0';
    if (dladdr((const void *)&host, &info) == 0 || strrchr(info.dli_fname, '/') == NULL)
        return;
    const int folder = (int)(strrchr(info.dli_fname, '/') - info.dli_fname);
    snprintf(path, size, "%.*s/%s", folder, info.dli_fname, MODULE);
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        path[0] = '\0';
    else
        fclose(f);
}

static void load(void)
{
    const char *named = getenv("TEMPER_CUDA_MODULE");
    char path[4096];
    const tp_cuda_module *(*get)(const tp_cuda_host *) = NULL;

    beside(path, sizeof(path));
    const char *file = named != NULL ? named : (path[0] != '\0' ? path : MODULE);
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(why, sizeof(why), "no GPU: no module: %.200s", dlerror());
        return;
    }
    void *symbol = dlsym(library, TP_CUDA_MODULE_SYMBOL);
    memcpy(&get, &symbol, sizeof(get));
    host.abi = tp_cuda_module_abi;
    module = get != NULL ? get(&host) : NULL;
    if (module == NULL)
        snprintf(why, sizeof(why), "no GPU: module %.150s is not of this version of Temper", file);
}

tp_status tp_cuda_module_load(const tp_cuda_module **out)
{
    pthread_once(&once, load);
    TP_CHECK(module != NULL, TP_EDEVICE, "%s", why);
    *out = module;
    return TP_OK;
}

/* The module, if it has GPU number index. */
static tp_status find(const tp_cuda_module **m, int index)
{
    int n = 0;

    TP_TRY(tp_cuda_module_load(m));
    TP_TRY((*m)->count(&n));
    TP_CHECK(index >= 0 && index < n, TP_EDEVICE, "device 'cuda:%d' is not there: %d GPUs answer", index, n);
    return TP_OK;
}

tp_status tp_device_cuda_open(tp_device *dev, int index)
{
    const tp_cuda_module *m = NULL;

    TP_TRY(find(&m, index));
    return m->open(dev, index);
}

tp_status tp_device_gpu_count(int *out)
{
    const tp_cuda_module *m = NULL;

    *out = 0;
    TP_TRY(tp_cuda_module_load(&m));
    return m->count(out);
}

tp_status tp_device_gpu_info(int index, tp_device_info *out)
{
    const tp_cuda_module *m = NULL;

    TP_TRY(find(&m, index));
    return m->describe(index, out);
}
