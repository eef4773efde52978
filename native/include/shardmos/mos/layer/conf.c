/* mos.conf: blocks of "name value" or "name = value" lines. What a worker can obey is obeyed; the rest is named in one warning. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define MAX_LINE 4096
#define MAX_DEPTH 8
#define DEFAULT_CONCURRENCY 100000
#define DEFAULT_TIMEOUT 30

conf_t mos__conf;
static char ignored[512]; /* names, with commas */
static char *kept[MOS_APP]; /* what app_argv points into */


static void ignore(const char *name)
{
    size_t n = strlen(ignored), length = strlen(name);
    for (const char *at = ignored; (at = strstr(at, name)); at += length)
        if ((at == ignored || at[-1] == ' ') && (at[length] == ',' || !at[length])) return;
    if (n + length + 3 < sizeof ignored) snprintf(ignored + n, sizeof ignored - n, "%s%s", n ? ", " : "", name);
}


static void set_defaults(void)
{
    for (int i = 0; i < MOS_APP; i++) free(kept[i]), kept[i] = NULL;
    mos__conf = (conf_t){.forward = true};
    mos__conf.public = (struct mtcp_conf){.num_cores = 1, .max_concurrency = DEFAULT_CONCURRENCY, .cpu_mask = 1, .rcvbuf_size = DEFAULT_BUFFER,
                                          .sndbuf_size = 8192, .tcp_timeout = DEFAULT_TIMEOUT};
    ignored[0] = '\0';
}


static bool number(const char *name, const char *value, long low, long high, int *out)
{
    char *end;
    long n = strtol(value, &end, 0);
    if (end == value || *end || n < low || n > high) return mos__warn("%s %s: no number between %ld and %ld; left as it was", name, value, low, high), false;
    *out = (int)n;
    return true;
}


static void mos_line(const char *name, const char *value)
{
    struct mtcp_conf *c = &mos__conf.public;
    int n;
    if (!strcmp(name, "max_concurrency")) {
        number(name, value, 1, 1000000000, &c->max_concurrency);
    } else if (!strcmp(name, "rmem_size")) {
        if (number(name, value, 1, 1 << 30, &c->rcvbuf_size)) mos__conf.rmem_size = c->rcvbuf_size;
    } else if (!strcmp(name, "no_ring_buffers")) {
        if (number(name, value, 0, 1, &n)) mos__conf.no_buffers = n;
    } else if (!strcmp(name, "wmem_size")) {
        number(name, value, 0, 1 << 30, &c->sndbuf_size);
    } else if (!strcmp(name, "tcp_tw_interval")) {
        number(name, value, 0, 86400, &c->tcp_timewait);
    } else if (!strcmp(name, "tcp_timeout")) {
        number(name, value, -1, 86400, &c->tcp_timeout);
    } else if (!strcmp(name, "forward")) {
        if (number(name, value, 0, 1, &n) && !n) mos__conf.forward = false, ignore("forward 0");
    } else {
        ignore(name);
    }
}


static void app_line(const char *name, const char *value)
{
    struct mtcp_conf *c = &mos__conf.public;
    int at = c->num_app - 1;
    if (strcmp(name, "run")) {
        if (strcmp(name, "type")) ignore(name);
        return;
    }
    free(kept[at]);
    kept[at] = strdup(value);
    if (kept[at]) StrToArgs(kept[at], &c->app_argc[at], c->app_argv[at], MOS_APP_ARGC);
    c->app_cpu_mask[at] = 1;
}


/* One statement: a block's beginning, its end, or a line of it. */
static void statement(char *text, char block[][32], int *depth)
{
    char *name = text + strspn(text, " \t=");
    char *end = name + strcspn(name, " \t=");
    char *value = end + strspn(end, " \t=");
    *end = '\0';
    for (size_t n = strlen(value); n && isspace((unsigned char)value[n - 1]); n--) value[n - 1] = '\0';
    if (!*name || !*depth) return;
    if (!strcmp(block[*depth - 1], "mos")) mos_line(name, value);
    else if (!strcmp(block[*depth - 1], "application")) app_line(name, value);
}


static void open_block(const char *text, char block[][32], int *depth)
{
    char name[32] = "";
    sscanf(text, " %31[^ \t={]", name);
    if (*depth == MAX_DEPTH) return;
    if (!*depth && !strcmp(name, "application") && mos__conf.public.num_app < MOS_APP) mos__conf.public.num_app++;
    else if (!*depth && strcmp(name, "mos")) ignore(name), name[0] = '\0'; /* or too many applications */
    else if (*depth) ignore(name);
    strcpy(block[(*depth)++], name);
}


static void line(char *text, char block[][32], int *depth)
{
    text[strcspn(text, "#\r\n")] = '\0';
    for (char *at = text; *at;) {
        size_t n = strcspn(at, "{}");
        char mark = at[n];
        at[n] = '\0';
        if (mark == '{') open_block(at, block, depth);
        else statement(at, block, depth);
        if (mark == '}' && *depth) --*depth;
        if (!mark) break;
        at += n + 1;
    }
}


int mos__conf_read(const char *path)
{
    char text[MAX_LINE], block[MAX_DEPTH][32], before[128] = "";
    int depth = 0;
    set_defaults();
    if (!path) return 0;
    FILE *file = fopen(path, "r");
    if (!file) {
        mos__warn("%s: %s; the defaults count", path, strerror(errno));
        return 0;
    }
    while (fgets(text, sizeof text, file)) {
        text[strcspn(text, "#\r\n")] = '\0';
        char *at = text + strspn(text, " \t");
        if (*at == '{' && before[0]) { /* the block's name stood on the line before */
            open_block(before, block, &depth);
            before[0] = '\0';
            line(at + 1, block, &depth);
            continue;
        }
        if (!*at) continue;
        if (!depth || (!strpbrk(at, " \t={}") && strlen(at) < sizeof before)) snprintf(before, sizeof before, "%s", at);
        else before[0] = '\0';
        line(at, block, &depth);
    }
    fclose(file);
    if (ignored[0]) mos__warn("%s: does not apply here and is left out: %s", path, ignored);
    return 0;
}


int mtcp_init(const char *config_file)
{
    if (!config_file) return FAIL(EINVAL);
    return mos__conf_read(config_file);
}


int mtcp_getconf(struct mtcp_conf *conf)
{
    if (!conf) return FAIL(EINVAL);
    *conf = mos__conf.public;
    return 0;
}


int mtcp_setconf(const struct mtcp_conf *conf)
{
    struct mtcp_conf *c = &mos__conf.public;
    if (!conf) return FAIL(EINVAL);
    if (conf->max_concurrency > 0) c->max_concurrency = conf->max_concurrency;
    if (conf->rcvbuf_size > 0 && conf->rcvbuf_size != c->rcvbuf_size) c->rcvbuf_size = mos__conf.rmem_size = conf->rcvbuf_size;
    if (conf->tcp_timewait >= 0) c->tcp_timewait = conf->tcp_timewait;
    c->tcp_timeout = conf->tcp_timeout < 0 ? -1 : conf->tcp_timeout;
    return 0; /* a worker stays one core */
}
