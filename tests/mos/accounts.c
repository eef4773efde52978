/* Bytes of each subscriber, retransmissions told apart, and those that repeat other bytes than were sent (somebody tunnels through them): a
 * user-defined event over REXMIT that compares the packet with what the stream holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

struct account {
    struct in_addr subscriber;
    unsigned long sent, repeated, forged;
    struct account *next;
};

static struct account *accounts;

static struct account *account_of(struct in_addr subscriber)
{
    struct account **at;
    for (at = &accounts; *at; at = &(*at)->next)
        if ((*at)->subscriber.s_addr == subscriber.s_addr) return *at;
    *at = calloc(1, sizeof(**at));
    (*at)->subscriber = subscriber;
    return *at;
}

static void on_start(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct sockaddr_in a[2];
    socklen_t length = sizeof(a);
    if (mtcp_getpeername(mctx, sock, (struct sockaddr *)a, &length, MOS_SIDE_BOTH)) exit(1);
    mtcp_set_uctx(mctx, sock, account_of(a[MOS_SIDE_CLI].sin_addr));
}

static bool is_forged(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    static char before[65536];
    struct tcp_ring_fragment held[64];
    socklen_t count = sizeof(held) / sizeof(held[0]) - 1, i;
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return false;
    if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, side == MOS_SIDE_CLI ? MOS_FRAGINFO_CLIBUF : MOS_FRAGINFO_SVRBUF, held, &count)) return false;
    for (i = 0; i < count; i++) { /* the part of each stretch that the packet says again */
        uint64_t from = held[i].offset > p.offset ? held[i].offset : p.offset, end = held[i].offset + held[i].len;
        if (end > p.offset + p.payloadlen) end = p.offset + p.payloadlen;
        if (from >= end) continue;
        if (mtcp_ppeek(mctx, sock, side, before, end - from, from) != (ssize_t)(end - from)) continue;
        if (memcmp(before, p.payload + (from - p.offset), end - from)) return true;
    }
    return false;
}

static void on_packet(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct account *a = mtcp_get_uctx(mctx, sock);
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p)) exit(2);
    if (a) a->sent += p.payloadlen; /* of the first SYN, PKT_IN comes before CONN_START */
}

static void on_repeated(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct account *a = mtcp_get_uctx(mctx, sock);
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p)) exit(3);
    a->repeated += p.payloadlen;
}

static void on_forged(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct account *a = mtcp_get_uctx(mctx, sock);
    a->forged++;
    mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP);
}

int main(int argc, char **argv)
{
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    event_t forged = mtcp_define_event(MOS_ON_REXMIT, is_forged, NULL);
    struct account *a;
    if (mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, on_start)) return 1;
    if (mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, on_packet)) return 1;
    if (mtcp_register_callback(mctx, sock, MOS_ON_REXMIT, MOS_HK_RCV, on_repeated)) return 1;
    if (mtcp_register_callback(mctx, sock, forged, MOS_HK_RCV, on_forged)) return 1;
    mtcp_app_join(mctx);
    for (a = accounts; a; a = a->next) printf("%s %lu %lu %lu\n", inet_ntoa(a->subscriber), a->sent, a->repeated, a->forged);
    return 0;
}
