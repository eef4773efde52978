/* Every option of a monitoring socket, read and set on a flow, by turns of a scripted connection: the packets with payload, in order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

static int turn, late;
static uint32_t first_stamp;

static void buffers(mctx_t mctx, int sock, const char *when)
{
    struct tcp_ring_fragment f[8];
    struct tcp_buf_info b[2];
    socklen_t count, size, i;
    int side, state[2];
    uint32_t stamp;
    printf("%s:", when);
    for (side = 0; side < 2; side++) {
        size = sizeof(b[side]);
        if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_INFO_CLIBUF + side, &b[side], &size)) perror("info");
        size = sizeof(state[side]);
        if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_TCP_STATE_CLI + side, &state[side], &size)) perror("state");
        count = 7;
        if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_FRAGINFO_CLIBUF + side, f, &count)) perror("fragments");
        printf(" %s %d %u/%u/%u/%u", side ? "SVR" : "CLI", state[side], b[side].tcpbi_init_seq, b[side].tcpbi_last_byte_read, b[side].tcpbi_next_byte_expected,
               b[side].tcpbi_last_byte_received);
        for (i = 0; i < count; i++) printf(" [%llu+%u]", (unsigned long long)f[i].offset, f[i].len);
        if (f[count].len) printf(" no end");
    }
    size = sizeof(stamp);
    if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_TIMESTAMP, &stamp, &size)) perror("timestamp");
    printf(" after %u ms\n", (stamp - first_stamp) / 1000);
}

static void set(mctx_t mctx, int sock, int option, int value)
{
    if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, option, &value, sizeof(value))) printf("option %d: %s\n", option, strerror(errno));
}

static void peek(mctx_t mctx, int sock, int side)
{
    char text[64];
    ssize_t n = mtcp_peek(mctx, sock, side, text, sizeof(text));
    if (n > 0) printf("peeked %.*s\n", (int)n, text);
    else printf("peeked %zd %s\n", n, n < 0 ? strerror(errno) : "");
}

static void started(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    socklen_t size = sizeof(first_stamp);
    mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_TIMESTAMP, &first_stamp, &size);
}

static void failed(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { printf("error of %d\n", side); }

static void received(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return;
    switch (++turn) {
    case 1: buffers(mctx, sock, "hole"); set(mctx, sock, MOS_SVROVERLAP, MOS_OVERLAP_POLICY_LAST); break; /* 6..9 */
    case 2: buffers(mctx, sock, "overlap"); break;            /* 6..9 again, other bytes: the last count */
    case 3: buffers(mctx, sock, "filled"); peek(mctx, sock, side); set(mctx, sock, MOS_SVRBUF, 4); break; /* 0..6 */
    case 4: peek(mctx, sock, side); buffers(mctx, sock, "small"); set(mctx, sock, MOS_SVRBUF, 100); break; /* 9..15, four bytes are kept */
    case 5: peek(mctx, sock, side); set(mctx, sock, MOS_SVRBUF, 0); peek(mctx, sock, side); break; /* 15..18 */
    case 6: peek(mctx, sock, side); set(mctx, sock, MOS_SVRBUF, 100); break; /* 18..20, unseen */
    case 7: peek(mctx, sock, side); break; /* 23..26, behind a hole */
    case 8: peek(mctx, sock, side); break; /* 20..23 */
    case 9: /* the server's answer */
        buffers(mctx, sock, "answer");
        set(mctx, sock, MOS_FRAG_CLIBUF, 1);
        set(mctx, sock, MOS_SEQ_REMAP, 0);
        set(mctx, sock, MOS_CLIOVERLAP, 7);
        set(mctx, sock, MOS_CLIBUF, -1);
        set(mctx, sock, MOS_STOP_MON, 5);
        set(mctx, sock, MOS_STOP_MON, MOS_SIDE_SVR);
        break;
    default: late++; printf("%s told\n", side ? "SVR" : "CLI");
    }
}

int main(int argc, char **argv)
{
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, started);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, received);
    mtcp_register_callback(mctx, sock, MOS_ON_ERROR, MOS_NULL, failed);
    mtcp_app_join(mctx);
    return 0;
}
