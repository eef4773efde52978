/* A proxy in the packets' way: a header line goes into requests, a secret comes out of answers, windows and Ethernet addresses are rewritten, each request is
 * sent once more ahead of loss, and pure acknowledgements of the client are held back but for each second one. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

static const char line[] = "Via: box\r\n", secret[] = "SECRET";
static int held, pure, sent;

static void check(int status, const char *what) { if (status) perror(what); }

static void at_sender(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    static uint8_t mac[6] = {2, 1, 2, 3, 4, 5};
    struct pkt_info p;
    uint16_t window = htons(1000), length;
    char *at;
    if (mtcp_getlastpkt(mctx, sock, side, &p)) exit(1);
    check(mtcp_setlastpkt(mctx, sock, side, 6, mac, 6, MOS_ETH_HDR | MOS_OVERWRITE), "ethernet");
    if (side == MOS_SIDE_SVR) check(mtcp_setlastpkt(mctx, sock, side, 14, (byte *)&window, 2, MOS_TCP_HDR | MOS_OVERWRITE | MOS_UPDATE_TCP_CHKSUM), "window");
    if (side == MOS_SIDE_CLI && !p.payloadlen && p.tcph->ack && !p.tcph->syn && !p.tcph->fin && ++pure % 2 == 0) {
        check(mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP), "drop");
        held++;
        return;
    }
    if (side == MOS_SIDE_CLI && p.payloadlen > 4 && !memcmp(p.payload, "GET ", 4) && (at = memchr(p.payload, '\n', p.payloadlen))) {
        length = htons(p.ip_len + sizeof(line) - 1); /* as mOS's manual wants it, first */
        check(mtcp_setlastpkt(mctx, sock, side, 2, (byte *)&length, 2, MOS_IP_HDR | MOS_OVERWRITE | MOS_UPDATE_IP_CHKSUM), "tot_len");
        check(mtcp_setlastpkt(mctx, sock, side, at + 1 - (char *)p.payload, (byte *)line, sizeof(line) - 1, MOS_TCP_PAYLOAD | MOS_INSERT | MOS_UPDATE_TCP_CHKSUM), "insert");
    }
    if (side == MOS_SIDE_SVR && p.payloadlen && (at = memmem(p.payload, p.payloadlen, secret, sizeof(secret) - 1)))
        check(mtcp_setlastpkt(mctx, sock, side, at - (char *)p.payload, NULL, sizeof(secret) - 1, MOS_TCP_PAYLOAD | MOS_CHOMP | MOS_UPDATE_TCP_CHKSUM), "chomp");
}

static void at_receiver(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    if (side != MOS_SIDE_SVR || mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return;
    if (mtcp_sendpkt(mctx, sock, &p)) perror("sendpkt");
    else sent++;
}

static void new_data(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    char text[2000];
    ssize_t n = mtcp_peek(mctx, sock, side, text, sizeof(text)), i;
    printf("%s ", side == MOS_SIDE_SVR ? ">" : "<");
    for (i = 0; i < n; i++) printf(text[i] < ' ' ? "." : "%c", text[i]);
    printf("\n");
}

int main(void)
{
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, at_sender);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, at_receiver);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_NEW_DATA, MOS_NULL, new_data);
    mtcp_app_join(mctx);
    printf("%d held back, %d sent again\n", held, sent);
    return 0;
}
