/* A table of connections and both ends' states, printed by a timer: as mOS's midstat. Ctrl-C ends it. */
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/queue.h>
#include <mos_api.h>
#include "cpu.h"

#define MAX_CORES 16

struct connection {
    int sock;
    struct sockaddr_in addrs[2];
    int state[2];
    TAILQ_ENTRY(connection) link;
};

static int cores, printed, most;
static mctx_t contexts[MAX_CORES];
static TAILQ_HEAD(, connection) connections[MAX_CORES];

static void on_interrupt(int signum)
{
    int i;
    printf("interrupted by %d\n", signum == SIGINT);
    for (i = 0; i < cores; i++) mtcp_destroy_context(contexts[i]);
}

static struct connection *find(int cpu, int sock)
{
    struct connection *c;
    TAILQ_FOREACH(c, &connections[cpu], link)
        if (c->sock == sock) return c;
    return NULL;
}

static void created(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct connection *c = calloc(1, sizeof(*c));
    socklen_t length = sizeof(struct sockaddr) * 2;
    c->sock = sock;
    if (mtcp_getpeername(mctx, sock, (void *)c->addrs, &length, MOS_SIDE_BOTH) < 0) exit(EXIT_FAILURE);
    TAILQ_INSERT_TAIL(&connections[mctx->cpu], c, link);
}

static void changed(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct connection *c = find(mctx->cpu, sock);
    socklen_t length = sizeof(int);
    if (c && mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, side == MOS_SIDE_CLI ? MOS_TCP_STATE_CLI : MOS_TCP_STATE_SVR, &c->state[side], &length) < 0) exit(1);
}

static void destroyed(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct connection *c = find(mctx->cpu, sock);
    if (!c) return;
    TAILQ_REMOVE(&connections[mctx->cpu], c, link);
    free(c);
}

static void print_all(mctx_t mctx, int id, int side, uint64_t events, filter_arg_t *arg)
{
    struct timeval step = {0, 100000};
    struct connection *c;
    int n = 0;
    printed++;
    TAILQ_FOREACH(c, &connections[0], link) {
        printf("%d %s:%d", printed, inet_ntoa(c->addrs[MOS_SIDE_CLI].sin_addr), ntohs(c->addrs[MOS_SIDE_CLI].sin_port));
        printf(" %s:%d %d %d\n", inet_ntoa(c->addrs[MOS_SIDE_SVR].sin_addr), ntohs(c->addrs[MOS_SIDE_SVR].sin_port), c->state[0], c->state[1]);
        n++;
    }
    if (n != (int)mtcp_get_connection_cnt(mctx)) printf("%d is not %u\n", n, mtcp_get_connection_cnt(mctx));
    if (n > most) most = n;
    if (mtcp_settimer(mctx, id, &step, print_all)) exit(-1);
}

int main(int argc, char **argv)
{
    struct timeval step = {0, 100000};
    struct mtcp_conf conf;
    int i, opt, sock, off = 0;
    char *file = "config/mos.conf";
    cores = GetNumCPUs();
    while ((opt = getopt(argc, argv, "c:f:")) != -1) {
        switch (opt) {
        case 'f': file = optarg; break;
        case 'c': cores = atoi(optarg); break;
        default: printf("usage\n"); return 0;
        }
    }
    if (mtcp_init(file)) exit(EXIT_FAILURE);
    mtcp_getconf(&conf);
    conf.num_cores = cores;
    mtcp_setconf(&conf);
    mtcp_register_signal(SIGINT, on_interrupt);
    for (i = 0; i < cores; i++) {
        if (!(contexts[i] = mtcp_create_context(i))) return -1;
        TAILQ_INIT(&connections[i]);
        if ((sock = mtcp_socket(contexts[i], AF_INET, MOS_SOCK_MONITOR_STREAM, 0)) < 0) exit(-1);
        if (mtcp_setsockopt(contexts[i], sock, SOL_MONSOCKET, MOS_CLIBUF, &off, sizeof(off))) exit(-1);
        if (mtcp_setsockopt(contexts[i], sock, SOL_MONSOCKET, MOS_SVRBUF, &off, sizeof(off))) exit(-1);
        if (mtcp_register_callback(contexts[i], sock, MOS_ON_CONN_START, MOS_HK_SND, created)) exit(-1);
        if (mtcp_register_callback(contexts[i], sock, MOS_ON_CONN_END, MOS_HK_SND, destroyed)) exit(-1);
        if (mtcp_register_callback(contexts[i], sock, MOS_ON_TCP_STATE_CHANGE, MOS_HK_SND, changed)) exit(-1);
        if (mtcp_register_callback(contexts[i], sock, MOS_ON_TCP_STATE_CHANGE, MOS_HK_RCV, changed)) exit(-1);
        if (mtcp_settimer(contexts[i], sock, &step, print_all)) exit(-1);
    }
    for (i = 0; i < cores; i++) mtcp_app_join(contexts[i]);
    mtcp_destroy();
    printf("%d tables, at most %d connections\n", printed, most);
    return 0;
}
