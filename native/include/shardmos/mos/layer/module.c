/* The module: its manifest, contexts, timers, burst ends. */
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define MAX_ARGS 256

static char *words;               /* what argv points into */
static char *arguments[MAX_ARGS + 2];


void mos__warn(const char *format, ...)
{
    char line[1200]; /* a name has 63 characters at most */
    int begun = snprintf(line, sizeof line, "%s: warning: ", mos__name);
    va_list args;
    va_start(args, format);
    vsnprintf(line + begun, 1024, format, args);
    va_end(args);
    strcat(line, "\n");
    fputs(line, stderr); /* in one write: fprintf() makes several of it from glibc 2.37 on, between which other workers' come */
}


/* ---- contexts ---- */

mctx_t mtcp_create_context(int cpu)
{
    if (cpu != 0 || !mos__begin_context()) return errno = EINVAL, NULL;
    return &mos__context;
}


static intptr_t close_all(const intptr_t *a)
{
    (void)a;
    mos__close_all();
    return 0;
}


int mtcp_destroy_context(mctx_t mctx)
{
    if (!mctx) return FAIL(EINVAL);
    THERE(close_all, 0); /* before whoever joined goes on, and makes others */
    mos__end_context();
    return 0; /* also a second time, as mOS's programs do in their signal handler and behind the join */
}


int mtcp_destroy(void) { return 0; }


/* weak: programs bring mOS's own cpu.c */
__attribute__((weak)) int mtcp_core_affinitize(int cpu) { return cpu == 0 ? 0 : FAIL(EINVAL); }


/* ---- time ---- */

typedef struct alarm_clock {
    int id;
    callback_t call;
    struct alarm_clock *next; /* free */
} alarm_clock_t;

static alarm_clock_t *free_clocks;


static void ring(const smos_call_t *call)
{
    alarm_clock_t *c = call->arg;
    callback_t to_call = c->call;
    c->next = free_clocks;
    free_clocks = c;
    to_call(&mos__context, c->id, 0, 0, NULL);
}

static void on_timer(void *self, const smos_call_t *call) { (void)self; mos__guard(ring, call); }


static intptr_t set_timer(const intptr_t *a)
{
    alarm_clock_t *c = free_clocks;
    if (c) free_clocks = c->next;
    else c = malloc(sizeof *c);
    if (!c) return FAIL(ENOMEM);
    *c = (alarm_clock_t){.id = (int)a[0], .call = (callback_t)a[2]};
    int status = ENGINE(set_timer, 0, (int64_t)a[1], 0, on_timer, c, NULL);
    if (!status) return 0;
    c->next = free_clocks;
    free_clocks = c;
    return FAIL(-status);
}


int mtcp_settimer(mctx_t mctx, int id, struct timeval *timeout, callback_t cb)
{
    if (!mctx || !timeout || !cb || timeout->tv_sec < 0 || timeout->tv_usec < 0 || timeout->tv_sec > INT32_MAX) return FAIL(EINVAL);
    return (int)THERE(set_timer, -1, id, (intptr_t)timeout->tv_sec * 1000000000 + (intptr_t)timeout->tv_usec * 1000, (intptr_t)cb);
}


uint32_t mtcp_cb_get_ts(mctx_t mctx) { return mctx ? (uint32_t)(ENGINE(now_ns) / 1000) : 0; }


/* ---- the module ---- */

/* Words as a shell cuts them: blanks between, '...', "..." and backslashes. */
static int cut(const char *text)
{
    char quote = 0, *to = words = malloc(strlen(text) + 1);
    int n = 1;
    bool inside = false;
    if (!to) return -ENOMEM;
    arguments[0] = (char *)mos__name;
    for (const char *c = text; *c; c++) {
        bool blank = !quote && (*c == ' ' || *c == '\t' || *c == '\n');
        if (!inside && !blank) {
            if (n > MAX_ARGS) return -E2BIG;
            arguments[n++] = to;
            inside = true;
        }
        if (blank) {
            if (inside) *to++ = '\0';
            inside = false;
        } else if (quote && *c == quote) {
            quote = 0;
        } else if (!quote && (*c == '\'' || *c == '"')) {
            quote = *c;
        } else if (*c == '\\' && quote != '\'' && c[1]) {
            *to++ = *++c;
        } else {
            *to++ = *c;
        }
    }
    *to = '\0';
    return n;
}


/* Lines of several processes come whole. A stream without a buffer (PYTHONUNBUFFERED) gets one that outlives this library. */
static void print_lines(void)
{
    char *buffer = __fbufsize(stdout) == 1 ? malloc(BUFSIZ) : NULL;
    setvbuf(stdout, buffer, _IOLBF, BUFSIZ);
}


static int begin(smos_engine_t *engine, const smos_api_t *api, void **self, char *error, size_t size)
{
    uint32_t workers = 1;
    mos__engine = engine;
    mos__api = api;
    *self = &mos__context;
    mos__here++;
    mos__set_folder(ENGINE(param, NULL, "folder"));
    int n = cut(ENGINE(param, NULL, "args"));
    ENGINE(at_burst_end, mos__on_burst_end, NULL);
    ENGINE(worker, &workers);
    if (workers > 1) print_lines();
    mos__here--;
    if (n < 0) return snprintf(error, size, "the program's arguments: %s", strerror(-n)), n;
    mos__conf_read(NULL);
    return mos__start(n, arguments, error, size);
}


static void finish(void *self)
{
    (void)self;
    mos__finish();
    fflush(NULL);
    mos__flows_free();
    free(words);
}


static const smos_param_t PARAMS[] = {{"args", "str", "", "what main() gets, as on a command line"},
                                      {"folder", "str", "", "where its relative paths begin; the worker's own if empty"}, {0}};

SMOS_MODULE = {SMOS_MODULE_HEADER, .name = mos__name, .filter = "ip and ip[0] = 0", .params = PARAMS, .init = begin, .fini = finish};
