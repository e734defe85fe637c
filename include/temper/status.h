/* status.h - what a fallible function returns, and the one line it leaves behind.
 *
 * Every fallible function returns a tp_status. On failure the calling thread holds one line, without a
 * newline, that names the thing, its value and the limit: read it with tp_last_error(). The line is kept
 * until the next failure of the same thread. The library never prints and never ends the process. */
#ifndef TP_STATUS_H
#define TP_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define TP_API                   __attribute__((visibility("default")))
#define TP_PRINTF(string, first) __attribute__((format(printf, string, first)))
#define TP_MUST_USE              __attribute__((warn_unused_result))

/* The comment gives the exit code of the `temper` command for each status. */
typedef enum tp_status {
    TP_OK = 0,
    TP_EGATE,     /* 10: a gate said no */
    TP_EDIVERGED, /* 11: training diverged; the last good checkpoint is kept */
    TP_EINVAL,    /* 64: an argument is out of its range */
    TP_ESHAPE,    /* 64: shapes or dtypes do not fit the op */
    TP_EDATA,     /* 65: bad input data or model */
    TP_ENOENT,    /* 66: an input was not found */
    TP_EDEVICE,   /* 69: device not available, or lost */
    TP_EUNSUP,    /* 69: the device has no implementation for an op, dtype or shape */
    TP_ENOMEM,    /* 69: memory could not be had, of host or device; the message gives the bytes asked, where
                     known */
    TP_EINTERNAL, /* 70: a bug of ours */
    TP_ECREATE,   /* 73: an output cannot be created */
    TP_EBUSY,     /* 73: another process holds the run directory */
    TP_EIO,       /* 74: reading or writing failed */
    TP_ESTOPPED,  /* 75: stopped on request; the message names the checkpoint to go on from */
    TP_ERECIPE    /* 78: bad recipe */
} tp_status;

/* The last failure of this thread; "" when there was none. Borrowed, valid until the thread's next failure.
 */
TP_API const char *tp_last_error(void);

/* "TP_EDATA" and so on; never NULL. */
TP_API const char *tp_status_name(tp_status st);

/* The exit code of the `temper` command for a status (sysexits.h numbers where they fit). */
TP_API int tp_status_exit_code(tp_status st);

/* Sets this thread's line and returns st. file and line are where the failure was found; they are shown only
 * at log level TP_LOG_DEBUG. Used through TP_CHECK and TP_FAIL. */
TP_API tp_status tp_error_set(tp_status st, const char *file, int line, const char *format, ...)
    TP_PRINTF(4, 5);

/* Fails with a status and a message. */
#define TP_FAIL(st, ...) return (void)tp_error_set((st), __FILE__, __LINE__, __VA_ARGS__), (st)

/* Fails with a status and a message unless cond holds. */
#define TP_CHECK(cond, st, ...)                                                                              \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            TP_FAIL(st, __VA_ARGS__);                                                                        \
    } while (0)

/* Hands a failure on unchanged. */
#define TP_TRY(call)                                                                                         \
    do {                                                                                                     \
        const tp_status tp_try_st = (call);                                                                  \
        if (tp_try_st != TP_OK)                                                                              \
            return tp_try_st;                                                                                \
    } while (0)

/* As TP_TRY and TP_CHECK, for functions that clean up at one label. */
#define TP_TRY_GOTO(call, st, label)                                                                         \
    do {                                                                                                     \
        (st) = (call);                                                                                       \
        if ((st) != TP_OK)                                                                                   \
            goto label;                                                                                      \
    } while (0)
#define TP_CHECK_GOTO(cond, st, label, code, ...)                                                            \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            (st) = tp_error_set((code), __FILE__, __LINE__, __VA_ARGS__);                                    \
            goto label;                                                                                      \
        }                                                                                                    \
    } while (0)

typedef enum tp_log_level { TP_LOG_ERROR, TP_LOG_WARNING, TP_LOG_INFO, TP_LOG_DEBUG } tp_log_level;

/* Called for every log line; the line has no newline. May be called from any thread. */
typedef void (*tp_log_fn)(void *user, tp_log_level level, const char *line);

/* Installs the process-wide log callback; NULL silences the library, which is how it starts. To be called
 * before other threads use the library. */
TP_API void tp_log_set(tp_log_fn fn, void *user);

/* Frees a text the library has given out; NULL is fine. */
TP_API void tp_text_free(char *text);

/* Hands a line, made as printf makes it, to the log callback; one that is longer than 1199 bytes is cut. */
TP_API void tp_log_line(tp_log_level level, const char *format, ...) TP_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
