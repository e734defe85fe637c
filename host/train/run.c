/* run.c - a recipe carried out: open the data, build the model, train, report, save, finish. */
#include "host/core/clock.h"
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/train/run_parts.h"
#include "temper/plan.h"
#include "temper/safetensors.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

static double rate_at(const tp_run *u, int64_t step)
{
    return u->r->lr * u->plateau.scale * tp_schedule_factor(&u->r->schedule, step, u->total, u->per_epoch);
}

static int higher_is_better(const char *metric)
{
    const tp_metric *m = tp_metric_find(metric);
    return m != NULL && m->higher_is_better;
}

/* What the validation metrics of a report change: the best model, the learning rate, whether to go on. */
static void heed(tp_run *u, const tp_run_report *rep, int *finished)
{
    double value = 0.0;

    if (tp_run_find_score(&rep->validation, u->r->train.best, &value)) {
        tp_early_stop_update(&u->early, &u->best, rep->step, value);
        *finished |= tp_early_stop_reached(&u->early, &u->best);
    }
    if (u->r->schedule.kind == TP_SCHEDULE_REDUCE_ON_PLATEAU &&
        tp_run_find_score(&rep->validation, u->r->plateau_metric, &value)) {
        tp_plateau p = u->r->plateau;
        p.higher_is_better = higher_is_better(u->r->plateau_metric);
        const double before = u->plateau.scale;
        if (tp_plateau_update(&p, &u->plateau, value) < before)
            tp_run_note(u, "step %lld: %s has not improved, the learning rate is now %g",
                        (long long)rep->step, u->r->plateau_metric, u->r->lr * u->plateau.scale);
    }
}

typedef struct progress {
    int64_t step, since, applied; /* since the last report: steps, and those that changed weights */
    double loss, start, last_time, norm;
    int64_t launches, length; /* so far; steps of the next one */
    int settled;              /* the length is the last one */
    double collected;         /* when the last launch was; 0: not since the last report */
} progress;

static tp_status report(tp_run *u, progress *p, int *finished)
{
    tp_run_report rep = {.step = p->step,
                         .total_steps = u->total,
                         .epoch = p->step / u->per_epoch,
                         .lr = rate_at(u, p->step - 1),
                         .loss = p->applied > 0 ? p->loss / (double)p->applied : (double)NAN,
                         .grad_norm = p->norm,
                         .seconds = tp_seconds() - p->start};
    const double spent = tp_seconds() - p->last_time;

    rep.samples_per_second = spent > 0.0 ? (double)(p->since * u->r->train.batch) / spent : 0.0;
    TP_TRY(tp_run_score(u, TP_VALIDATION, &rep.validation));
    heed(u, &rep, finished);
    TP_TRY(tp_run_log_report(u, &rep));
    if (u->o->report != NULL)
        u->o->report(u->o->user, &rep);
    p->loss = 0.0;
    p->since = p->applied = 0;
    p->last_time = tp_seconds();
    return TP_OK;
}

/* What the steps of one launch have left. */
static tp_status take(tp_run *u, progress *p, const tp_step_result *results, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        p->step++;
        p->since++;
        p->norm = results[i].grad_norm;
        u->bad = results[i].applied ? 0 : u->bad + 1;
        p->applied += results[i].applied;
        p->loss += results[i].applied ? results[i].loss : 0.0;
        TP_CHECK(u->bad < u->r->train.max_bad_steps, TP_EDIVERGED,
                 "training diverged: %lld steps in a row up to step %lld had a loss or gradient that is not "
                 "finite (train.max_bad_steps)",
                 (long long)u->bad, (long long)p->step);
    }
    return TP_OK;
}

static int stop_asked(const tp_run *u)
{
    return u->o->stop != NULL && *u->o->stop;
}

#define LAUNCH_SECONDS   5e-3 /* of the GPU, which a launch is to take, */
#define SHORTEST_SECONDS 1e-3 /* and between which it is left as it is */
#define LONGEST_SECONDS  10e-3

int64_t tp_run_launch_length(double step_seconds)
{
    const double want = step_seconds > 0.0 ? LAUNCH_SECONDS / step_seconds : (double)TP_MAX_LAUNCH;
    return want < 1.0 ? 1 : (want > TP_MAX_LAUNCH ? TP_MAX_LAUNCH : (int64_t)want);
}

/* Two launches are under way, so what lies between two collections is what the first of them took. */
static void correct_length(const tp_run *u, progress *p, int64_t n)
{
    const double now = tp_seconds(), took = now - p->collected;
    const int whole = p->collected > 0.0 && n == p->length;

    p->collected = now;
    if (p->settled || !whole || u->r->train.steps_per_launch > 0)
        return;
    p->settled = 1;
    if (took < SHORTEST_SECONDS || took > LONGEST_SECONDS)
        p->length = tp_run_launch_length(took / (double)n);
}

static tp_status collect(tp_run *u, progress *p, int64_t n)
{
    tp_step_result results[TP_MAX_LAUNCH];

    TP_TRY(tp_trainer_collect(u->trainer, results));
    return take(u, p, results, n);
}

/* Steps up to `until`, or to where a stop is asked for; while one launch runs, the next is on its way. The
 * first launch compiles and warms up, the second is timed, waiting included, and gives the length of the
 * others, which the first of those corrects. */
static tp_status run_until(tp_run *u, progress *p, int64_t until)
{
    double rates[TP_MAX_LAUNCH];
    int64_t at = p->step, pending = 0;

    p->collected = 0.0;
    while (p->step < until) {
        int64_t n = 0;
        if (at < until && !stop_asked(u)) {
            const double start = tp_seconds();
            n = p->launches < 2 ? 1 : p->length;
            n = n < until - at ? n : until - at;
            for (int64_t i = 0; i < n; i++)
                rates[i] = rate_at(u, at + i);
            TP_TRY(tp_trainer_launch(u->trainer, at, n, rates));
            at += n;
            if (++p->launches <= 2) {
                TP_TRY(collect(u, p, n));
                p->length = u->r->train.steps_per_launch > 0 ? u->r->train.steps_per_launch
                                                             : tp_run_launch_length(tp_seconds() - start);
                continue;
            }
        }
        if (pending > 0) {
            TP_TRY(collect(u, p, pending));
            correct_length(u, p, pending);
        } else if (n == 0)
            return TP_OK;
        pending = n;
    }
    return TP_OK;
}

static int64_t next_multiple(int64_t step, int64_t of)
{
    return (step / of + 1) * of;
}

static int64_t smallest(int64_t a, int64_t b, int64_t c)
{
    const int64_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Is a checkpoint of this step to be written, and not yet on its way or there? */
static int wants_saving(const tp_run *u, const progress *p, int ends)
{
    return (ends || p->step % u->save_every == 0 || (double)p->step == u->best.best_step) &&
           p->step != u->saving.step;
}

static tp_status stopped(const tp_run *u, const progress *p)
{
    TP_CHECK(u->saved >= 0, TP_ESTOPPED, "stopped at step %lld of %lld; no checkpoint was saved: %s",
             (long long)p->step, (long long)u->total,
             u->o->out == NULL ? "there is no run directory" : "its weights are not finite");
    TP_FAIL(TP_ESTOPPED, "stopped at step %lld of %lld; checkpoint of step %lld is good: go on with --resume",
            (long long)p->step, (long long)u->total, (long long)u->saved);
}

static tp_status train(tp_run *u, int64_t first)
{
    progress p = {.step = first, .start = tp_seconds()};
    int finished = 0;

    p.last_time = p.start;
    while (p.step < u->total && !finished) {
        TP_TRY(run_until(u, &p,
                         smallest(u->total, next_multiple(p.step, u->report_every),
                                  next_multiple(p.step, u->save_every))));
        const int last = p.step == u->total;
        if (p.since > 0 && (p.step % u->report_every == 0 || last))
            TP_TRY(report(u, &p, &finished));
        const int stop = stop_asked(u) && !last;
        if (wants_saving(u, &p, last || finished || stop))
            TP_TRY(tp_run_save(u, p.step));
        if (stop) {
            TP_TRY(tp_run_settle(u));
            return stopped(u, &p);
        }
    }
    TP_TRY(tp_run_settle(u));
    u->result->steps = p.step;
    u->result->samples = (p.step - first) * u->r->train.batch;
    u->result->seconds = tp_seconds() - p.start;
    u->result->samples_per_second =
        u->result->seconds > 0.0 ? (double)u->result->samples / u->result->seconds : 0.0;
    return TP_OK;
}

/* The averaged weights become the model's own. */
static tp_status adopt_ema(tp_run *u)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        if (strncmp(s->name, "ema.", 4) != 0)
            continue;
        for (int k = 0; k < tp_model_n_params(u->model); k++) {
            const tp_param *p = tp_model_param(u->model, k);
            if (strcmp(p->name, s->name + 4) == 0)
                TP_TRY(tp_device_enqueue_copy(u->dev, TP_QUEUE_RUN, p->tensor.data, s->tensor.data,
                                              tp_tensor_bytes(&p->tensor), TP_ON_DEVICE));
        }
    }
    return TP_OK;
}

/* Of what becomes the model: every weight is to be finite. */
static tp_status hash_weights(tp_run *u)
{
    tp_tensors *t = NULL;

    TP_TRY(tp_tensors_new(&t));
    tp_status st = TP_OK;
    for (int i = 0; i < tp_model_n_params(u->model) && st == TP_OK; i++) {
        const tp_param *p = tp_model_param(u->model, i);
        void *dst = NULL;
        st = tp_tensors_add(t, p->name, p->tensor.dtype, p->shape, &dst);
        if (st == TP_OK)
            st = tp_filters_download(u->dev, &p->tensor, p->shape, p->channels_last, dst);
    }
    const char *bad = st == TP_OK ? tp_run_not_finite(t) : NULL;
    if (bad != NULL)
        st = tp_error_set(TP_EDIVERGED, __FILE__, __LINE__,
                          "training diverged: after step %lld tensor '%s' is not finite",
                          (long long)u->result->steps, bad);
    if (st == TP_OK)
        st = tp_tensors_hash(t, u->result->weights_hash);
    tp_tensors_free(t);
    return st;
}

/* The best model of the run, where that is asked for and it is not the last one. */
static tp_status adopt_best(tp_run *u)
{
    const int64_t best = (int64_t)u->best.best_step;

    if (best < 0 || best == u->result->steps || u->o->out == NULL)
        return TP_OK;
    const tp_status st = tp_run_load_best(u, best);
    if (st != TP_ENOENT)
        return st;
    tp_run_warn(u, "%s; the model is that of the last step, %lld", tp_last_error(),
                (long long)u->result->steps);
    return TP_OK;
}

static tp_status finish(tp_run *u)
{
    char path[TP_RUN_PATH];

    TP_TRY(adopt_best(u));
    TP_TRY(tp_run_score(u, TP_VALIDATION, &u->result->validation));
    TP_TRY(tp_run_score(u, TP_TEST, &u->result->test));
    TP_TRY(adopt_ema(u));
    TP_TRY(hash_weights(u));
    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_run_path(u, path, "model.safetensors", 0));
    TP_TRY(tp_model_save(u->model, u->dev, u->r->data.target, u->r->data.target_kind, path));
    return tp_run_write_manifest(u);
}

/* Steps and reports. Steps are counted in doubles where a checkpoint keeps them. */
static tp_status plan_steps(tp_run *u)
{
    const tp_recipe *r = u->r;
    const int64_t most = (int64_t)1 << 53;

    u->per_epoch = tp_trainer_steps_per_epoch(u->trainer);
    TP_CHECK(r->train.epochs <= most / u->per_epoch, TP_ERECIPE,
             "train.epochs is %lld: with %lld steps each that is over 2^53 steps", (long long)r->train.epochs,
             (long long)u->per_epoch);
    u->total = u->per_epoch * r->train.epochs;
    u->report_every = r->train.report > 0 ? r->train.report : u->per_epoch;
    u->save_every = r->train.save > 0 ? r->train.save : u->per_epoch;
    u->early = (tp_early_stop){higher_is_better(r->train.best), r->train.patience, r->train.min_delta};
    u->best = tp_early_stop_start();
    tp_plateau plateau = r->plateau;
    plateau.higher_is_better = higher_is_better(r->plateau_metric);
    u->plateau = tp_plateau_start(&plateau);
    return TP_OK;
}

static tp_status make_outputs(tp_run *u)
{
    int64_t most = 0;

    for (int p = 0; p < TP_PARTS; p++)
        if (tp_data_part_rows(u->data, (tp_part)p) > most)
            most = tp_data_part_rows(u->data, (tp_part)p);
    return tp_alloc(&u->outputs, (size_t)(most * tp_model_outputs(u->model)), sizeof(float), "outputs");
}

static tp_status prepare(tp_run *u)
{
    const tp_recipe *r = u->r;

    TP_TRY(tp_run_check_dir(u));
    TP_TRY(tp_device_open(&u->dev, u->o->device));
    u->precision = tp_device_kind_of(u->dev) == TP_CPU
                       ? TP_PRECISION_FP32
                       : (r->train.precision < 0 ? TP_PRECISION_TF32 : (tp_precision)r->train.precision);
    TP_TRY(tp_run_open_data(u));
    TP_TRY(tp_run_check_same(u));
    TP_TRY(tp_run_make_model(u));
    TP_TRY(tp_run_check_metrics(u));
    TP_TRY(tp_run_make_trainer(u));
    TP_TRY(plan_steps(u));
    TP_TRY(tp_run_open_dir(u));
    if (u->o->out != NULL)
        TP_TRY(tp_snapshot_new(&u->saving.snapshot, u->trainer));
    TP_TRY(make_outputs(u));
    snprintf(u->result->device, sizeof(u->result->device), "%s", tp_device_text(u->dev));
    snprintf(u->result->device_note, sizeof(u->result->device_note), "%s", tp_device_note(u->dev));
    snprintf(u->result->precision, sizeof(u->result->precision), "%s", tp_precision_name(u->precision));
    snprintf(u->result->data_hash, sizeof(u->result->data_hash), "%s", tp_data_hash(u->data));
    return TP_OK;
}

/* "DEVICE (WHY NOT A GPU); PRECISION; WHERE THE DATA LIES" */
static void announce(tp_run *u)
{
    char line[1024], data[256];
    const tp_run_result *r = u->result;

    tp_run_describe_data(u, data, sizeof(data));
    snprintf(line, sizeof(line), "%s%s%s%s; %s; %s", r->device, r->device_note[0] != '\0' ? " (" : "",
             r->device_note, r->device_note[0] != '\0' ? ")" : "", r->precision, data);
    tp_run_note(u, "%s; %lld micro-batches a step", line, (long long)u->accumulate);
    if (u->o->start != NULL)
        u->o->start(u->o->user, line);
}

static tp_status carry_out(tp_run *u)
{
    int64_t first = 0;

    TP_TRY(prepare(u));
    if (u->o->resume)
        TP_TRY(tp_run_go_on(u, &first));
    TP_TRY(tp_run_open_metrics(u, first));
    u->result->already_done =
        u->o->resume && (first >= u->total || tp_early_stop_reached(&u->early, &u->best));
    u->result->steps = first;
    tp_run_note(u, "from step %lld of %lld, data %s", (long long)first, (long long)u->total,
                u->result->data_hash);
    if (!u->result->already_done) {
        announce(u);
        TP_TRY(train(u, first));
    }
    if (u->o->plan_text != NULL)
        TP_TRY(tp_trainer_plan_text(u->trainer, u->o->plan_text));
    TP_TRY(finish(u));
    tp_run_note(u, "done: %lld steps, weights %s", (long long)u->result->steps, u->result->weights_hash);
    return TP_OK;
}

tp_status tp_run_train(const tp_recipe *r, const tp_run_opts *opts, tp_run_result *result)
{
    tp_run u = {.r = r, .o = opts, .result = result, .lock = -1, .saved = -1, .saving = {.step = -1}};

    *result = (tp_run_result){.steps = 0};
    TP_CHECK(!opts->resume || opts->out != NULL, TP_EINVAL, "resume needs the run directory, out");
    const tp_status st = carry_out(&u);
    tp_run_end_saving(&u);
    if (st != TP_OK)
        tp_run_note(&u, "%s", tp_last_error());
    tp_run_close(&u);
    return st;
}

void tp_run_close(tp_run *u)
{
    tp_snapshot_free(u->saving.snapshot);
    tp_trainer_free(u->trainer);
    tp_model_free(u->model);
    tp_data_free(u->data);
    tp_device_close(u->dev);
    tp_tensors_free(u->from.tensors);
    tp_free(u->class_weight);
    tp_free(u->outputs);
    if (u->metrics != NULL)
        fclose(u->metrics);
    if (u->log != NULL)
        fclose(u->log);
    if (u->lock >= 0)
        close(u->lock);
}
