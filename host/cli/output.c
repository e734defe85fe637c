/* output.c - what commands give out: a device, JSON, and files. */
#include "host/cli/cli.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void cli_print_device(const char *device, const char *note)
{
    printf("%s", device);
    if (note[0] != '\0')
        printf(" (%s)", note);
}

json_t *cli_json_number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* Bytes of the character that text begins with; 0 if it is not UTF-8. */
static size_t character(const char *text)
{
    const size_t most = strnlen(text, 4);

    for (size_t n = 1; n <= most; n++) {
        json_t *one = json_stringn(text, n);
        json_decref(one);
        if (one != NULL)
            return n;
    }
    return 0;
}

json_t *cli_json_text(const char *text)
{
    static const char unknown[] = "\xEF\xBF\xBD";
    json_t *s = json_string(text);
    char *fit = s == NULL ? malloc(strlen(text) * 3 + 1) : NULL, *to = fit;

    if (fit == NULL)
        return s;
    while (*text != '\0') {
        const size_t n = character(text), length = n > 0 ? n : 3;
        memcpy(to, n > 0 ? text : unknown, length);
        to += length;
        text += n > 0 ? n : 1;
    }
    s = json_stringn(fit, (size_t)(to - fit));
    free(fit);
    return s;
}

json_t *cli_json_part(const tp_run_part *p)
{
    json_t *o = json_object();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(o, p->names[i], cli_json_number(p->values[i]));
    return o;
}

int cli_json_print(json_t *o)
{
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(o);
    if (line == NULL)
        return cli_fail(tp_error_set(TP_ENOMEM, __FILE__, __LINE__, "no memory for the JSON object"));
    puts(line);
    free(line);
    return 0;
}

/* ---- files ---- */

#define MAX_TEMPS 1000

static char temp[PATH_MAX];
static volatile sig_atomic_t is_temp; /* what temp names is ours to remove */

static void on_signal(int number)
{
    if (is_temp)
        unlink(temp);
    raise(number); /* not handled any more, it ends the process */
}

static void remove_on_signals(void)
{
    static const int numbers[] = {SIGHUP, SIGINT, SIGTERM};
    const struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction before;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(numbers[i], &act, NULL);
}

/* Beside path, with the rights of the file that it will replace, if there is one. A name may be taken by a
 * process that died before it could remove its file. */
static FILE *create_temp(const char *path, mode_t rights)
{
    int fd = -1;

    remove_on_signals();
    errno = EEXIST;
    for (int i = 0; fd < 0 && errno == EEXIST && i < MAX_TEMPS; i++) {
        is_temp = 0;
        if (snprintf(temp, sizeof(temp), "%s.tmp-%d-%d", path, (int)getpid(), i) >= (int)sizeof(temp)) {
            errno = ENAMETOOLONG;
            break;
        }
        is_temp = 1;
        fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, rights);
    }
    is_temp = fd >= 0;
    return fd >= 0 ? fdopen(fd, "w") : NULL;
}

tp_status cli_output_open(cli_output *o, const char *path)
{
    struct stat s;

    if (path == NULL || strcmp(path, "-") == 0) {
        *o = (cli_output){stdout, "standard output"};
        return TP_OK;
    }
    const int there = lstat(path, &s) == 0;
    o->path = path;
    o->f =
        there && !S_ISREG(s.st_mode) ? fopen(path, "w") : create_temp(path, there ? s.st_mode & 0777 : 0666);
    TP_CHECK(o->f != NULL, TP_ECREATE, "%s: cannot be created: %s", path, strerror(errno));
    return TP_OK;
}

static tp_status failed(const cli_output *o, const char *what)
{
    TP_FAIL(TP_EIO, "%s: %s: %s", o->path, what, strerror(errno));
}

tp_status cli_output_close(cli_output *o, tp_status st)
{
    if (o->f == stdout)
        return st; /* main looks whether all of it arrived */
    if (st == TP_OK && fflush(o->f) != 0)
        st = failed(o, "writing");
    if (st == TP_OK && is_temp && fsync(fileno(o->f)) != 0)
        st = failed(o, "fsync");
    if (fclose(o->f) != 0 && st == TP_OK)
        st = failed(o, "close");
    if (st == TP_OK && is_temp && rename(temp, o->path) != 0)
        st = failed(o, "rename");
    if (st != TP_OK && is_temp)
        unlink(temp);
    is_temp = 0;
    return st;
}
