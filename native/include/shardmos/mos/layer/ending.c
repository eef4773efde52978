/* What in libc ends the process from within, other than exit() itself: err() and its like, error(), daemon(). And atexit(). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define OURS __attribute__((visibility("hidden"), weak))
#define MAX_AT_EXIT 64


/* ---- atexit() ---- */

static struct { void (*call)(void); void (*call_with)(int, void *); void *arg; } at_exit[MAX_AT_EXIT];
static int at_exit_count, at_exit_status;


OURS int atexit(void (*call)(void))
{
    if (at_exit_count == MAX_AT_EXIT) return -1;
    at_exit[at_exit_count++].call = call;
    return 0;
}


OURS int on_exit(void (*call)(int, void *), void *arg)
{
    if (at_exit_count == MAX_AT_EXIT) return -1;
    at_exit[at_exit_count].call_with = call;
    at_exit[at_exit_count++].arg = arg;
    return 0;
}


static void run_at_exit(const smos_call_t *call)
{
    (void)call;
    while (at_exit_count > 0) {
        int i = --at_exit_count; /* one that calls exit() is not called again */
        if (at_exit[i].call) at_exit[i].call();
        else at_exit[i].call_with(at_exit_status, at_exit[i].arg);
    }
}


void mos__run_at_exit(int status)
{
    at_exit_status = status;
    while (at_exit_count > 0) mos__guard_last(run_at_exit);
}


/* ---- err() and error() ---- */

static void complain(bool with_errno, int error, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "%s: ", mos__name);
    if (format) vfprintf(stderr, format, args);
    if (with_errno) fprintf(stderr, "%s%s", format ? ": " : "", strerror(error));
    fputc('\n', stderr);
}


OURS void verr(int status, const char *format, va_list args)
{
    complain(true, errno, format, args);
    mos__exit(status);
}

OURS void verrx(int status, const char *format, va_list args)
{
    complain(false, 0, format, args);
    mos__exit(status);
}

OURS void err(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(true, errno, format, args);
    va_end(args);
    mos__exit(status);
}

OURS void errx(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(false, 0, format, args);
    va_end(args);
    mos__exit(status);
}

OURS void error(int status, int number, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(number != 0, number, format, args);
    va_end(args);
    if (status) mos__exit(status);
}


/* ---- and what does not end it, but names it ---- */

OURS void vwarn(const char *format, va_list args) { complain(true, errno, format, args); }
OURS void vwarnx(const char *format, va_list args) { complain(false, 0, format, args); }

OURS void warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(true, errno, format, args);
    va_end(args);
}

OURS void warnx(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(false, 0, format, args);
    va_end(args);
}

OURS char *program_invocation_name = (char *)mos__name, *program_invocation_short_name = (char *)mos__name, *__progname = (char *)mos__name;


/* ---- failed assertions ---- */

OURS void __assert_perror_fail(int number, const char *file, unsigned line, const char *function)
{
    fprintf(stderr, "%s:%u: %s: unexpected error: %s\n", file, line, function ? function : "?", strerror(number));
    mos__exit(134);
}


/* ---- what the worker is already, and what would end it ---- */

OURS int daemon(int keep_folder, int keep_output)
{
    (void)keep_folder, (void)keep_output;
    return 0; /* no terminal to leave */
}


/* Would lock, and so fill, all that the worker reserved. */
OURS int mlockall(int flags)
{
    (void)flags;
    return 0;
}

OURS int munlockall(void) { return 0; }
