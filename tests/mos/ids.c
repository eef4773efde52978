/* Signatures in reassembled streams: each is found wherever segments cut it. A context for each flow, user-defined events over NEW_DATA, alerts once
 * per flow, side and signature; "-r" resets what matched; "-q BYTES" keeps that many bytes only; the rest of the arguments are signatures. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

#define MAX_SIGNATURES 16
#define LONGEST 64

struct tail { /* the last bytes of one side */
    char bytes[LONGEST];
    int count;
    unsigned long seen, lost;
    unsigned found;
};

struct watched { struct tail side[2]; };
struct signature { char text[LONGEST]; };

static int resets, ended;

static void on_start(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { mtcp_set_uctx(mctx, sock, calloc(1, sizeof(struct watched))); }

/* Asked by the first event over NEW_DATA: reads on, once for all signatures. */
static char window[LONGEST + 65536];
static int window_length;

static bool reads_on(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct watched *w = mtcp_get_uctx(mctx, sock);
    struct tail *t = &w->side[side];
    ssize_t n;
    memcpy(window, t->bytes, t->count);
    while ((n = mtcp_peek(mctx, sock, side, window + t->count, 65536)) < 0 && errno == ENODATA) {
        t->lost -= n;
        t->count = 0; /* nothing is found across a hole */
    }
    if (n <= 0) return false;
    t->seen += n;
    window_length = t->count + n;
    t->count = window_length < LONGEST - 1 ? window_length : LONGEST - 1;
    memmove(t->bytes, window + window_length - t->count, t->count);
    return true;
}

static bool matches(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct signature *s = arg->arg;
    return memmem(window, window_length, s->text, strlen(s->text)) != NULL;
}

static int reset_them;

static void alert(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct watched *w = mtcp_get_uctx(mctx, sock);
    struct signature *s = arg->arg;
    struct sockaddr_in a[2];
    socklen_t length = sizeof(a);
    if (w->side[side].found & 1u << (event & 31)) return;
    w->side[side].found |= 1u << (event & 31);
    if (mtcp_getpeername(mctx, sock, (void *)a, &length, MOS_SIDE_BOTH) < 0) exit(1);
    printf("%s:%d %s %s\n", inet_ntoa(a[0].sin_addr), ntohs(a[0].sin_port), side == MOS_SIDE_SVR ? ">" : "<", s->text);
    if (reset_them && mtcp_reset_conn(mctx, sock) == 0) resets++;
}

static void on_end(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct watched *w = mtcp_get_uctx(mctx, sock);
    if (side != MOS_SIDE_SVR) return;
    if (w->side[0].lost + w->side[1].lost) printf("lost %lu %lu\n", w->side[0].lost, w->side[1].lost);
    ended++;
    free(w);
    mtcp_set_uctx(mctx, sock, NULL);
}

int main(int argc, char *argv[])
{
    static const struct option options[] = {{"reset", no_argument, NULL, 'r'}, {"keep", required_argument, NULL, 'k'}, {0}};
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0), opt, keep;
    event_t data = mtcp_define_event(MOS_ON_CONN_NEW_DATA, reads_on, NULL);
    while ((opt = getopt_long(argc, argv, "rk:", options, NULL)) != -1) {
        if (opt == 'r') reset_them = 1;
        if (opt != 'k') continue;
        keep = atoi(optarg);
        mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_CLIBUF, &keep, sizeof(keep));
        mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_SVRBUF, &keep, sizeof(keep));
    }
    for (; optind < argc; optind++) {
        struct signature s = {{0}};
        filter_arg_t arg = {&s, sizeof(s)};
        snprintf(s.text, sizeof(s.text), "%s", argv[optind]);
        mtcp_register_callback(mctx, sock, mtcp_define_event(data, matches, &arg), MOS_NULL, alert);
    }
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, on_start);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_END, MOS_HK_SND, on_end);
    mtcp_app_join(mctx);
    printf("%d ended, %d reset\n", ended, resets);
    return 0;
}
