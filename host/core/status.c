#include "temper/status.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char last_error[1024];
static tp_log_fn log_fn;
static void *log_user;

static const struct {
    const char *name;
    int exit_code;
} status_table[] = {
    [TP_OK] = {"TP_OK", 0},
    [TP_EGATE] = {"TP_EGATE", 10},
    [TP_EDIVERGED] = {"TP_EDIVERGED", 11},
    [TP_EINVAL] = {"TP_EINVAL", 64},
    [TP_ESHAPE] = {"TP_ESHAPE", 64},
    [TP_EDATA] = {"TP_EDATA", 65},
    [TP_ENOENT] = {"TP_ENOENT", 66},
    [TP_EDEVICE] = {"TP_EDEVICE", 69},
    [TP_EUNSUP] = {"TP_EUNSUP", 69},
    [TP_ENOMEM] = {"TP_ENOMEM", 69},
    [TP_EINTERNAL] = {"TP_EINTERNAL", 70},
    [TP_ECREATE] = {"TP_ECREATE", 73},
    [TP_EBUSY] = {"TP_EBUSY", 73},
    [TP_EIO] = {"TP_EIO", 74},
    [TP_ESTOPPED] = {"TP_ESTOPPED", 75},
    [TP_ERECIPE] = {"TP_ERECIPE", 78},
};

const char *tp_last_error(void)
{
    return last_error;
}

const char *tp_status_name(tp_status st)
{
    return (unsigned)st < sizeof(status_table) / sizeof(status_table[0]) ? status_table[st].name
                                                                         : "unknown status";
}

int tp_status_exit_code(tp_status st)
{
    return (unsigned)st < sizeof(status_table) / sizeof(status_table[0]) ? status_table[st].exit_code : 70;
}

tp_status tp_error_set(tp_status st, const char *file, int line, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_error, sizeof(last_error), format, args);
    va_end(args);
    tp_log_line(TP_LOG_DEBUG, "%s:%d: %s: %s", file, line, tp_status_name(st), last_error);
    return st;
}

void tp_log_set(tp_log_fn fn, void *user)
{
    log_fn = fn;
    log_user = user;
}

void tp_log_line(tp_log_level level, const char *format, ...)
{
    char text[1200];
    va_list args;

    if (log_fn == NULL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_fn(log_user, level, text);
}

void tp_text_free(char *text)
{
    free(text);
}
