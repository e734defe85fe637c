/* cli.h - what the subcommands share. */
#ifndef TP_CLI_H
#define TP_CLI_H
#include "temper/run.h"
#include <jansson.h>
#include <stdio.h>

#define TP_EXIT_USAGE 64

/* The options, in the order in which help shows them. */
typedef enum cli_option {
    CLI_DATA,
    CLI_OUT,
    CLI_DEVICE,
    CLI_SET,
    CLI_RESUME,
    CLI_DUMP_PLAN,
    CLI_GROUP,
    CLI_TIME,
    CLI_FROM,
    CLI_TO,
    CLI_METRIC,
    CLI_WEIGHT,
    CLI_SLICE,
    CLI_BY_CLASS,
    CLI_SHAPES,
    CLI_RUNS,
    CLI_PRECISION,
    CLI_JSON,
    CLI_QUIET,
    CLI_HELP,
    CLI_OPTIONS
} cli_option;

/* What the command line says. */
typedef struct cli_args {
    const char *data, *out, *device, *time, *group, *weight, *slice, *shapes, *precision;
    double from, to; /* NaN: not given */
    int json, quiet, resume, dump_plan, by_class, help, runs;
    int n_sets, n_metrics, n_words;
    const char *sets[256], *metrics[TP_RECIPE_METRICS];
    const char *const *words; /* the command, then its arguments */
    unsigned given;           /* bit 1 << option for each option that was there */
} cli_args;

typedef struct cli_command {
    const char *name, *usage, *help;
    const char *wants; /* its arguments, for the message when there are fewer than least or more than most */
    int least, most;
    unsigned needs, takes; /* bit 1 << option: those it cannot do without, and the others */
    int (*run)(const cli_args *a);
} cli_command;

extern const cli_command cli_commands[]; /* ends with a NULL name */

int cli_train(const cli_args *a);
int cli_evaluate(const cli_args *a);
int cli_predict(const cli_args *a);
int cli_inspect(const cli_args *a);
int cli_devices(const cli_args *a);
int cli_bench(const cli_args *a);
int cli_help(const cli_args *a);

/* Prints "temper: line" on stderr and gives the status's exit code. */
int cli_fail(tp_status st);
int cli_usage(const char *format, ...) TP_PRINTF(1, 2);

/* Reads a command line; a->words stays within argv. 0, or the exit code after a line on stderr. */
int cli_parse(int argc, char **argv, cli_args *a);
/* The same for whether the options and the number of arguments are those of the command. */
int cli_check(const cli_command *c, const cli_args *a);
void cli_print_usage(const cli_command *c);

/* Prints "DEVICE", or "DEVICE (WHY NOT A GPU)" where there is a note. */
void cli_print_device(const char *device, const char *note);

/* JSON null where v is not finite. */
json_t *cli_json_number(double v);
/* A text of any bytes: each that is not UTF-8 becomes U+FFFD. */
json_t *cli_json_text(const char *text);
json_t *cli_json_part(const tp_run_part *p);
/* Prints a line and lets go of o; NULL says that there was no memory for it. 0, or the exit code. */
int cli_json_print(json_t *o);

/* A file that appears under its name whole or not at all; until then it has another name, and SIGHUP, SIGINT
 * and SIGTERM remove it. What is there and is no regular file (a device, a pipe, a link) is written as it is;
 * "-" or NULL is standard output. One at a time. */
typedef struct cli_output {
    FILE *f;
    const char *path;
} cli_output;
tp_status cli_output_open(cli_output *o, const char *path);
/* Ends the writing with status st: the file is kept if that is TP_OK. */
tp_status cli_output_close(cli_output *o, tp_status st);

#endif
