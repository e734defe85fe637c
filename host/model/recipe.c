/* recipe.c - YAML to tp_recipe. libfyaml parses; the schema table says which keys there are, what they may
 * hold and where they go. Only what YAML calls a plain or quoted scalar, a sequence and a mapping is taken:
 * no aliases, anchors or tags. */
#include "temper/recipe.h"
#include "host/core/mem.h"
#include "host/core/text.h"
#include "host/model/layers_text.h"
#include "host/model/recipe_schema.h"
#include <errno.h>
#include <libfyaml.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_PATH_TEXT 256
#define MAX_DEPTH     24

typedef struct reader {
    tp_recipe *r;
    const char *file; /* as messages name it */
} reader;

typedef struct place {
    char text[TP_RECIPE_TEXT + 64];
} place;

/* "file:line:column" of a node. */
static place place_of(const reader *rd, struct fy_node *n)
{
    place p;
    const struct fy_mark *m = NULL;
    struct fy_node *at = n;
    void *it = NULL;

    while (at != NULL && fy_node_get_type(at) != FYNT_SCALAR) {
        if (fy_node_is_mapping(at)) {
            struct fy_node_pair *pair = fy_node_mapping_iterate(at, &it);
            at = pair != NULL ? fy_node_pair_key(pair) : NULL;
        } else
            at = fy_node_sequence_iterate(at, &it);
        it = NULL;
    }
    struct fy_token *token = at != NULL ? fy_node_get_scalar_token(at) : NULL;
    if (token != NULL)
        m = fy_token_start_mark(token);
    if (m != NULL)
        snprintf(p.text, sizeof(p.text), "%s:%d:%d", rd->file, m->line + 1, m->column + 1);
    else
        snprintf(p.text, sizeof(p.text), "%s", rd->file);
    return p;
}

#define REFUSE(node, ...)                                                                                    \
    do {                                                                                                     \
        char refuse_text[1024];                                                                              \
        snprintf(refuse_text, sizeof(refuse_text), __VA_ARGS__);                                             \
        TP_FAIL(TP_ERECIPE, "%s: %s", place_of(rd, node).text, refuse_text);                                 \
    } while (0)

/* ---- nearest key ---- */

typedef struct nearest {
    const char *wanted;
    char best[TP_RECIPE_TEXT];
    int score;
} nearest;

static void consider(nearest *n, const char *name, size_t len)
{
    char text[TP_RECIPE_TEXT];
    snprintf(text, sizeof(text), "%.*s", (int)len, name);
    const int d = tp_text_distance(n->wanted, text);
    if (d < n->score) {
        n->score = d;
        snprintf(n->best, sizeof(n->best), "%s", text);
    }
}

/* The key at the same level of the schema that is spelt most alike. */
static void nearest_key(const char *prefix, const char *wanted, nearest *n)
{
    if (strncmp(prefix, "optimizer.", 10) == 0)
        prefix = "optimizer.@";
    *n = (nearest){.wanted = wanted, .score = 1 << 20};
    for (const tp_schema_row *row = tp_schema; row->path != NULL; row++) {
        const size_t len = strlen(prefix);
        if (strncmp(row->path, prefix, len) != 0 || (len > 0 && row->path[len] != '.'))
            continue;
        const char *rest = row->path + len + (len > 0);
        if (rest[0] == '@')
            for (int k = 0; tp_schema_optimizers[k] != NULL; k++)
                consider(n, tp_schema_optimizers[k], strlen(tp_schema_optimizers[k]));
        else
            consider(n, rest, strcspn(rest, "."));
    }
}

/* ---- scalars ---- */

static tp_status scalar_text(const reader *rd, struct fy_node *n, const char *key, char *out, size_t size)
{
    size_t len = 0;

    if (!fy_node_is_scalar(n) || fy_node_is_alias(n))
        REFUSE(n, "%s must be a single value", key);
    const char *text = fy_node_get_scalar(n, &len);
    if (text == NULL)
        len = 0;
    if (len >= size)
        REFUSE(n, "%s has %zu characters, at most %zu are taken", key, len, size - 1);
    if (len > 0)
        memcpy(out, text, len);
    out[len] = '\0';
    return TP_OK;
}

static tp_status number(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row,
                        double *out)
{
    char text[64], *end = NULL;

    TP_TRY(scalar_text(rd, n, key, text, sizeof(text)));
    errno = 0;
    *out = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(*out))
        REFUSE(n, "%s is '%s', must be a number", key, text);
    if (*out < row->min || *out > row->max)
        REFUSE(n, "%s is %s, must be %g to %g", key, text, row->min, row->max);
    return TP_OK;
}

static tp_status integer(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row,
                         int64_t *out)
{
    char text[64], *end = NULL;

    TP_TRY(scalar_text(rd, n, key, text, sizeof(text)));
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        REFUSE(n, "%s is '%s', must be a whole number", key, text);
    if ((double)*out < row->min || (double)*out > row->max)
        REFUSE(n, "%s is %lld, must be %.0f to %.0f", key, (long long)*out, row->min, row->max);
    return TP_OK;
}

static tp_status boolean(const reader *rd, struct fy_node *n, const char *key, int *out)
{
    char text[16];

    TP_TRY(scalar_text(rd, n, key, text, sizeof(text)));
    *out = strcmp(text, "true") == 0;
    if (!*out && strcmp(text, "false") != 0)
        REFUSE(n, "%s is '%s', must be true or false", key, text);
    return TP_OK;
}

static tp_status choice(const reader *rd, struct fy_node *n, const char *key, const tp_choice *choices,
                        int *out)
{
    char text[64], all[400];
    size_t at = 0;

    TP_TRY(scalar_text(rd, n, key, text, sizeof(text)));
    all[0] = '\0';
    for (int i = 0; choices[i].name != NULL; i++) {
        if (strcmp(choices[i].name, text) == 0) {
            *out = choices[i].value;
            return TP_OK;
        }
        if (at < sizeof(all))
            at += (size_t)snprintf(all + at, sizeof(all) - at, "%s%s", i > 0 ? ", " : "", choices[i].name);
    }
    REFUSE(n, "%s is '%s', must be one of %s", key, text, all);
}

/* A number, or a date as days since 1970-01-01. */
int tp_recipe_moment(const char *text, double *out)
{
    struct tm t = {0};
    char *end = strptime(text, "%Y-%m-%d", &t);

    if (end != NULL && *end == '\0') {
        const int day = t.tm_mday;
        *out = (double)timegm(&t) / 86400;
        return t.tm_mday == day; /* the 31st of February has become the 3rd of March */
    }
    *out = strtod(text, &end);
    return end != text && *end == '\0' && !isnan(*out);
}

static tp_status moment(const reader *rd, struct fy_node *n, const char *key, double *out)
{
    char text[64];

    TP_TRY(scalar_text(rd, n, key, text, sizeof(text)));
    if (!tp_recipe_moment(text, out) || !isfinite(*out))
        REFUSE(n, "%s is '%s', must be a date (2001-12-31) or a number", key, text);
    return TP_OK;
}

/* ---- lists ---- */

static tp_status want_sequence(const reader *rd, struct fy_node *n, const char *key, int least, int most,
                               int *count)
{
    if (!fy_node_is_sequence(n))
        REFUSE(n, "%s must be a list", key);
    *count = fy_node_sequence_item_count(n);
    if (*count < least || *count > most)
        REFUSE(n, "%s has %d entries, must have %d to %d", key, *count, least, most);
    return TP_OK;
}

static tp_status read_field(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row,
                            void *base);

/* A mapping whose keys are a table of fields of the struct at base; `what` is named in errors. */
static tp_status read_fields(const reader *rd, struct fy_node *n, const char *what,
                             const tp_schema_row *table, void *base, const char *skip)
{
    void *it = NULL;
    struct fy_node_pair *pair;

    if (!fy_node_is_mapping(n))
        REFUSE(n, "%s must be a mapping", what);
    while ((pair = fy_node_mapping_iterate(n, &it)) != NULL) {
        char key[TP_RECIPE_TEXT];
        const tp_schema_row *row = table;
        TP_TRY(scalar_text(rd, fy_node_pair_key(pair), "a key", key, sizeof(key)));
        if (skip != NULL && strcmp(key, skip) == 0)
            continue;
        while (row->path != NULL && strcmp(row->path, key) != 0)
            row++;
        if (row->path == NULL) {
            nearest near = {.wanted = key, .score = 1 << 20};
            for (row = table; row->path != NULL; row++)
                consider(&near, row->path, strlen(row->path));
            REFUSE(fy_node_pair_key(pair), "unknown key '%s' of %s: nearest is '%s'", key, what, near.best);
        }
        TP_TRY(read_field(rd, fy_node_pair_value(pair), key, row, base));
    }
    return TP_OK;
}

static tp_status read_inputs(const reader *rd, struct fy_node *n, const char *key)
{
    tp_recipe *r = rd->r;
    void *it = NULL;
    struct fy_node *item;

    TP_TRY(want_sequence(rd, n, key, 1, TP_RECIPE_INPUTS, &r->data.n_inputs));
    for (int i = 0; (item = fy_node_sequence_iterate(n, &it)) != NULL; i++) {
        tp_recipe_input *in = &r->data.inputs[i];
        *in = (tp_recipe_input){.factor = 1.0};
        if (fy_node_is_scalar(item))
            TP_TRY(scalar_text(rd, item, key, in->name, sizeof(in->name)));
        else
            TP_TRY(read_fields(rd, item, "an input", tp_schema_input, in, NULL));
        if (in->name[0] == '\0')
            REFUSE(item, "an input has no name");
    }
    return TP_OK;
}

static tp_status read_layers(const reader *rd, struct fy_node *n, const char *key, tp_layer *parent,
                             int depth);

static tp_layer_kind layer_kind(const char *name)
{
    for (int k = 0; k < TP_LAYER_KINDS; k++)
        if (strcmp(tp_layer_kind_name((tp_layer_kind)k), name) == 0)
            return (tp_layer_kind)k;
    return TP_LAYER_KINDS;
}

/* An option that a layer has no use for is a mistake, not a wish to be passed over. */
static tp_status check_options(const reader *rd, struct fy_node *fields, tp_layer_kind kind)
{
    const char *layer = tp_layer_kind_name(kind);
    void *it = NULL;
    struct fy_node_pair *pair;

    while ((pair = fy_node_mapping_iterate(fields, &it)) != NULL) {
        const char *option = fy_node_get_scalar0(fy_node_pair_key(pair));
        if (option != NULL && !tp_schema_layer_takes(kind, option))
            REFUSE(fy_node_pair_key(pair), "%s has no option '%s'", layer, option);
    }
    return TP_OK;
}

/* "- relu" or "- dense: {units: 64}"; residual, concat, sum and product hold lists of their own. */
static tp_status read_layer(const reader *rd, struct fy_node *item, tp_layer *parent, int depth)
{
    struct fy_node *fields = NULL, *head = item;
    char name[TP_LAYER_NAME_SIZE];
    tp_layer *l = NULL;

    if (fy_node_is_mapping(item)) {
        if (fy_node_mapping_item_count(item) != 1)
            REFUSE(item, "a layer is its name, or its name with a mapping of options");
        struct fy_node_pair *pair = fy_node_mapping_get_by_index(item, 0);
        head = fy_node_pair_key(pair);
        fields = fy_node_pair_value(pair);
    }
    TP_TRY(scalar_text(rd, head, "a layer", name, sizeof(name)));
    const tp_layer_kind kind = layer_kind(name);
    if (kind == TP_LAYER_KINDS) {
        nearest near = {.wanted = name, .score = 1 << 20};
        for (int k = 0; k < TP_LAYER_KINDS; k++)
            consider(&near, tp_layer_kind_name((tp_layer_kind)k), TP_LAYER_NAME_SIZE);
        REFUSE(head, "unknown layer '%s': nearest is '%s'", name, near.best);
    }
    TP_TRY(tp_layer_append(parent, kind, &l));
    if (fields == NULL || (fy_node_is_scalar(fields) && fy_node_get_scalar0(fields)[0] == '\0'))
        return TP_OK;
    if (fy_node_is_sequence(fields) && !tp_schema_layer_takes(kind, "layers"))
        REFUSE(fields, "%s holds no layers of its own", name);
    if (fy_node_is_sequence(fields))
        return read_layers(rd, fields, name, l, depth + 1);
    TP_TRY(read_fields(rd, fields, name, tp_schema_layer, l, "layers"));
    TP_TRY(check_options(rd, fields, kind));
    struct fy_node *inner = fy_node_mapping_lookup_by_string(fields, "layers", FY_NT);
    return inner != NULL ? read_layers(rd, inner, name, l, depth + 1) : TP_OK;
}

static tp_status read_layers(const reader *rd, struct fy_node *n, const char *key, tp_layer *parent,
                             int depth)
{
    void *it = NULL;
    struct fy_node *item;
    int count;

    TP_TRY(want_sequence(rd, n, key, 1, 4096, &count));
    if (depth > MAX_DEPTH)
        REFUSE(n, "%s: layers are nested deeper than %d", key, MAX_DEPTH);
    while ((item = fy_node_sequence_iterate(n, &it)) != NULL)
        TP_TRY(read_layer(rd, item, parent, depth));
    return TP_OK;
}

static tp_status read_range(const reader *rd, struct fy_node *n, const char *key, int part)
{
    void *it = NULL;
    int count;
    tp_recipe *r = rd->r;

    if (fy_node_is_scalar(n)) /* a group or a file */
        return scalar_text(rd, n, key, r->data.source[part], TP_RECIPE_TEXT);
    TP_TRY(want_sequence(rd, n, key, 1, 2, &count));
    if (count != 2)
        REFUSE(n, "%s must be [from, to], or a group or file", key);
    TP_TRY(moment(rd, fy_node_sequence_iterate(n, &it), key, &r->data.from[part]));
    TP_TRY(moment(rd, fy_node_sequence_iterate(n, &it), key, &r->data.to[part]));
    if (!(r->data.from[part] < r->data.to[part]))
        REFUSE(n, "%s ends before it begins", key);
    return TP_OK;
}

static tp_status read_pair(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row,
                           int64_t *out)
{
    void *it = NULL;
    int count;

    if (fy_node_is_scalar(n)) {
        TP_TRY(integer(rd, n, key, row, &out[0]));
        out[1] = out[0];
        return TP_OK;
    }
    TP_TRY(want_sequence(rd, n, key, 1, 2, &count));
    for (int i = 0; i < count; i++)
        TP_TRY(integer(rd, fy_node_sequence_iterate(n, &it), key, row, &out[i]));
    return TP_OK;
}

static tp_status read_hidden(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row)
{
    void *it = NULL;
    tp_recipe *r = rd->r;

    TP_TRY(want_sequence(rd, n, key, 0, TP_RECIPE_HIDDEN, &r->model.n_hidden));
    for (int i = 0; i < r->model.n_hidden; i++)
        TP_TRY(integer(rd, fy_node_sequence_iterate(n, &it), key, row, &r->model.hidden[i]));
    return TP_OK;
}

static tp_status read_metrics(const reader *rd, struct fy_node *n, const char *key)
{
    void *it = NULL;
    tp_recipe *r = rd->r;

    TP_TRY(want_sequence(rd, n, key, 1, TP_RECIPE_METRICS, &r->train.n_metrics));
    for (int i = 0; i < r->train.n_metrics; i++)
        TP_TRY(
            scalar_text(rd, fy_node_sequence_iterate(n, &it), key, r->train.metrics[i], TP_LAYER_NAME_SIZE));
    return TP_OK;
}

static tp_status read_field(const reader *rd, struct fy_node *n, const char *key, const tp_schema_row *row,
                            void *base)
{
    void *at = (char *)base + row->offset;

    switch (row->type) {
    case TP_KEY_NUMBER:
        return number(rd, n, key, row, at);
    case TP_KEY_INTEGER:
        return integer(rd, n, key, row, at);
    case TP_KEY_PAIR:
        return read_pair(rd, n, key, row, at);
    case TP_KEY_BOOL:
        return boolean(rd, n, key, at);
    case TP_KEY_TEXT:
        return scalar_text(rd, n, key, at, (size_t)row->max);
    case TP_KEY_CHOICE: {
        int value = 0;
        TP_TRY(choice(rd, n, key, row->choices, &value));
        memcpy(at, &value, sizeof(value));
        return TP_OK;
    }
    case TP_KEY_INPUTS:
        return read_inputs(rd, n, key);
    case TP_KEY_LAYERS:
        tp_layer_clear(&rd->r->model.layers);
        rd->r->model.builder = TP_BUILDER_LAYERS;
        return read_layers(rd, n, key, &rd->r->model.layers, 0);
    case TP_KEY_HIDDEN:
        return read_hidden(rd, n, key, row);
    case TP_KEY_METRICS:
        return read_metrics(rd, n, key);
    default:
        return read_range(rd, n, key, (int)row->min);
    }
}

/* ---- the tree of keys ---- */

/* Does path, with an optimizer's name in place of '@', name this row (or, as_prefix, something below path)?
 */
static int row_matches(const tp_schema_row *row, const char *path, int as_prefix)
{
    static const char stem[] = "optimizer.";
    char plain[MAX_PATH_TEXT];
    const size_t skip = sizeof(stem) - 1;

    snprintf(plain, sizeof(plain), "%s", path);
    if (strncmp(path, stem, skip) == 0)
        for (int k = 0; tp_schema_optimizers[k] != NULL; k++) {
            const size_t n = strlen(tp_schema_optimizers[k]);
            if (strncmp(path + skip, tp_schema_optimizers[k], n) == 0 &&
                (path[skip + n] == '.' || path[skip + n] == '\0'))
                snprintf(plain, sizeof(plain), "%s@%s", stem, path + skip + n);
        }
    const size_t n = strlen(plain);
    return as_prefix ? strncmp(row->path, plain, n) == 0 && row->path[n] == '.'
                     : strcmp(row->path, plain) == 0;
}

/* Takes note of which optimizer a path names, with that optimizer's defaults. */
static void note_optimizer(tp_recipe *r, const char *path)
{
    for (int k = 0; tp_schema_optimizers[k] != NULL; k++) {
        const size_t n = strlen(tp_schema_optimizers[k]);
        if (strncmp(path, "optimizer.", 10) == 0 && strncmp(path + 10, tp_schema_optimizers[k], n) == 0 &&
            (path[10 + n] == '.' || path[10 + n] == '\0') && (int)r->optimizer.kind != k)
            tp_recipe_optimizer_defaults(r, (tp_optimizer_kind)k);
    }
}

static tp_status check_one_optimizer(const reader *rd, struct fy_node *n)
{
    const char *first = NULL;

    for (int k = 0; fy_node_is_mapping(n) && tp_schema_optimizers[k] != NULL; k++) {
        if (fy_node_mapping_lookup_pair_by_string(n, tp_schema_optimizers[k], FY_NT) == NULL)
            continue;
        if (first != NULL)
            REFUSE(n, "optimizer names %s and %s, must name one", first, tp_schema_optimizers[k]);
        first = tp_schema_optimizers[k];
    }
    return TP_OK;
}

static tp_status check_one_model(const reader *rd, struct fy_node *n)
{
    if (fy_node_is_mapping(n) && fy_node_mapping_lookup_pair_by_string(n, "builder", FY_NT) != NULL &&
        fy_node_mapping_lookup_pair_by_string(n, "layers", FY_NT) != NULL)
        REFUSE(n, "model names a builder and layers, must name one");
    return TP_OK;
}

static tp_status read_node(const reader *rd, struct fy_node *n, struct fy_node *key_node, const char *path,
                           const char *parent, const char *key, int depth)
{
    int is_section = 0;
    void *it = NULL;
    struct fy_node_pair *pair;

    if (strcmp(path, "optimizer") == 0)
        TP_TRY(check_one_optimizer(rd, n));
    if (strcmp(path, "model") == 0)
        TP_TRY(check_one_model(rd, n));
    note_optimizer(rd->r, path);
    for (const tp_schema_row *row = tp_schema; row->path != NULL; row++) {
        if (row_matches(row, path, 0))
            return read_field(rd, n, path, row, rd->r);
        is_section |= path[0] == '\0' || row_matches(row, path, 1);
    }
    if (!is_section) {
        nearest near;
        nearest_key(parent, key, &near);
        REFUSE(key_node, "unknown key '%s': nearest is '%s'", path, near.best);
    }
    if (fy_node_is_scalar(n) && fy_node_get_scalar0(n)[0] == '\0' &&
        strncmp(path, "optimizer.", 10) == 0) /* "optimizer: {adam: }" takes the defaults */
        return TP_OK;
    if (!fy_node_is_mapping(n) || depth > MAX_DEPTH)
        REFUSE(n, "%s must be a mapping", path[0] != '\0' ? path : "a recipe");
    while ((pair = fy_node_mapping_iterate(n, &it)) != NULL) {
        char name[128], below[MAX_PATH_TEXT];
        TP_TRY(scalar_text(rd, fy_node_pair_key(pair), "a key", name, sizeof(name)));
        if (strchr(name, '.') != NULL)
            REFUSE(fy_node_pair_key(pair),
                   "unknown key '%s': a dot belongs into --set, here sections are nested", name);
        snprintf(below, sizeof(below), "%.100s%s%.127s", path, path[0] != '\0' ? "." : "", name);
        TP_TRY(read_node(rd, fy_node_pair_value(pair), fy_node_pair_key(pair), below, path, name, depth + 1));
    }
    return TP_OK;
}

/* ---- documents ---- */

/* Refuses what the schema has no use for: anchors, aliases, tags. */
static tp_status check_plain(const reader *rd, struct fy_node *n, int depth)
{
    void *it = NULL;
    size_t len = 0;

    if (depth > MAX_DEPTH)
        REFUSE(n, "nested deeper than %d", MAX_DEPTH);
    if (fy_node_is_alias(n) || fy_node_get_anchor(n) != NULL || fy_node_get_tag(n, &len) != NULL)
        REFUSE(n, "anchors, aliases and tags are not used in recipes");
    if (fy_node_is_mapping(n)) {
        struct fy_node_pair *pair;
        while ((pair = fy_node_mapping_iterate(n, &it)) != NULL) {
            if (fy_node_pair_key(pair) == NULL)
                REFUSE(n, "a key is missing");
            TP_TRY(check_plain(rd, fy_node_pair_key(pair), depth + 1));
            if (fy_node_pair_value(pair) != NULL)
                TP_TRY(check_plain(rd, fy_node_pair_value(pair), depth + 1));
        }
    } else if (fy_node_is_sequence(n)) {
        struct fy_node *item;
        while ((item = fy_node_sequence_iterate(n, &it)) != NULL)
            TP_TRY(check_plain(rd, item, depth + 1));
    }
    return TP_OK;
}

static tp_status syntax_error(const reader *rd, struct fy_diag *diag)
{
    void *it = NULL;
    struct fy_diag_error *e = fy_diag_errors_iterate(diag, &it);

    TP_CHECK(e != NULL, TP_ERECIPE, "%s: is empty", rd->file);
    TP_FAIL(TP_ERECIPE, "%s:%d:%d: %s", rd->file, e->line, e->column, e->msg);
}

/* Parses text and hands its root to `use`; path is where an override goes. */
static tp_status parse(const reader *rd, const char *text, const char *path)
{
    struct fy_diag_cfg diag_cfg;
    tp_status st;

    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    struct fy_diag *diag = fy_diag_create(&diag_cfg);
    TP_CHECK(diag != NULL, TP_ENOMEM, "%s: no memory to parse it", rd->file);
    fy_diag_set_collect_errors(diag, true);
    const struct fy_parse_cfg cfg = {.flags = FYPCF_DEFAULT_PARSE | FYPCF_QUIET, .diag = diag};
    struct fy_document *doc = fy_document_build_from_string(&cfg, text, FY_NT);
    if (doc == NULL)
        st = syntax_error(rd, diag);
    else {
        struct fy_node *root = fy_document_root(doc);
        if (root == NULL)
            st = tp_error_set(TP_ERECIPE, __FILE__, __LINE__, "%s: is empty", rd->file);
        else {
            const char *dot = strrchr(path, '.');
            char parent[MAX_PATH_TEXT];
            snprintf(parent, sizeof(parent), "%.*s", dot != NULL ? (int)(dot - path) : 0, path);
            st = check_plain(rd, root, 0);
            if (st == TP_OK)
                st = read_node(rd, root, root, path, parent, dot != NULL ? dot + 1 : path, 0);
        }
        fy_document_destroy(doc);
    }
    fy_diag_destroy(diag);
    return st;
}

static tp_status read_text(const char *path, char **out)
{
    FILE *f = fopen(path, "r");
    size_t n = 0, got;

    TP_CHECK(f != NULL || errno != ENOENT, TP_ENOENT, "%s: no such recipe", path);
    TP_CHECK(f != NULL, TP_EIO, "%s: %s", path, strerror(errno));
    tp_status st = TP_OK;
    do {
        st = tp_realloc(out, n, n + 65537, 1, "recipe");
        got = st == TP_OK ? fread(*out + n, 1, 65536, f) : 0;
        n += got;
        if (st == TP_OK && n > ((size_t)1 << 24))
            st = tp_error_set(TP_ERECIPE, __FILE__, __LINE__, "%s: has over 16 MiB", path);
    } while (st == TP_OK && got > 0);
    if (st == TP_OK && strlen(*out) != n)
        st = tp_error_set(TP_ERECIPE, __FILE__, __LINE__, "%s: has a 0 byte, so it is no text", path);
    if (st == TP_OK && ferror(f))
        st = tp_error_set(TP_EIO, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
    fclose(f);
    return st;
}

/* "---" at the beginning of a line, after anything but comments, begins another document: its line, or 0. */
static int second_document(const char *text)
{
    int line = 1, content = 0;

    for (const char *at = text; at != NULL; line++) {
        const size_t blank = strspn(at, " \t");
        const int marker = strncmp(at, "---", 3) == 0 && strchr(" \t\r\n", at[3]) != NULL;
        if (marker && content)
            return line;
        content |= !marker && at[blank] != '#' && strchr("\r\n", at[blank]) == NULL;
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return 0;
}

static tp_status apply_set(tp_recipe *r, const char *set)
{
    char path[MAX_PATH_TEXT], shown[MAX_PATH_TEXT + 16];
    const char *eq = strchr(set, '=');

    TP_CHECK(eq != NULL && eq != set && eq - set < MAX_PATH_TEXT, TP_ERECIPE, "--set '%s': must be KEY=VALUE",
             set);
    snprintf(path, sizeof(path), "%.*s", (int)(eq - set), set);
    snprintf(shown, sizeof(shown), "--set %s", path);
    const reader rd = {r, shown};
    return parse(&rd, eq + 1, path);
}

static tp_status check_whole(const tp_recipe *r, const char *path)
{
    TP_CHECK(r->data.n_inputs > 0, TP_ERECIPE, "%s: data.inputs is missing", path);
    TP_CHECK(r->data.target[0] != '\0', TP_ERECIPE, "%s: data.target.name is missing", path);
    TP_CHECK(r->model.builder != TP_BUILDER_LAYERS || r->model.layers.n_children > 0, TP_ERECIPE,
             "%s: model.builder or model.layers is missing", path);
    TP_CHECK(r->train.batch % r->train.accumulate == 0, TP_ERECIPE,
             "%s: train.accumulate is %lld, must divide train.batch %lld", path,
             (long long)r->train.accumulate, (long long)r->train.batch);
    TP_CHECK(r->train.patience == 0 || r->train.best[0] != '\0', TP_ERECIPE,
             "%s: train.early_stop.patience is %lld, but train.best.metric, which it waits for, is missing",
             path, (long long)r->train.patience);
    TP_CHECK(r->data.target_kind != TP_TARGET_CLASS || r->objective.loss == TP_LOSS_AUTO ||
                 r->objective.loss == TP_LOSS_CROSS_ENTROPY,
             TP_ERECIPE,
             "%s: objective.loss is for values, and data.target.kind class has none: want auto or "
             "softmax_cross_entropy, or a target of kind onehot",
             path);
    return TP_OK;
}

tp_status tp_recipe_read(tp_recipe *r, const char *path, int n_sets, const char *const *sets)
{
    char *text = NULL;
    const reader rd = {r, path};

    tp_recipe_defaults(r);
    tp_status st = read_text(path, &text);
    if (st == TP_OK)
        st = parse(&rd, text, "");
    if (st == TP_OK && second_document(text) != 0)
        st = tp_error_set(TP_ERECIPE, __FILE__, __LINE__,
                          "%s:%d:1: a second document begins, a recipe is one", path, second_document(text));
    tp_free(text);
    for (int i = 0; i < n_sets && st == TP_OK; i++)
        st = apply_set(r, sets[i]);
    if (st == TP_OK)
        st = check_whole(r, path);
    if (st != TP_OK)
        tp_recipe_clear(r);
    return st;
}

void tp_recipe_clear(tp_recipe *r)
{
    tp_layer_clear(&r->model.layers);
    *r = (tp_recipe){.data = {.n_inputs = 0}};
}

tp_status tp_layers_parse(tp_layer *out, const char *text, const char *file)
{
    tp_recipe *r = NULL;

    TP_TRY(tp_alloc(&r, 1, sizeof(*r), "layers"));
    const reader rd = {r, file};
    const tp_status st = parse(&rd, text, "model.layers");
    if (st == TP_OK) {
        *out = r->model.layers;
        r->model.layers = (tp_layer){.kind = TP_LAYER_SEQUENCE};
    }
    tp_recipe_clear(r);
    tp_free(r);
    return st;
}
