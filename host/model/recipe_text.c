/* recipe_text.c - a recipe written back as YAML, and the help text: both straight from the schema table. */
#include "host/model/layers_text.h"
#include "host/model/recipe_schema.h"
#include "temper/plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *choice_name(const tp_choice *choices, int value)
{
    for (int i = 0; choices[i].name != NULL; i++)
        if (choices[i].value == value)
            return choices[i].name;
    return NULL;
}

/* Double-quoted YAML: any text is safe in it. */
static void print_text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++)
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            fprintf(f, "\\x%02x", (unsigned)*s);
        else
            fputc(*s, f);
    fputc('"', f);
}

/* As few digits as give the number back. */
static int print_number(FILE *f, double v)
{
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return fprintf(f, "%s", text);
}

/* Prints a value; 0 if it has nothing to say (an empty text, a zero of a layer). */
static int print_value(FILE *f, const tp_schema_row *row, const void *base, int sparse)
{
    const void *at = (const char *)base + row->offset;
    const int64_t *pair = at;

    switch (row->type) {
    case TP_KEY_NUMBER:
        return sparse && *(const double *)at == 0.0 ? 0 : print_number(f, *(const double *)at);
    case TP_KEY_INTEGER:
        return sparse && pair[0] == 0 ? 0 : fprintf(f, "%lld", (long long)pair[0]);
    case TP_KEY_PAIR:
        if (pair[1] == 0) /* nothing said, or of one dimension only */
            return pair[0] == 0 ? 0 : fprintf(f, "[%lld]", (long long)pair[0]);
        return fprintf(f, "[%lld, %lld]", (long long)pair[0], (long long)pair[1]);
    case TP_KEY_BOOL:
        return sparse && *(const int *)at == 0 ? 0 : fprintf(f, "%s", *(const int *)at ? "true" : "false");
    case TP_KEY_CHOICE: {
        const char *name = choice_name(row->choices, *(const int *)at);
        return name == NULL || (sparse && *(const int *)at == 0) ? 0 : fprintf(f, "%s", name);
    }
    case TP_KEY_TEXT:
        if (*(const char *)at == '\0')
            return 0;
        print_text(f, at);
        return 1;
    default:
        return 0;
    }
}

/* "key: value" pairs of a table inside { }. dim, filters and units share a field: the last that fits the kind
 * is printed. sparse: without what is 0. */
static int print_fields(FILE *f, const tp_schema_row *table, const void *base, const char *const *skip,
                        int sparse)
{
    int n = 0;
    for (const tp_schema_row *row = table; row->path != NULL; row++) {
        char *text = NULL;
        size_t size = 0;
        int skipped = 0;
        for (int i = 0; skip != NULL && skip[i] != NULL; i++)
            skipped |= strcmp(skip[i], row->path) == 0;
        FILE *m = skipped ? NULL : open_memstream(&text, &size);
        if (m == NULL)
            continue;
        const int some = print_value(m, row, base, sparse);
        fclose(m);
        if (some > 0)
            fprintf(f, "%s%s: %s", n++ > 0 ? ", " : "", row->path, text);
        tp_text_free(text);
    }
    return n;
}

/* The children of a layer with neither name nor input are printed right below it, as people write them: a
 * list nested so deep that it could only just be read can then be read again. */
static void print_layers(FILE *f, const tp_layer *parent, int indent)
{
    static const char *const of_dense[] = {"filters", "dim", NULL}, *const of_conv[] = {"units", "dim", NULL},
                             *const of_embedding[] = {"units", "filters", NULL};
    for (int i = 0; i < parent->n_children; i++) {
        const tp_layer *l = &parent->children[i];
        const char *const *skip = l->kind == TP_LAYER_CONV        ? of_conv
                                  : l->kind == TP_LAYER_EMBEDDING ? of_embedding
                                                                  : of_dense;
        fprintf(f, "%*s- %s:", indent, "", tp_layer_kind_name(l->kind));
        if (l->n_children == 0) {
            fprintf(f, " {");
            print_fields(f, tp_schema_layer, l, skip, 1);
            fprintf(f, "}\n");
            continue;
        }
        fputc('\n', f);
        if (l->name[0] == '\0' && l->input[0] == '\0') {
            print_layers(f, l, indent + 4);
            continue;
        }
        for (const tp_schema_row *row = tp_schema_layer; row->path != NULL; row++)
            if (row->type == TP_KEY_TEXT && *((const char *)l + row->offset) != '\0') {
                fprintf(f, "%*s%s: ", indent + 4, "", row->path);
                print_text(f, (const char *)l + row->offset);
                fputc('\n', f);
            }
        fprintf(f, "%*slayers:\n", indent + 4, "");
        print_layers(f, l, indent + 6);
    }
}

tp_status tp_layers_text(const tp_layer *root, char **out)
{
    size_t size = 0;
    FILE *f = open_memstream(out, &size);

    TP_CHECK(f != NULL, TP_ENOMEM, "layers: no memory for their text");
    print_layers(f, root, 0);
    TP_CHECK(fclose(f) == 0, TP_ENOMEM, "layers: no memory for their text");
    return TP_OK;
}

static void print_special(FILE *f, const tp_schema_row *row, const tp_recipe *r, const char *key, int indent)
{
    const int part = (int)row->min;

    switch (row->type) {
    case TP_KEY_INPUTS:
        fprintf(f, "%*s%s:\n", indent, "", key);
        for (int i = 0; i < r->data.n_inputs; i++) {
            fprintf(f, "%*s- {", indent + 2, "");
            print_fields(f, tp_schema_input, &r->data.inputs[i], NULL, 0);
            fprintf(f, "}\n");
        }
        break;
    case TP_KEY_LAYERS:
        if (r->model.builder != TP_BUILDER_LAYERS)
            break;
        fprintf(f, "%*s%s:\n", indent, "", key);
        print_layers(f, &r->model.layers, indent + 2);
        break;
    case TP_KEY_HIDDEN:
        fprintf(f, "%*s%s: [", indent, "", key);
        for (int i = 0; i < r->model.n_hidden; i++)
            fprintf(f, "%s%lld", i == 0 ? "" : ", ", (long long)r->model.hidden[i]);
        fprintf(f, "]\n");
        break;
    case TP_KEY_METRICS:
        for (int i = 0; i < r->train.n_metrics; i++) {
            i == 0 ? fprintf(f, "%*s%s: [", indent, "", key) : fprintf(f, ", ");
            print_text(f, r->train.metrics[i]);
        }
        if (r->train.n_metrics > 0)
            fprintf(f, "]\n");
        break;
    case TP_KEY_RANGE:
        if (r->data.source[part][0] != '\0') {
            fprintf(f, "%*s%s: ", indent, "", key);
            print_text(f, r->data.source[part]);
            fputc('\n', f);
        } else if (r->data.from[part] < r->data.to[part])
            fprintf(f, "%*s%s: [%.17g, %.17g]\n", indent, "", key, r->data.from[part], r->data.to[part]);
        break;
    default:
        break;
    }
}

/* Opens the sections of `path` that `open` (the path before it) has not: returns the last component. */
static const char *open_sections(FILE *f, const char *path, char *open, size_t size, int *indent)
{
    size_t same = 0;

    *indent = 0;
    for (size_t i = 0; path[i] != '\0' && path[i] == open[i]; i++)
        if (path[i] == '.')
            same = i + 1;
    for (size_t i = 0; i < same; i++)
        *indent += path[i] == '.' ? 2 : 0;
    const char *at = path + same;
    for (const char *dot; (dot = strchr(at, '.')) != NULL; at = dot + 1) {
        fprintf(f, "%*s%.*s:\n", *indent, "", (int)(dot - at), at);
        *indent += 2;
    }
    snprintf(open, size, "%s", path);
    return at;
}

tp_status tp_recipe_text(const tp_recipe *r, char **out)
{
    size_t size = 0;
    char open[TP_RECIPE_TEXT] = "";
    FILE *f = open_memstream(out, &size);

    TP_CHECK(f != NULL, TP_ENOMEM, "recipe: no memory for its text");
    for (const tp_schema_row *row = tp_schema; row->path != NULL; row++) {
        char path[TP_RECIPE_TEXT], *text = NULL;
        size_t n = 0;
        int indent = 0;
        const char *sign = strchr(row->path, '@');
        if (sign != NULL)
            snprintf(path, sizeof(path), "optimizer.%s%s", tp_schema_optimizers[r->optimizer.kind], sign + 1);
        else
            snprintf(path, sizeof(path), "%s", row->path);
        FILE *m = open_memstream(&text, &n);
        if (m == NULL)
            continue;
        const char *last = strrchr(path, '.') + 1;
        int some = print_value(m, row, r, 0);
        if (some <= 0)
            print_special(m, row, r, last, 0);
        fclose(m);
        if (n > 0) {
            open_sections(f, path, open, sizeof(open), &indent);
            if (some > 0)
                fprintf(f, "%*s%s: %s\n", indent, "", last, text);
            else
                print_special(f, row, r, last, indent);
        }
        tp_text_free(text);
    }
    TP_CHECK(fclose(f) == 0, TP_ENOMEM, "recipe: no memory for its text");
    return TP_OK;
}

static void help_row(FILE *f, const tp_schema_row *row, const char *indent)
{
    fprintf(f, "%s%-32s ", indent, row->path);
    if (row->type == TP_KEY_CHOICE)
        for (int i = 0; row->choices[i].name != NULL; i++)
            fprintf(f, "%s%s", i > 0 ? "|" : "", row->choices[i].name);
    else if (row->type == TP_KEY_NUMBER)
        fprintf(f, "number %g..%g", row->min, row->max);
    else if (row->type == TP_KEY_INTEGER || row->type == TP_KEY_PAIR || row->type == TP_KEY_HIDDEN)
        fprintf(f, "%s %.0f..%.0f", row->type == TP_KEY_HIDDEN ? "list of integers" : "integer", row->min,
                row->max);
    else
        fprintf(f, "%s",
                row->type == TP_KEY_BOOL   ? "true|false"
                : row->type == TP_KEY_TEXT ? "text"
                                           : "list");
    fprintf(f, "\n%s    %s\n", indent, row->help);
}

tp_status tp_recipe_help(char **out)
{
    size_t size = 0;
    tp_recipe defaults;
    FILE *f = open_memstream(out, &size);

    TP_CHECK(f != NULL, TP_ENOMEM, "recipe: no memory for its help");
    tp_recipe_defaults(&defaults);
    for (const tp_schema_row *row = tp_schema; row->path != NULL; row++) {
        help_row(f, row, "");
        if (strchr(row->path, '@') != NULL)
            continue;
        fprintf(f, "    default: ");
        if (print_value(f, row, &defaults, 0) <= 0)
            fprintf(f, "none");
        fputc('\n', f);
    }
    fprintf(f, "\n@ is one of");
    for (int i = 0; tp_schema_optimizers[i] != NULL; i++)
        fprintf(f, " %s", tp_schema_optimizers[i]);
    fprintf(f, "\n\nan input:\n");
    for (const tp_schema_row *row = tp_schema_input; row->path != NULL; row++)
        help_row(f, row, "  ");
    fprintf(f, "\na layer:");
    for (int k = 1; k < TP_LAYER_KINDS; k++)
        fprintf(f, " %s", tp_layer_kind_name((tp_layer_kind)k));
    fputc('\n', f);
    for (const tp_schema_row *row = tp_schema_layer; row->path != NULL; row++)
        help_row(f, row, "  ");
    TP_CHECK(fclose(f) == 0, TP_ENOMEM, "recipe: no memory for its help");
    return TP_OK;
}
