/* options.c - the options of the command line: one row each. */
#include "host/cli/cli.h"
#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_OPTION 256 /* above what getopt_long gives for a mistake */

typedef struct row {
    const char *name;
    const char *value; /* what help calls it; NULL: it has none */
    size_t field;      /* of cli_args */
    int (*read)(const struct row *o, const char *text, cli_args *a);
} row;

static void *field_of(const row *o, cli_args *a)
{
    return (char *)a + o->field;
}

static int read_switch(const row *o, const char *text, cli_args *a)
{
    (void)text;
    *(int *)field_of(o, a) = 1;
    return 0;
}

static int read_text(const row *o, const char *text, cli_args *a)
{
    *(const char **)field_of(o, a) = text;
    return 0;
}

static int read_time(const row *o, const char *text, cli_args *a)
{
    if (tp_recipe_moment(text, field_of(o, a)))
        return 0;
    return cli_usage("--%s: '%s' is no date (2001-12-31) or number", o->name, text);
}

static int read_count(const row *o, const char *text, cli_args *a)
{
    char *end;
    const long long n = strtoll(text, &end, 10);

    if (*end != '\0' || n < 1 || n > INT_MAX)
        return cli_usage("--%s wants a whole number from 1 to %d, not '%s'", o->name, INT_MAX, text);
    *(int *)field_of(o, a) = (int)n;
    return 0;
}

static int add(const row *o, const char *text, const char **list, int *n, int most)
{
    if (*n == most)
        return cli_usage("more than %d --%s: '%s'", most, o->name, text);
    list[(*n)++] = text;
    return 0;
}

static int read_set(const row *o, const char *text, cli_args *a)
{
    return add(o, text, a->sets, &a->n_sets, (int)(sizeof(a->sets) / sizeof(a->sets[0])));
}

static int read_metric(const row *o, const char *text, cli_args *a)
{
    return add(o, text, a->metrics, &a->n_metrics, TP_RECIPE_METRICS);
}

#define AT(field) offsetof(cli_args, field)

static const row options[CLI_OPTIONS] = {
    [CLI_DATA] = {"data", "FILE", AT(data), read_text},
    [CLI_OUT] = {"out", "PATH", AT(out), read_text},
    [CLI_DEVICE] = {"device", "auto|cpu|cuda[:N]", AT(device), read_text},
    [CLI_SET] = {"set", "KEY=VALUE", AT(sets), read_set},
    [CLI_RESUME] = {"resume", NULL, AT(resume), read_switch},
    [CLI_DUMP_PLAN] = {"dump-plan", NULL, AT(dump_plan), read_switch},
    [CLI_GROUP] = {"group", "GROUP", AT(group), read_text},
    [CLI_TIME] = {"time", "NAME", AT(time), read_text},
    [CLI_FROM] = {"from", "TIME", AT(from), read_time},
    [CLI_TO] = {"to", "TIME", AT(to), read_time},
    [CLI_METRIC] = {"metric", "METRIC", AT(metrics), read_metric},
    [CLI_WEIGHT] = {"weight", "NAME", AT(weight), read_text},
    [CLI_SLICE] = {"slice", "NAME", AT(slice), read_text},
    [CLI_BY_CLASS] = {"by-class", NULL, AT(by_class), read_switch},
    [CLI_SHAPES] = {"shapes", "FILE", AT(shapes), read_text},
    [CLI_RUNS] = {"runs", "N", AT(runs), read_count},
    [CLI_PRECISION] = {"precision", "fp32|tf32|bf16", AT(precision), read_text},
    [CLI_JSON] = {"json", NULL, AT(json), read_switch},
    [CLI_QUIET] = {"quiet", NULL, AT(quiet), read_switch},
    [CLI_HELP] = {"help", NULL, AT(help), read_switch},
};

int cli_parse(int argc, char **argv, cli_args *a)
{
    struct option known[CLI_OPTIONS + 1] = {{0}};
    int c, bad = 0;

    for (int i = 0; i < CLI_OPTIONS; i++)
        known[i] =
            (struct option){options[i].name, options[i].value != NULL ? required_argument : no_argument, NULL,
                            FIRST_OPTION + i};
    while (bad == 0 && (c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c < FIRST_OPTION)
            return TP_EXIT_USAGE; /* getopt has said why */
        const row *o = &options[c - FIRST_OPTION];
        a->given |= 1u << (c - FIRST_OPTION);
        bad = o->read(o, optarg, a);
    }
    a->words = (const char *const *)argv + optind;
    a->n_words = argc - optind;
    return bad;
}

int cli_check(const cli_command *c, const cli_args *a)
{
    const int n = a->n_words - 1;

    for (int i = 0; i < CLI_OPTIONS; i++)
        if (a->given & ~(c->needs | c->takes) & 1u << i)
            return cli_usage("%s takes no --%s", c->name, options[i].name);
    if (n < c->least || n > c->most)
        return cli_usage("%s wants %s: %d given", c->name, c->wants, n);
    for (int i = 0; i < CLI_OPTIONS; i++)
        if (c->needs & ~a->given & 1u << i)
            return cli_usage("%s wants --%s %s", c->name, options[i].name, options[i].value);
    return 0;
}

/* Prints a word of a usage, on a new line where it would pass column 100. */
static void print_word(const char *word, int *column)
{
    const int length = (int)strlen(word) + 1;

    if (*column + length > 100)
        *column = printf("\n     ") - 1;
    *column += printf(" %s", word);
}

void cli_print_usage(const cli_command *c)
{
    int column = printf("  temper %s", c->name);
    char word[64];

    if (c->usage[0] != '\0')
        print_word(c->usage, &column);
    for (int i = 0; i < CLI_OPTIONS; i++) {
        const row *o = &options[i];
        const int needed = (c->needs & 1u << i) != 0, many = o->read == read_set || o->read == read_metric;
        if (!needed && !(c->takes & 1u << i))
            continue;
        snprintf(word, sizeof(word), "%s--%s%s%s%s%s", needed ? "" : "[", o->name,
                 o->value != NULL ? " " : "", o->value != NULL ? o->value : "", needed ? "" : "]",
                 many ? "..." : "");
        print_word(word, &column);
    }
    printf("\n      %s\n", c->help);
}
