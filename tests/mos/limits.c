/* A token bucket for each client, in packet time: what is too much is dropped. The limits are read anew at SIGHUP, which the program's own timer sends. */
#define _GNU_SOURCE
#include <err.h>
#include <math.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <mos_api.h>

struct bucket { double tokens; uint32_t last; unsigned long passed, dropped; char client[INET_ADDRSTRLEN]; };
static double rate, most;
static const char *path;
static unsigned long passed, dropped;
static int reads;

static void read_limits(int signum)
{
    FILE *file = fopen(path, "r");
    if (!file) err(1, "%s", path);
    if (fscanf(file, "rate %lf most %lf", &rate, &most) != 2) errx(1, "%s: no limits", path);
    fclose(file);
    reads++;
}

static void started(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct sockaddr_in client;
    socklen_t length = sizeof(client);
    struct bucket *b = calloc(1, sizeof(*b));
    ENTRY *have, wanted = {b->client, b};
    if (mtcp_getpeername(mctx, sock, (struct sockaddr *)&client, &length, MOS_SIDE_CLI)) err(1, "client");
    inet_ntop(AF_INET, &client.sin_addr, b->client, sizeof(b->client));
    if ((have = hsearch(wanted, FIND))) {
        free(b);
    } else {
        b->tokens = most;
        b->last = mtcp_cb_get_ts(mctx);
        if (!(have = hsearch(wanted, ENTER))) err(1, "hsearch");
    }
    mtcp_set_uctx(mctx, sock, have->data);
}

static void sent(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct bucket *b = mtcp_get_uctx(mctx, sock);
    uint32_t now = mtcp_cb_get_ts(mctx);
    struct pkt_info p;
    if (!b || side != MOS_SIDE_CLI || mtcp_getlastpkt(mctx, sock, side, &p)) return;
    b->tokens = fmin(most, b->tokens + (now - b->last) * 1e-6 * rate);
    b->last = now;
    if (p.ip_len > b->tokens) {
        dropped++;
        if (mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP)) err(1, "drop");
    } else {
        b->tokens -= p.ip_len;
        passed++;
    }
}

static void remind(mctx_t mctx, int id, int side, event_t event, filter_arg_t *arg) { kill(getpid(), SIGHUP); }

int main(int argc, char **argv)
{
    struct timeval soon = {0, 50000};
    mctx_t mctx;
    int sock;
    if (argc != 2) errx(64, "usage: %s FILE", program_invocation_short_name);
    path = argv[1];
    read_limits(0);
    hcreate(1000);
    signal(SIGHUP, read_limits);
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, started);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, sent);
    mtcp_settimer(mctx, 1, &soon, remind);
    mtcp_app_join(mctx);
    printf("%lu passed, %lu dropped, %d reads\n", passed, dropped, reads);
    return 0;
}
