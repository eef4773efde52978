/* The current packet: read whole, changed, sent again. The first argument says what. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

static const char *mode;

static void received(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p)) {
        printf("none %d\n", errno);
        return;
    }
    if (!p.payloadlen) return;
    printf("%u %u %u %u %u %u %llu %04x %s:%u", p.eth_len, p.ip_len, p.payloadlen, p.seq, p.ack_seq, p.window, (unsigned long long)p.offset,
           ntohs(p.ethh->h_proto), inet_ntoa(*(struct in_addr *)&p.iph->saddr), ntohs(p.tcph->source));
    printf(" %s:%u %.*s\n", inet_ntoa(*(struct in_addr *)&p.iph->daddr), ntohs(p.tcph->dest), (int)p.payloadlen, (char *)p.payload);
}

static void translate(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct sockaddr_in addr[2];
    socklen_t length = sizeof(addr) * 2;
    uint32_t ip = inet_addr("192.0.2.1");
    uint16_t port = htons(1025);
    if (mtcp_getpeername(mctx, sock, (struct sockaddr *)addr, &length, MOS_SIDE_CLI)) perror("peer");
    if (side == MOS_SIDE_SVR) {
        ip = addr[MOS_SIDE_CLI].sin_addr.s_addr;
        port = addr[MOS_SIDE_CLI].sin_port;
    }
    if (mtcp_setlastpkt(mctx, sock, 0, side ? 16 : 12, (byte *)&ip, 4, MOS_IP_HDR | MOS_OVERWRITE)) perror("address");
    if (mtcp_setlastpkt(mctx, sock, 0, side ? 2 : 0, (byte *)&port, 2, MOS_TCP_HDR | MOS_OVERWRITE | MOS_UPDATE_IP_CHKSUM | MOS_UPDATE_TCP_CHKSUM)) perror("port");
}

static void edit(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    uint16_t length;
    if (side || mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return;
    if (!strcmp(mode, "insert")) {
        length = htons(p.ip_len + 3);
        if (mtcp_setlastpkt(mctx, sock, side, 2, (byte *)&length, 2, MOS_IP_HDR | MOS_OVERWRITE)) perror("length");
        if (mtcp_setlastpkt(mctx, sock, side, 4, (byte *)"XYZ", 3, MOS_TCP_PAYLOAD | MOS_INSERT | MOS_UPDATE_TCP_CHKSUM)) perror("insert");
    } else {
        if (mtcp_setlastpkt(mctx, sock, side, 4, NULL, 2, MOS_TCP_PAYLOAD | MOS_CHOMP | MOS_UPDATE_TCP_CHKSUM)) perror("chomp");
    }
    if (!mtcp_setlastpkt(mctx, sock, side, 0, (byte *)"x", 1, MOS_TCP_PAYLOAD) || errno != EAGAIN) printf("nothing to do was done\n");
    if (!mtcp_setlastpkt(mctx, sock, side, 0, (byte *)"x", 1, MOS_DROP | MOS_OVERWRITE) || errno != EAGAIN) printf("two at once\n");
    if (!mtcp_setlastpkt(mctx, sock, side, 60000, (byte *)"x", 1, MOS_TCP_PAYLOAD | MOS_OVERWRITE)) printf("beyond the end\n");
    if (!mtcp_setlastpkt(mctx, sock, side, -1, (byte *)"x", 1, MOS_TCP_PAYLOAD | MOS_OVERWRITE)) printf("before the start\n");
    if (!mtcp_setlastpkt(mctx, sock, side, 0, NULL, 1, MOS_TCP_PAYLOAD | MOS_OVERWRITE)) printf("from nowhere\n");
}

static void again(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return;
    if (mtcp_sendpkt(mctx, sock, &p)) perror("send");
    if (!mtcp_sendpkt(mctx, sock, NULL) || !mtcp_sendpkt(mctx, 99999, &p)) printf("sent nonsense\n");
    if (mtcp_reset_conn(mctx, sock)) perror("reset");
}

static void tick(mctx_t mctx, int id, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    printf("timer %d %d\n", id, mtcp_getlastpkt(mctx, id, side, &p) == -1 && errno == EACCES);
}

int main(int argc, char **argv)
{
    struct timeval soon = {0, 2000};
    union monitor_filter filter = {.raw_pkt_filter = "udp or tcp[tcpflags] & tcp-push != 0"};
    mctx_t mctx = mtcp_create_context(0);
    int sock;
    mode = argv[1];
    sock = mtcp_socket(mctx, AF_INET, strcmp(mode, "raw") ? MOS_SOCK_MONITOR_STREAM : MOS_SOCK_MONITOR_RAW, 0);
    if (!strcmp(mode, "raw")) {
        if (mtcp_bind_monitor_filter(mctx, sock, &filter)) perror("bind");
        filter.raw_pkt_filter = "no filter";
        if (!mtcp_bind_monitor_filter(mctx, sock, &filter) || errno != EINVAL) printf("bound nonsense\n");
        if (mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_NULL, received)) perror("register");
    } else if (!strcmp(mode, "nat")) {
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, translate);
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, received);
    } else if (!strcmp(mode, "insert") || !strcmp(mode, "chomp")) {
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, edit);
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, received);
    } else if (!strcmp(mode, "send")) {
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, again);
    } else {
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, received);
        mtcp_settimer(mctx, 42, &soon, tick);
    }
    mtcp_app_join(mctx);
    return 0;
}
