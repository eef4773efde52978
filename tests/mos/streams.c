/* Reading streams in all ways: "peek", "ppeek", "late", "half", "off" and "last" as the first argument. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

static const char *mode;

static void new_data(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    char text[100000];
    ssize_t n;
    while ((n = mtcp_peek(mctx, sock, side, text, strcmp(mode, "half") ? sizeof(text) : 3)) > 0) printf("%d %.*s\n", side, (int)(n > 40 ? 40 : n), text);
    printf("%d then %zd\n", side, n);
}

static void received(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct tcp_ring_fragment fragment[5];
    struct tcp_buf_info info;
    struct pkt_info p;
    char text[100];
    socklen_t length = 4, i, bytes = sizeof(fragment);
    ssize_t n;
    if (mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return;
    memset(fragment, 0xee, sizeof(fragment));
    n = mtcp_ppeek(mctx, sock, side, text, sizeof(text), p.offset);
    printf("at %llu: %.*s;", (unsigned long long)p.offset, (int)n, text);
    n = mtcp_ppeek(mctx, sock, side, text, sizeof(text), 1000);
    printf(" %zd %s;", n, n < 0 && errno == ENODATA ? "ENODATA" : "?");
    if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_FRAGINFO_SVRBUF, fragment, &length)) perror("fraginfo");
    for (i = 0; i < length; i++) printf(" [%llu %u]", (unsigned long long)fragment[i].offset, fragment[i].len);
    if (fragment[length].len || ((unsigned char *)fragment)[sizeof(fragment) - 1] != 0xee) printf(" overrun");
    if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_FRAGINFO_SVRBUF, fragment, &bytes) || bytes != length * sizeof(fragment[0])) printf(" bytes %u", bytes);
    length = sizeof(info);
    if (mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, MOS_INFO_SVRBUF, &info, &length)) perror("info");
    printf(" %u %u %u %u\n", info.tcpbi_init_seq, info.tcpbi_last_byte_read, info.tcpbi_next_byte_expected, info.tcpbi_last_byte_received);
}

static void ended(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    char text[100];
    ssize_t n;
    int i;
    if (side != MOS_SIDE_SVR) return;
    for (i = 0; i < 3; i++) {
        n = mtcp_peek(mctx, sock, side, text, sizeof(text));
        printf("%zd %s %.*s\n", n, n < 0 ? errno == ENODATA ? "ENODATA" : strerror(errno) : "", n > 0 ? (int)n : 0, text);
    }
}

/* Each packet undoes the registration and makes it anew, so that what its burst brought before is not told. */
static void again(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    if (mtcp_unregister_callback(mctx, sock, MOS_ON_CONN_NEW_DATA, MOS_NULL)) perror("undo");
    if (mtcp_register_callback(mctx, sock, MOS_ON_CONN_NEW_DATA, MOS_NULL, new_data)) perror("anew");
}

static void error(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { printf("error %d\n", side); }

int main(int argc, char **argv)
{
    mctx_t mctx;
    int sock, value;
    mode = argv[1];
    if (argc > 2 && mtcp_init(argv[2])) exit(1);
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (!strcmp(mode, "peek") || !strcmp(mode, "half") || !strcmp(mode, "last") || !strcmp(mode, "again")) mtcp_register_callback(mctx, sock, MOS_ON_CONN_NEW_DATA, MOS_NULL, new_data);
    if (!strcmp(mode, "ppeek")) mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_RCV, received);
    if (!strcmp(mode, "late") || !strcmp(mode, "off")) mtcp_register_callback(mctx, sock, MOS_ON_CONN_END, MOS_HK_SND, ended);
    if (!strcmp(mode, "late")) mtcp_register_callback(mctx, sock, MOS_ON_ERROR, MOS_NULL, error);
    if (!strcmp(mode, "again")) mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, again);
    if (!strcmp(mode, "off")) {
        value = 0;
        if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_SVRBUF, &value, sizeof(value))) perror("off");
    }
    if (!strcmp(mode, "last")) {
        value = MOS_OVERLAP_POLICY_LAST;
        if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_SVROVERLAP, &value, sizeof(value))) perror("overlap");
    }
    mtcp_app_join(mctx);
    return 0;
}
