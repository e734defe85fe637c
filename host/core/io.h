/* io.h - the seam for files the library writes: whole, durable, or not at all. */
#ifndef TP_CORE_IO_H
#define TP_CORE_IO_H
#include "temper/status.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The whole file in fresh memory (tp_free), one 0 byte after it. Errors: TP_ENOENT, TP_EIO, TP_ENOMEM. */
tp_status tp_io_read(const char *path, unsigned char **bytes, size_t *n) TP_MUST_USE;

/* Makes path hold exactly these bytes: temporary file, write, fsync, read back and compare, rename, fsync of
 * the folder. On failure the temporary file is gone and path is as it was, or, if only the fsync of the
 * folder failed, new; a failed fsync is never tried again on the same file. Errors: TP_ECREATE (the temporary
 * file), TP_EIO. */
tp_status tp_io_replace(const char *path, const void *bytes, size_t n) TP_MUST_USE;

/* Makes a folder and its parents; an existing one is fine. Errors: TP_ECREATE. */
tp_status tp_io_mkdir(const char *path) TP_MUST_USE;

/* Takes the lock of a folder (file `lock` in it, an open-file-description lock that ends with the process)
 * and leaves its descriptor in *fd; close it to let go. Errors: TP_EBUSY naming the holder, TP_ECREATE. */
tp_status tp_io_lock(const char *folder, int *fd) TP_MUST_USE;

/* Tests: the n-th operation of this file from now on fails with this errno; 0 turns it off. Operations so
 * far. */
void tp_io_fail_at(uint64_t n, int error);
uint64_t tp_io_count(void);

#ifdef __cplusplus
}
#endif
#endif
