/* run_dir.c - the run directory: recipe.yaml, metrics.jsonl, log.txt, checkpoints/, manifest.json, lock. */
#include "host/core/io.h"
#include "host/train/run_parts.h"
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

static tp_status open_log(tp_run *u, const char *name, FILE **out)
{
    char path[TP_RUN_PATH];
    TP_TRY(tp_run_path(u, path, name, 0));
    *out = fopen(path, "a");
    TP_CHECK(*out != NULL, TP_ECREATE, "%s: cannot be opened", path);
    return TP_OK;
}

tp_status tp_run_open_dir(tp_run *u)
{
    char path[TP_RUN_PATH], *text = NULL;

    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_io_mkdir(u->o->out));
    TP_TRY(tp_io_lock(u->o->out, &u->lock));
    TP_TRY(tp_run_path(u, path, "checkpoints", 0));
    TP_TRY(tp_io_mkdir(path));
    TP_TRY(tp_run_path(u, path, "model.safetensors", 0));
    if (!u->o->resume)
        TP_CHECK(access(path, F_OK) != 0 && !tp_run_has_checkpoint(u), TP_ECREATE,
                 "%s: holds a run already: go on with --resume, or choose another --out", u->o->out);
    TP_TRY(tp_recipe_text(u->r, &text));
    tp_status st = tp_run_path(u, path, "recipe.yaml", 0);
    if (st == TP_OK && !(u->o->resume && access(path, F_OK) == 0))
        st = tp_io_replace(path, text, strlen(text));
    tp_text_free(text);
    TP_TRY(st);
    TP_TRY(open_log(u, "metrics.jsonl", &u->metrics));
    return open_log(u, "log.txt", &u->log);
}

void tp_run_note(tp_run *u, const char *format, ...)
{
    char when[32];
    struct tm t;
    const time_t now = time(NULL);
    va_list args;

    if (u->log == NULL || gmtime_r(&now, &t) == NULL)
        return;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &t);
    fprintf(u->log, "%s ", when);
    va_start(args, format);
    vfprintf(u->log, format, args);
    va_end(args);
    fputc('\n', u->log);
    fflush(u->log);
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

void tp_run_log_report(tp_run *u, const tp_run_report *rep)
{
    if (u->metrics == NULL)
        return;
    json_t *o = json_pack("{s:I, s:I, s:f, s:o, s:o, s:f, s:f, s:o}", "step", (json_int_t)rep->step, "epoch",
                          (json_int_t)rep->epoch, "lr", rep->lr, "loss", number(rep->loss), "grad_norm",
                          number(rep->grad_norm), "seconds", rep->seconds, "samples_per_second",
                          rep->samples_per_second, "validation", part_json(&rep->validation));
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (line != NULL)
        fprintf(u->metrics, "%s\n", line);
    fflush(u->metrics);
    tp_run_note(u, "step %lld of %lld, loss %.6g", (long long)rep->step, (long long)rep->total_steps,
                rep->loss);
    free(line);
    json_decref(o);
}

tp_status tp_run_write_manifest(tp_run *u)
{
    char path[TP_RUN_PATH];
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o}", "temper", "0.1.0", "device",
                  u->result->device, "precision", u->result->precision, "data_hash", u->result->data_hash,
                  "weights_hash", u->result->weights_hash, "steps", (json_int_t)u->result->steps, "seed",
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
