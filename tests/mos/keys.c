/* A raw socket for keys that come over UDP, a stream socket for the connections that they belong to, by a table: two kinds of sockets in one program,
 * a user-defined event at MOS_NULL, and MOS_NULL for the side of a raw packet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/udp.h>
#include <mos_api.h>

struct entry {
    char key[9], name[17];
    int sock;
    struct entry *next;
};

static struct entry *entries;
static int raws, raw_tcp;

static bool is_key(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    struct udphdr *udp;
    if (mtcp_getlastpkt(mctx, sock, MOS_NULL, &p) < 0) exit(EXIT_FAILURE);
    raws++;
    if (p.iph->protocol != IPPROTO_UDP || p.tcph || p.payload) raw_tcp++;
    udp = (struct udphdr *)((char *)p.iph + p.iph->ihl * 4);
    return ntohs(udp->dest) == 6666 && p.ip_len >= 20 + 8 + 24;
}

static void new_key(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    struct entry *e;
    char *payload;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) exit(EXIT_FAILURE);
    payload = (char *)p.iph + p.iph->ihl * 4 + 8;
    if (side != MOS_SIDE_BOTH || p.eth_len != p.ip_len + 14 || ((char *)p.iph) - ((char *)p.ethh) != 14) printf("another packet\n");
    for (e = entries; e; e = e->next)
        if (!memcmp(e->key, payload, 8)) printf("%.16s is %s\n", payload + 8, e->name);
}

static void new_data(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct entry *e = mtcp_get_uctx(mctx, sock);
    char text[32] = "";
    if (side != MOS_SIDE_SVR || e) return;
    if (mtcp_ppeek(mctx, sock, side, text, 24, 0) != 24) return; /* not yet whole */
    e = calloc(1, sizeof(*e));
    memcpy(e->key, text, 8);
    memcpy(e->name, text + 8, 16);
    e->sock = sock;
    e->next = entries;
    entries = e;
    mtcp_set_uctx(mctx, sock, e);
}

static void ended(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct entry **at, *e = mtcp_get_uctx(mctx, sock);
    if (!e || side == MOS_SIDE_CLI) return;
    for (at = &entries; *at != e; at = &(*at)->next) continue;
    *at = e->next;
    printf("%s is over\n", e->name);
    free(e);
}

int main(int argc, char **argv)
{
    union monitor_filter filter = {0};
    mctx_t mctx = mtcp_create_context(0);
    int keys = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_RAW, 0), streams = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    filter.raw_pkt_filter = "ip proto 17";
    if (mtcp_bind_monitor_filter(mctx, keys, &filter) < 0) exit(1);
    if (mtcp_register_callback(mctx, keys, mtcp_define_event(MOS_ON_PKT_IN, is_key, NULL), MOS_NULL, new_key)) exit(2);
    filter.stream_syn_filter = "tcp port 443";
    if (mtcp_bind_monitor_filter(mctx, streams, &filter) < 0) exit(3);
    if (mtcp_register_callback(mctx, streams, MOS_ON_CONN_NEW_DATA, MOS_NULL, new_data)) exit(4);
    if (mtcp_register_callback(mctx, streams, MOS_ON_CONN_END, MOS_HK_RCV, ended)) exit(5);
    if (mtcp_set_uctx(mctx, keys, &filter), mtcp_get_uctx(mctx, keys) != &filter || mtcp_get_uctx(mctx, streams)) exit(6);
    mtcp_app_join(mctx);
    printf("%d raw, %d not UDP\n", raws, raw_tcp);
    return 0;
}
