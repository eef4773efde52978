/* Timers: in order of time, armed again from within, many at once, by several sockets' numbers, in packet time; and what a timer may do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

static uint32_t begun;
static int flow = -1, ticks, many;

static void show(mctx_t mctx, int id, int side, event_t event, filter_arg_t *arg)
{
    if (side || event || arg) printf("more than an id\n");
    printf("%d at %u\n", id, (mtcp_cb_get_ts(mctx) - begun) / 1000);
}

static void counted(mctx_t mctx, int id, int side, event_t event, filter_arg_t *arg) { many++; }

static void tick(mctx_t mctx, int id, int side, event_t event, filter_arg_t *arg)
{
    struct timeval again = {0, 100000};
    if (++ticks < 4 && mtcp_settimer(mctx, id, &again, tick)) perror("again");
}

/* A timer looks at a flow: its state, its bytes, its addresses; there is no packet. */
static void look(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct sockaddr_in a[2];
    struct pkt_info p;
    socklen_t length = sizeof(a), size = sizeof(int);
    char text[100];
    int state, ok = mtcp_getpeername(mctx, sock, (void *)a, &length, MOS_SIDE_BOTH);
    ssize_t n = mtcp_ppeek(mctx, sock, MOS_SIDE_SVR, text, sizeof(text), 0);
    ok |= mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_TCP_STATE_SVR, &state, &size);
    printf("flow %d: %d, port %d, state %d, %.*s, uctx %s, packet %d\n", sock == flow, ok, ntohs(a[1].sin_port), state, n > 0 ? (int)n : 0, text,
           (char *)mtcp_get_uctx(mctx, sock), mtcp_getlastpkt(mctx, sock, 0, &p));
}

static void started(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct timeval soon = {0, 450000}, now = {0, 0}, late = {3600, 0};
    flow = sock;
    begun = mtcp_cb_get_ts(mctx);
    mtcp_set_uctx(mctx, sock, "mine");
    if (mtcp_settimer(mctx, sock, &soon, look) || mtcp_settimer(mctx, 7, &now, show) || mtcp_settimer(mctx, 8, &late, show)) perror("settimer");
}

int main(int argc, char **argv)
{
    struct timeval three = {0, 300000}, two = {0, 200000}, tenth = {0, 100000};
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0), i;
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, started);
    mtcp_settimer(mctx, 3, &three, show);
    mtcp_settimer(mctx, 2, &two, show);
    mtcp_settimer(mctx, 22, &two, show);
    mtcp_settimer(mctx, sock, &tenth, tick);
    for (i = 0; i < 5000; i++) mtcp_settimer(mctx, i, &three, counted);
    mtcp_app_join(mctx);
    printf("%d ticks, %d of many\n", ticks, many);
    return 0;
}
