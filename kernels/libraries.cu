/* libraries.cu - opens cuBLASLt and cuDNN. */
#include "kernels/libraries.cuh"
#include <cstdio>
#include <cstring>
#include <dlfcn.h>

static void *open_library(const char *soname, char *why, size_t size)
{
    void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
        snprintf(why, size, "not used: %.80s", dlerror());
    return library;
}

static int take(void *library, const char *name, void *to, char *why, size_t size)
{
    void *symbol = dlsym(library, name);
    if (symbol == nullptr) {
        snprintf(why, size, "not used: it has no %s", name);
        return 0;
    }
    memcpy(to, &symbol, sizeof(symbol));
    return 1;
}

#define TAKE(name) &&take(library, #name, &l->name, why, size)

static int open_cublaslt(tp_cublaslt *l, char *why, size_t size)
{
    void *library = open_library(TP_CUBLASLT_SONAME, why, size);
    if (library == nullptr)
        return 0;
    if (!(true TP_CUBLASLT_FUNCTIONS(TAKE)))
        return 0;
    const cublasStatus_t st = l->cublasLtCreate(&l->handle);
    if (st != CUBLAS_STATUS_SUCCESS)
        snprintf(why, size, "not used: %s", l->cublasLtGetStatusString(st));
    return st == CUBLAS_STATUS_SUCCESS;
}

static int open_cudnn(tp_cudnn *l, char *why, size_t size)
{
    void *library = open_library(TP_CUDNN_SONAME, why, size);
    if (library == nullptr)
        return 0;
    if (!(true TP_CUDNN_FUNCTIONS(TAKE)))
        return 0;
    const cudnnStatus_t st = l->cudnnCreate(&l->handle);
    if (st != CUDNN_STATUS_SUCCESS)
        snprintf(why, size, "not used: %s", l->cudnnGetErrorString(st));
    return st == CUDNN_STATUS_SUCCESS;
}

/* Opened once; the handles stay until the process ends. */
template <typename L> struct opened {
    L library;
    char why[96];
    int tried, works;
};
static opened<tp_cublaslt> cublaslt;
static opened<tp_cudnn> cudnn;

template <typename L> static int use(opened<L> *o, int (*open)(L *, char *, size_t))
{
    if (!o->tried) {
        o->tried = 1;
        o->works = open(&o->library, o->why, sizeof(o->why));
    }
    return o->works;
}

tp_status tp_cublaslt_get(const tp_cublaslt **out)
{
    TP_CHECK(use(&cublaslt, open_cublaslt), TP_EUNSUP, "%s", cublaslt.why);
    *out = &cublaslt.library;
    return TP_OK;
}

tp_status tp_cudnn_get(const tp_cudnn **out)
{
    TP_CHECK(use(&cudnn, open_cudnn), TP_EUNSUP, "%s", cudnn.why);
    *out = &cudnn.library;
    return TP_OK;
}

void tp_libraries_describe(char *blas_text, size_t blas_size, char *dnn_text, size_t dnn_size)
{
    if (use(&cublaslt, open_cublaslt)) {
        const size_t v = cublaslt.library.cublasLtGetVersion(); /* 10000 major + 100 minor + patch */
        snprintf(blas_text, blas_size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    } else
        snprintf(blas_text, blas_size, "%s", cublaslt.why);
    if (use(&cudnn, open_cudnn)) {
        const size_t v = cudnn.library.cudnnGetVersion(); /* the same since version 9 */
        snprintf(dnn_text, dnn_size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    } else
        snprintf(dnn_text, dnn_size, "%s", cudnn.why);
}
