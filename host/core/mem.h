/* mem.h - checked host allocation. Everything the library takes from the heap goes through here, so that
 * tests can make the k-th call fail. Sizes are count * size with an overflow check; memory is zeroed and
 * TP_ALIGN-byte aligned. */
#ifndef TP_CORE_MEM_H
#define TP_CORE_MEM_H
#include "temper/status.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_ALIGN 256 /* what cuBLASLt takes for granted of a GPU's arena, and more than any CPU asks for */

/* Bytes rounded up to a multiple of TP_ALIGN. */
static inline size_t tp_round_up(size_t bytes)
{
    return (bytes + TP_ALIGN - 1) / TP_ALIGN * TP_ALIGN;
}

/* Zeroed memory for count elements of size bytes, never NULL on TP_OK (also for 0 bytes). Free with tp_free.
 * Errors: TP_ENOMEM naming what and the bytes asked. */
tp_status tp_alloc(void *out_pointer, size_t count, size_t size, const char *what) TP_MUST_USE;

/* Grows *pointer (NULL or from tp_alloc) from old_count to new_count elements; new elements are zero. */
tp_status tp_realloc(void *pointer, size_t old_count, size_t new_count, size_t size, const char *what)
    TP_MUST_USE;

/* A copy of text; NULL text gives NULL. */
tp_status tp_strdup(char **out, const char *text) TP_MUST_USE;

/* printf into fresh memory. */
tp_status tp_format(char **out, const char *format, ...) TP_PRINTF(2, 3) TP_MUST_USE;

void tp_free(void *p); /* NULL is fine */

/* Number of allocations so far in this process (tests assert that a step makes none). */
uint64_t tp_alloc_count(void);

/* The n-th allocation from now fails, and every later one too if sticky; 0 turns it off. For tests. */
void tp_alloc_fail_at(uint64_t n, int sticky);

#ifdef __cplusplus
}
#endif
#endif
