/* checkpoint.c - everything a run needs to go on bit for bit, as generations of one safetensors file each. */
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/train/run_parts.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_CHECKPOINTS 1024
#define CHECKPOINT       "checkpoints/gen-%020lld.safetensors"

/* Steps of the checkpoints in the run, newest first. */
static int list_checkpoints(const tp_run *u, int64_t *steps, int most)
{
    char folder[TP_RUN_PATH];
    int n = 0;

    if (tp_run_path(u, folder, "checkpoints", 0) != TP_OK)
        return 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        static const char prefix[] = "gen-";
        if (strncmp(e->d_name, prefix, sizeof(prefix) - 1) != 0 || n == most)
            continue;
        char *end = NULL;
        errno = 0;
        const long long step = strtoll(e->d_name + sizeof(prefix) - 1, &end, 10);
        if (errno != 0 || strcmp(end, ".safetensors") != 0)
            continue;
        int at = n++;
        for (; at > 0 && steps[at - 1] < step; at--)
            steps[at] = steps[at - 1];
        steps[at] = step;
    }
    if (d != NULL)
        closedir(d);
    return n;
}

static tp_status list_states(const tp_run *u, tp_tensors *t)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++)
        TP_TRY(tp_tensors_borrow(t, tp_trainer_state(u->trainer, i)->name,
                                 tp_snapshot_at(u->saving.snapshot, i)));
    return TP_OK;
}

/* What a resumed run must share with the run it goes on from, or its bits mean nothing. */
static tp_status fingerprint(const tp_run *u, char **out)
{
    char *text = NULL;
    TP_TRY(tp_recipe_text(u->r, &text));
    const tp_status st = tp_format(out, "%s\ndata %s\n", text, tp_data_hash(u->data));
    tp_text_free(text);
    return st;
}

static const char *kind_of(const tp_run *u)
{
    return tp_device_kind_of(u->dev) == TP_CPU ? "cpu" : "cuda";
}

/* What was settled when the run began and not by its recipe: going on with anything else would change its
 * bits. */
static tp_status set_settled(const tp_run *u, tp_tensors *t)
{
    char text[64];

    snprintf(text, sizeof(text), "%lld", (long long)u->accumulate);
    TP_TRY(tp_tensors_meta_set(t, "temper.accumulate", text));
    TP_TRY(tp_tensors_meta_set(t, "temper.data", tp_data_resident(u->data) ? "resident" : "streamed"));
    TP_TRY(tp_tensors_meta_set(t, "temper.precision", tp_precision_name(u->precision)));
    return tp_tensors_meta_set(t, "temper.device", kind_of(u));
}

/* What the steps and reports so far have left, as numbers that are read back exactly. */
static tp_status set_progress(const tp_run *u, tp_tensors *t)
{
    char text[256];

    snprintf(text, sizeof(text), "%lld", (long long)u->bad);
    TP_TRY(tp_tensors_meta_set(t, "temper.bad_steps", text));

    snprintf(text, sizeof(text), "%.17g %.17g %.17g", u->best.best, u->best.best_step, u->best.since_best);
    TP_TRY(tp_tensors_meta_set(t, "temper.best", text));
    snprintf(text, sizeof(text), "%.17g %.17g %.17g %.17g", u->plateau.scale, u->plateau.best, u->plateau.bad,
             u->plateau.cooldown_left);
    return tp_tensors_meta_set(t, "temper.plateau", text);
}

static int take_numbers(const tp_tensors *t, const char *key, int n, double *const *out)
{
    const char *at = tp_tensors_meta(t, key);

    for (int i = 0; i < n && at != NULL; i++) {
        char *end = NULL;
        *out[i] = strtod(at, &end);
        at = end != at ? end : NULL;
    }
    return at != NULL;
}

static tp_status take_progress(tp_run *u, const tp_tensors *t, const char *path)
{
    tp_early_stop_state *b = &u->best;
    tp_plateau_state *p = &u->plateau;
    double bad;

    TP_CHECK(take_numbers(t, "temper.bad_steps", 1, (double *[]){&bad}) &&
                 take_numbers(t, "temper.best", 3, (double *[]){&b->best, &b->best_step, &b->since_best}) &&
                 take_numbers(t, "temper.plateau", 4,
                              (double *[]){&p->scale, &p->best, &p->bad, &p->cooldown_left}),
             TP_EDATA, "%s: does not say how the run was going", path);
    u->bad = (int64_t)bad;
    return TP_OK;
}

static tp_status fill_meta(tp_run *u, tp_tensors *t, int64_t step)
{
    char number[64], *print = NULL;

    snprintf(number, sizeof(number), "%lld", (long long)step);
    TP_TRY(tp_tensors_meta_set(t, "temper.step", number));
    TP_TRY(set_settled(u, t));
    TP_TRY(set_progress(u, t));
    TP_TRY(fingerprint(u, &print));
    const tp_status st = tp_tensors_meta_set(t, "temper.run", print);
    tp_free(print);
    return st;
}

const char *tp_run_not_finite(const tp_tensors *t)
{
    for (int i = 0; i < tp_tensors_count(t); i++) {
        const tp_tensor *x = tp_tensors_at(t, i);
        const float *v = x->data;
        for (int64_t k = 0, n = x->dtype == TP_F32 ? tp_shape_len(x->shape) : 0; k < n; k++)
            if (!isfinite(v[k]))
                return tp_tensors_name(t, i);
    }
    return NULL;
}

/* Keeps the newest ones and the best that they know of. */
static void prune(const tp_run *u, double best_step)
{
    char path[TP_RUN_PATH];
    int64_t steps[MOST_CHECKPOINTS];
    const int n = list_checkpoints(u, steps, MOST_CHECKPOINTS);

    for (int i = (int)u->r->train.keep; i < n; i++)
        if ((double)steps[i] != best_step && tp_run_path(u, path, CHECKPOINT, steps[i]) == TP_OK)
            unlink(path);
}

/* ---- writing beside the training ---- */

static tp_status write_out(tp_saving *s)
{
    TP_TRY(tp_snapshot_await(s->snapshot));
    s->finite = tp_run_not_finite(s->tensors) == NULL;
    return s->finite ? tp_tensors_save(s->tensors, s->path) : TP_OK;
}

static void *saving_thread(void *arg)
{
    tp_saving *s = arg;

    s->status = write_out(s);
    if (s->status != TP_OK)
        snprintf(s->error, sizeof(s->error), "%s", tp_last_error());
    return NULL;
}

static tp_status begin(tp_run *u, int64_t step)
{
    tp_saving *s = &u->saving;

    TP_TRY(tp_run_path(u, s->path, CHECKPOINT, step));
    TP_TRY(tp_tensors_new(&s->tensors));
    TP_TRY(list_states(u, s->tensors));
    TP_TRY(fill_meta(u, s->tensors, step));
    TP_TRY(tp_snapshot_take(s->snapshot));
    s->step = step;
    s->best_step = u->best.best_step;
    TP_CHECK(pthread_create(&s->thread, NULL, saving_thread, s) == 0, TP_ENOMEM, "%s: no thread to write it",
             s->path);
    s->running = 1;
    return TP_OK;
}

void tp_run_end_saving(tp_run *u)
{
    tp_saving *s = &u->saving;

    if (s->running)
        pthread_join(s->thread, NULL);
    tp_tensors_free(s->tensors);
    s->tensors = NULL;
    if (!s->running)
        return;
    s->running = 0;
    if (s->status == TP_OK && s->finite) {
        u->saved = s->step;
        prune(u, s->best_step);
    } else if (s->status == TP_OK)
        tp_run_note(u, "step %lld: a weight is not finite, so no checkpoint is written", (long long)s->step);
    else
        tp_run_note(u, "step %lld: no checkpoint is written: %s", (long long)s->step, s->error);
}

tp_status tp_run_settle(tp_run *u)
{
    const int running = u->saving.running;

    tp_run_end_saving(u);
    TP_CHECK(!running || u->saving.status == TP_OK, u->saving.status, "%s", u->saving.error);
    return TP_OK;
}

tp_status tp_run_save(tp_run *u, int64_t step)
{
    TP_TRY(tp_run_settle(u));
    if (u->o->out == NULL)
        return TP_OK;
    const tp_status st = begin(u, step);
    if (st != TP_OK)
        tp_run_end_saving(u);
    return st;
}

int tp_run_has_checkpoint(const tp_run *u)
{
    int64_t step;
    return list_checkpoints(u, &step, 1) > 0;
}

static tp_status restore(tp_run *u, const tp_tensors *t, const char *path)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        const tp_tensor *x = tp_tensors_find(t, s->name);
        TP_CHECK(x != NULL && x->dtype == s->tensor.dtype && tp_shape_equal(x->shape, s->shape), TP_EDATA,
                 "%s: tensor '%s' is missing or has another shape than this run's", path, s->name);
        TP_TRY(tp_filters_upload(u->dev, &s->tensor, s->shape, s->channels_last, x->data));
    }
    return tp_trainer_refresh(u->trainer);
}

static tp_status check_same_run(const tp_run *u, const tp_tensors *t, const char *path)
{
    char *print = NULL;
    const char *theirs = tp_tensors_meta(t, "temper.run");

    TP_TRY(fingerprint(u, &print));
    const int same = theirs != NULL && strcmp(theirs, print) == 0;
    tp_free(print);
    TP_CHECK(same, TP_EDATA,
             "%s: was written by a run with another recipe or other data, so it cannot be resumed", path);
    return TP_OK;
}

/* Opens the checkpoint of a step; one that is damaged is told and passed over (TP_EDATA, TP_EIO, TP_ENOENT).
 */
static tp_status open_one(tp_run *u, int64_t step, char *path, tp_tensors **out)
{
    TP_TRY(tp_run_path(u, path, CHECKPOINT, step));
    const tp_status st = tp_tensors_load(out, path);
    if (st != TP_OK && st != TP_ENOMEM)
        tp_run_warn(u, "checkpoint passed over: %s", tp_last_error());
    return st;
}

static tp_status take_settled(tp_run_from *f)
{
    double accumulate;
    const char *data = tp_tensors_meta(f->tensors, "temper.data"),
               *precision = tp_tensors_meta(f->tensors, "temper.precision"),
               *device = tp_tensors_meta(f->tensors, "temper.device");

    TP_CHECK(take_numbers(f->tensors, "temper.accumulate", 1, (double *[]){&accumulate}) && data != NULL &&
                 precision != NULL && device != NULL && accumulate >= 1.0 && accumulate <= TP_MAX_MICRO,
             TP_EDATA, "%s: does not say how the run was set up", f->path);
    f->accumulate = (int64_t)accumulate;
    f->resident = strcmp(data, "resident") == 0;
    snprintf(f->precision, sizeof(f->precision), "%s", precision);
    snprintf(f->device, sizeof(f->device), "%s", device);
    return TP_OK;
}

tp_status tp_run_find_checkpoint(tp_run *u)
{
    int64_t steps[MOST_CHECKPOINTS];
    const int n = list_checkpoints(u, steps, MOST_CHECKPOINTS);
    tp_run_from *f = &u->from;

    for (int i = 0; i < n && f->tensors == NULL; i++) {
        const tp_status st = open_one(u, steps[i], f->path, &f->tensors);
        TP_CHECK(st != TP_ENOMEM, st, "%s", tp_last_error());
        f->step = steps[i];
    }
    TP_CHECK(f->tensors != NULL, TP_ENOENT, "%s: has no sound checkpoint to go on from", u->o->out);
    return take_settled(f);
}

/* The bits may differ on another device, or with other rounding, and nobody is to wonder why. */
static void warn_of_change(tp_run *u)
{
    const char *device = kind_of(u), *precision = tp_precision_name(u->precision);

    if (strcmp(u->from.device, device) != 0 || strcmp(u->from.precision, precision) != 0)
        tp_run_warn(
            u, "the run began on %s in %s and goes on on %s in %s: not bit for bit as it would have there",
            u->from.device, u->from.precision, device, precision);
}

tp_status tp_run_check_same(const tp_run *u)
{
    return u->from.tensors != NULL ? check_same_run(u, u->from.tensors, u->from.path) : TP_OK;
}

tp_status tp_run_go_on(tp_run *u, int64_t *step)
{
    tp_run_from *f = &u->from;

    TP_TRY(restore(u, f->tensors, f->path));
    TP_TRY(take_progress(u, f->tensors, f->path));
    tp_tensors_free(f->tensors);
    f->tensors = NULL;
    warn_of_change(u);
    *step = u->saved = u->saving.step = f->step;
    return TP_OK;
}

tp_status tp_run_load_best(tp_run *u, int64_t step)
{
    char path[TP_RUN_PATH];
    tp_tensors *t = NULL;

    const tp_status bad = open_one(u, step, path, &t);
    TP_CHECK(bad == TP_OK || bad == TP_ENOMEM, TP_ENOENT, "%s: the best checkpoint is missing or damaged",
             path);
    TP_TRY(bad);
    tp_status st = check_same_run(u, t, path);
    if (st == TP_OK)
        st = restore(u, t, path);
    tp_tensors_free(t);
    return st;
}
