#include "host/core/mem.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t n_allocs;
static _Atomic uint64_t fail_at;
static _Atomic int fail_sticky;

static int must_fail(void)
{
    const uint64_t n = atomic_fetch_add(&n_allocs, 1) + 1;
    const uint64_t at = atomic_load(&fail_at);
    if (at == 0)
        return 0;
    return atomic_load(&fail_sticky) ? n >= at : n == at;
}

tp_status tp_alloc(void *out_pointer, size_t count, size_t size, const char *what)
{
    void *p = NULL;
    size_t bytes = 0;

    memcpy(out_pointer, &p, sizeof(p));
    TP_CHECK(!__builtin_mul_overflow(count, size, &bytes) && bytes <= SIZE_MAX / 2, TP_ENOMEM,
             "%s: %zu elements of %zu bytes do not fit in memory", what, count, size);
    bytes = tp_round_up(bytes);
    if (bytes == 0)
        bytes = TP_ALIGN;
    if (!must_fail())
        p = aligned_alloc(TP_ALIGN, bytes);
    TP_CHECK(p != NULL, TP_ENOMEM, "%s: no memory for %zu bytes", what, bytes);
    memset(p, 0, bytes);
    memcpy(out_pointer, &p, sizeof(p));
    return TP_OK;
}

tp_status tp_realloc(void *pointer, size_t old_count, size_t new_count, size_t size, const char *what)
{
    void *old = NULL;
    void *grown = NULL;

    memcpy(&old, pointer, sizeof(old));
    TP_TRY(tp_alloc(&grown, new_count, size, what));
    if (old != NULL)
        memcpy(grown, old, (old_count < new_count ? old_count : new_count) * size);
    tp_free(old);
    memcpy(pointer, &grown, sizeof(grown));
    return TP_OK;
}

tp_status tp_strdup(char **out, const char *text)
{
    *out = NULL;
    if (text == NULL)
        return TP_OK;
    TP_TRY(tp_alloc(out, strlen(text) + 1, 1, "string"));
    memcpy(*out, text, strlen(text) + 1);
    return TP_OK;
}

tp_status tp_format(char **out, const char *format, ...)
{
    va_list args;

    *out = NULL;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    TP_CHECK(n >= 0, TP_EINTERNAL, "format '%s' cannot be printed", format);
    TP_TRY(tp_alloc(out, (size_t)n + 1, 1, "string"));
    va_start(args, format);
    vsnprintf(*out, (size_t)n + 1, format, args);
    va_end(args);
    return TP_OK;
}

void tp_free(void *p)
{
    free(p);
}

uint64_t tp_alloc_count(void)
{
    return atomic_load(&n_allocs);
}

void tp_alloc_fail_at(uint64_t n, int sticky)
{
    atomic_store(&fail_sticky, sticky);
    atomic_store(&fail_at, n == 0 ? 0 : atomic_load(&n_allocs) + n);
}
