/* libraries.cu - opens cuBLASLt and cuDNN. */
#include "kernels/libraries.cuh"
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

template <typename L> static int use(tp_opened<L> *o, int (*open)(L *, char *, size_t))
{
    if (!o->tried) {
        o->tried = 1;
        o->works = open(&o->library, o->why, sizeof(o->why));
    }
    return o->works;
}

void tp_libraries_close(tp_libraries *l)
{
    if (l->cublaslt.works)
        (void)l->cublaslt.library.cublasLtDestroy(l->cublaslt.library.handle);
    if (l->cudnn.works)
        (void)l->cudnn.library.cudnnDestroy(l->cudnn.library.handle);
}

tp_status tp_cublaslt_get(const tp_call *c, const tp_cublaslt **out)
{
    tp_opened<tp_cublaslt> *o = &tp_queue_of(c)->libraries->cublaslt;

    TP_CUDA(cudaSetDevice(tp_queue_of(c)->index));
    TP_CHECK(use(o, open_cublaslt), TP_EUNSUP, "%s", o->why);
    *out = &o->library;
    return TP_OK;
}

tp_status tp_cudnn_get(const tp_call *c, const tp_cudnn **out)
{
    tp_opened<tp_cudnn> *o = &tp_queue_of(c)->libraries->cudnn;

    TP_CUDA(cudaSetDevice(tp_queue_of(c)->index));
    TP_CHECK(use(o, open_cudnn), TP_EUNSUP, "%s", o->why);
    *out = &o->library;
    return TP_OK;
}

void tp_libraries_describe(tp_libraries *l, char *blas_text, size_t blas_size, char *dnn_text,
                           size_t dnn_size)
{
    if (use(&l->cublaslt, open_cublaslt)) {
        const size_t v = l->cublaslt.library.cublasLtGetVersion(); /* 10000 major + 100 minor + patch */
        snprintf(blas_text, blas_size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    } else
        snprintf(blas_text, blas_size, "%s", l->cublaslt.why);
    if (use(&l->cudnn, open_cudnn)) {
        const size_t v = l->cudnn.library.cudnnGetVersion(); /* the same since version 9 */
        snprintf(dnn_text, dnn_size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    } else
        snprintf(dnn_text, dnn_size, "%s", l->cudnn.why);
}

/* ---- choices ---- */

#define KEY_BYTES  384
#define PATH_BYTES 4096

/* The folder is made if it is not there. */
static int choices_path(char *path, int make)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;

    if (cache != nullptr && cache[0] == '/')
        n = snprintf(path, PATH_BYTES, "%s/temper", cache);
    else if (home != nullptr && home[0] == '/')
        n = snprintf(path, PATH_BYTES, "%s/.cache/temper", home);
    else
        return 0;
    if (n + 16 > PATH_BYTES)
        return 0;
    for (char *slash = strchr(path + 1, '/'); make && slash != nullptr; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    if (make)
        (void)mkdir(path, 0700);
    snprintf(path + n, PATH_BYTES - (size_t)n, "/algorithms");
    return 1;
}

/* A line: 128 hexadecimal digits, a space, the key. */
static int read_choice(const char *line, const char *key, unsigned char *choice)
{
    if (strlen(line) < 2 * TP_CHOICE_BYTES + 1 || strcmp(line + 2 * TP_CHOICE_BYTES + 1, key) != 0)
        return 0;
    for (int i = 0; i < TP_CHOICE_BYTES; i++) {
        unsigned byte;
        if (sscanf(line + 2 * i, "%2x", &byte) != 1)
            return 0;
        choice[i] = (unsigned char)byte;
    }
    return 1;
}

/* The last one kept counts: it was made when the library did not take those before it any more. */
int tp_choice_find(const char *key, unsigned char *choice)
{
    char path[PATH_BYTES], line[2 * TP_CHOICE_BYTES + KEY_BYTES];
    FILE *f = choices_path(path, 0) ? fopen(path, "re") : nullptr;
    int found = 0;

    while (f != nullptr && fgets(line, sizeof(line), f) != nullptr) {
        line[strcspn(line, "\n")] = '\0';
        found |= read_choice(line, key, choice);
    }
    if (f != nullptr)
        (void)fclose(f);
    return found;
}

/* One write to the end of the file: lines of several processes do not mix. */
void tp_choice_keep(const char *key, const unsigned char *choice)
{
    char path[PATH_BYTES], line[2 * TP_CHOICE_BYTES + KEY_BYTES];
    const size_t length = strlen(key);
    size_t n = 0;

    if (length + 3 > KEY_BYTES || !choices_path(path, 1))
        return;
    for (int i = 0; i < TP_CHOICE_BYTES; i++)
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%02x", choice[i]);
    n += (size_t)snprintf(line + n, sizeof(line) - n, " %s\n", key);
    const int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    while (write(file, line, n) < 0 && errno == EINTR) {
    }
    (void)close(file);
}
