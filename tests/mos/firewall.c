/* A user-defined event for the first SYN; connections to refused ports are dropped, the others left alone: as mOS's simple_firewall. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_ether.h>
#include <linux/tcp.h>
#include <mos_api.h>
#include "cpu.h"
#include "debug.h"

#define REFUSE(f, m...) { fprintf(stderr, "[%10s:%4d] errno: %u" f, __FUNCTION__, __LINE__, errno, ##m); exit(EXIT_FAILURE); }

static struct { in_port_t port; unsigned count; } rules[16];
static int rule_count, packets, asked, later;

static bool is_first_syn(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    asked++;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) REFUSE("no packet\n");
    return p.tcph->syn && !p.tcph->ack;
}

static void decide(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    int i, both = MOS_SIDE_BOTH;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) REFUSE("no packet\n");
    for (i = 0; i < rule_count; i++) {
        if (rules[i].port != p.tcph->dest) continue;
        rules[i].count++;
        if (mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP)) REFUSE("drop\n");
        return;
    }
    if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_STOP_MON, &both, sizeof(both)) < 0) REFUSE("stop of %d\n", sock);
}

static void received(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg) { packets++; }
static void ended(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg) { later++; }

static void dump(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg) { printf("tick\n"); }

int main(int argc, char **argv)
{
    struct timeval second = {.tv_sec = 1, .tv_usec = 0};
    event_t syn;
    mctx_t mctx;
    int i, sock;
    for (i = 1; i < argc; i++) rules[rule_count++].port = htons(atoi(argv[i]));
    syn = mtcp_define_event(MOS_ON_PKT_IN, is_first_syn, NULL);
    if (syn == MOS_NULL_EVENT) REFUSE("define\n");
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (mtcp_register_callback(mctx, sock, syn, MOS_HK_SND, decide) == -1) REFUSE("register\n");
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, received);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_END, MOS_HK_RCV, ended);
    mtcp_settimer(mctx, sock, &second, dump);
    mtcp_app_join(mctx);
    mtcp_close(mctx, sock);
    mtcp_destroy_context(mctx);
    TRACE_INFO("joined\n");
    for (i = 0; i < rule_count; i++) printf("%d refused %u\n", ntohs(rules[i].port), rules[i].count);
    printf("received %d, asked %d\n", packets, asked);
    mtcp_destroy();
    return EXIT_SUCCESS;
}
