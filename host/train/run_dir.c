/* run_dir.c - the run directory: recipe.yaml, metrics.jsonl, log.txt, checkpoints/, manifest.json, lock. */
#include "host/core/io.h"
#include "host/core/mem.h"
#include "host/train/run_parts.h"
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

tp_status tp_run_path(const tp_run *u, char *out, const char *format, int64_t step)
{
    char name[128];
    snprintf(name, sizeof(name), format, (long long)step);
    TP_CHECK(snprintf(out, TP_RUN_PATH, "%s/%s", u->o->out, name) < TP_RUN_PATH, TP_ECREATE,
             "%.100s...: the path is too long", u->o->out);
    return TP_OK;
}

static tp_status open_log(tp_run *u, const char *name, const char *mode, FILE **out)
{
    char path[TP_RUN_PATH];
    TP_TRY(tp_run_path(u, path, name, 0));
    *out = fopen(path, mode);
    TP_CHECK(*out != NULL, TP_ECREATE, "%s: %s", path, strerror(errno));
    return TP_OK;
}

/* A new run must not find another one's; one that goes on must find its own. */
static tp_status check_run(tp_run *u)
{
    char path[TP_RUN_PATH];

    if (u->o->resume) {
        if (tp_run_has_checkpoint(u)) /* it is a run's: what is passed over goes into its log */
            TP_TRY(open_log(u, "log.txt", "a", &u->log));
        return tp_run_find_checkpoint(u);
    }
    TP_TRY(tp_run_path(u, path, "model.safetensors", 0));
    TP_CHECK(access(path, F_OK) != 0 && !tp_run_has_checkpoint(u), TP_ECREATE,
             "%s: holds a run already: go on with --resume, or choose another --out", u->o->out);
    return TP_OK;
}

tp_status tp_run_check_dir(tp_run *u)
{
    if (u->o->out == NULL)
        return TP_OK;
    if (access(u->o->out, F_OK) == 0)
        TP_TRY(tp_io_lock(u->o->out, &u->lock));
    else
        TP_CHECK(!u->o->resume, TP_ENOENT, "%s: no such run directory", u->o->out);
    return check_run(u);
}

/* What a process that was killed was writing. */
static void remove_temps(const tp_run *u, const char *folder, const char *prefix)
{
    char path[TP_RUN_PATH];
    DIR *d = tp_run_path(u, path, folder, 0) == TP_OK ? opendir(path) : NULL;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && strstr(e->d_name, ".safetensors.tmp-") != NULL)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        closedir(d);
}

static tp_status write_recipe(tp_run *u)
{
    char path[TP_RUN_PATH], *text = NULL;

    TP_TRY(tp_run_path(u, path, "recipe.yaml", 0));
    if (u->o->resume && access(path, F_OK) == 0)
        return TP_OK;
    TP_TRY(tp_recipe_text(u->r, &text));
    const tp_status st = tp_io_replace(path, text, strlen(text));
    tp_text_free(text);
    return st;
}

tp_status tp_run_open_dir(tp_run *u)
{
    char path[TP_RUN_PATH];

    if (u->o->out == NULL)
        return TP_OK;
    if (u->lock < 0) {
        TP_TRY(tp_io_mkdir(u->o->out));
        TP_TRY(tp_io_lock(u->o->out, &u->lock));
        TP_TRY(check_run(u));
    }
    TP_TRY(tp_run_path(u, path, "checkpoints", 0));
    TP_TRY(tp_io_mkdir(path));
    remove_temps(u, "checkpoints", "gen-");
    remove_temps(u, ".", "model");
    TP_TRY(write_recipe(u));
    return u->log != NULL ? TP_OK : open_log(u, "log.txt", "a", &u->log);
}

/* Step of a line of metrics.jsonl; -1: it is no whole report. */
static int64_t step_of(const char *line, size_t length)
{
    json_t *o = json_loadb(line, length, 0, NULL);
    const json_t *step = json_object_get(o, "step");
    const int64_t at = json_is_integer(step) ? json_integer_value(step) : -1;

    json_decref(o);
    return at;
}

/* Drops the reports of steps that will be taken again. */
static tp_status trim_metrics(const char *path, int64_t step)
{
    unsigned char *bytes = NULL;
    size_t n = 0, kept = 0;

    const tp_status st = tp_io_read(path, &bytes, &n);
    if (st == TP_ENOENT)
        return TP_OK;
    TP_TRY(st);
    char *text = (char *)bytes;
    for (size_t at = 0, end; at < n; at = end) {
        const char *newline = memchr(text + at, '\n', n - at);
        end = newline != NULL ? (size_t)(newline - text) + 1 : n;
        const int64_t of = newline != NULL ? step_of(text + at, end - at) : -1;
        if (of < 0 || of > step)
            break;
        kept = end;
    }
    const tp_status written = kept == n ? TP_OK : tp_io_replace(path, text, kept);
    tp_free(bytes);
    return written;
}

tp_status tp_run_open_metrics(tp_run *u, int64_t step)
{
    char path[TP_RUN_PATH];

    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_run_path(u, path, "metrics.jsonl", 0));
    if (u->o->resume)
        TP_TRY(trim_metrics(path, step));
    return open_log(u, "metrics.jsonl", u->o->resume ? "a" : "w", &u->metrics);
}

static void log_line(tp_run *u, const char *text)
{
    char when[32];
    struct tm t;
    const time_t now = time(NULL);

    if (u->log == NULL || gmtime_r(&now, &t) == NULL)
        return;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &t);
    fprintf(u->log, "%s %s\n", when, text);
    fflush(u->log);
}

static void say(tp_run *u, int aloud, const char *format, va_list args)
{
    char text[2 * TP_RUN_PATH];

    vsnprintf(text, sizeof(text), format, args);
    log_line(u, text);
    if (aloud)
        tp_log_line(TP_LOG_WARNING, "%s", text);
}

void tp_run_note(tp_run *u, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(u, 0, format, args);
    va_end(args);
}

void tp_run_warn(tp_run *u, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(u, 1, format, args);
    va_end(args);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *part_json(const tp_run_part *p)
{
    json_t *o = json_object();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(o, p->names[i], number(p->values[i]));
    return o;
}

tp_status tp_run_log_report(tp_run *u, const tp_run_report *rep)
{
    if (u->metrics == NULL)
        return TP_OK;
    json_t *o = json_pack("{s:I, s:I, s:f, s:o, s:o, s:f, s:f, s:o}", "step", (json_int_t)rep->step, "epoch",
                          (json_int_t)rep->epoch, "lr", rep->lr, "loss", number(rep->loss), "grad_norm",
                          number(rep->grad_norm), "seconds", rep->seconds, "samples_per_second",
                          rep->samples_per_second, "validation", part_json(&rep->validation));
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(o);
    TP_CHECK(line != NULL, TP_ENOMEM, "step %lld: no memory for its report", (long long)rep->step);
    const int written = fprintf(u->metrics, "%s\n", line) >= 0 && fflush(u->metrics) == 0;
    free(line);
    TP_CHECK(written, TP_EIO, "%s/metrics.jsonl: the report of step %lld: %s", u->o->out,
             (long long)rep->step, strerror(errno));
    tp_run_note(u, "step %lld of %lld, loss %.6g", (long long)rep->step, (long long)rep->total_steps,
                rep->loss);
    return TP_OK;
}

tp_status tp_run_write_manifest(tp_run *u)
{
    char path[TP_RUN_PATH];
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o}", "temper", "0.1.0",
                          "device", u->result->device, "device_note", u->result->device_note, "precision",
                          u->result->precision, "data_hash", u->result->data_hash, "weights_hash",
                          u->result->weights_hash, "steps", (json_int_t)u->result->steps, "seed",
                          (json_int_t)u->r->train.seed, "seconds", u->result->seconds, "validation",
                          part_json(&u->result->validation), "test", part_json(&u->result->test));
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(o);
    TP_CHECK(text != NULL, TP_ENOMEM, "manifest: no memory");
    tp_status st = tp_run_path(u, path, "manifest.json", 0);
    if (st == TP_OK)
        st = tp_io_replace(path, text, strlen(text));
    free(text);
    return st;
}
