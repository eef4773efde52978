/* Every function with nonsense, from main(), from callbacks, on sockets that are over. Nothing may crash; what should fail fails. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>
#include <mtcp_util.h>

static int listener, old = -1, wrong;

#define FAILS(call) do { errno = 0; if ((call) != -1 || !errno) { wrong++; printf("%d: %s, errno %d\n", __LINE__, #call, errno); } } while (0)

static void nothing(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) {}
static bool never(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { return false; }

static void on_socket(mctx_t m, int sock)
{
    char buffer[64];
    struct pkt_info p;
    struct sockaddr address[2];
    socklen_t length = sizeof(buffer), tiny = 1, none = 0;
    int value = 0, option;
    FAILS(mtcp_peek(m, sock, 0, buffer, 10));
    FAILS(mtcp_ppeek(m, sock, 0, buffer, 10, 0));
    FAILS(mtcp_getpeername(m, sock, address, &length, MOS_SIDE_BOTH));
    FAILS(mtcp_sendpkt(m, sock, &p));
    FAILS(mtcp_reset_conn(m, sock));
    FAILS(mtcp_cb_stop(m, sock, MOS_SIDE_BOTH));
    for (option = -1; option < 20; option++) {
        length = sizeof(buffer);
        FAILS(mtcp_getsockopt(m, sock, SOL_MONSOCKET, option, buffer, &length));
        FAILS(mtcp_getsockopt(m, sock, SOL_MONSOCKET, option, buffer, &tiny));
        FAILS(mtcp_getsockopt(m, sock, SOL_MONSOCKET, option, buffer, &none));
        FAILS(mtcp_getsockopt(m, sock, SOL_MONSOCKET, option, NULL, NULL));
        FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, option, NULL, 4));
        FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, option, &value, 1));
        if (sock != listener) FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, option, &value, sizeof(value)));
    }
    FAILS(mtcp_getsockopt(m, sock, 12345, MOS_INFO_CLIBUF, buffer, &length));
    mtcp_get_debug_string(m, sock);
}

static void everywhere(mctx_t m)
{
    static const int socks[] = {-1, 0, 2, 64, 1023, 999999, INT_MAX, INT_MIN};
    struct timeval negative = {-1, 0}, fine = {0, 1};
    struct mtcp_conf conf;
    union monitor_filter bad = {.stream_syn_filter = "nonsense nonsense"}, orphans = {.stream_syn_filter = NULL, .stream_orphan_filter = "no such"};
    unsigned i;
    char words[] = "a b c", *argv[2];
    int argc;
    for (i = 0; i < sizeof(socks) / sizeof(socks[0]); i++) {
        on_socket(m, socks[i]);
        FAILS(mtcp_close(m, socks[i]));
        FAILS(mtcp_register_callback(m, socks[i], MOS_ON_PKT_IN, MOS_HK_SND, nothing));
        FAILS(mtcp_bind_monitor_filter(m, socks[i], NULL));
        mtcp_set_uctx(m, socks[i], &argc);
        if (mtcp_get_uctx(m, socks[i]) || errno != EBADF) printf("uctx of %d\n", socks[i]);
    }
    on_socket(m, listener);
    if (old >= 0) on_socket(m, old);
    FAILS(mtcp_bind_monitor_filter(m, listener, &bad));
    FAILS(mtcp_bind_monitor_filter(m, listener, &orphans));
    FAILS(mtcp_register_callback(m, listener, 0, MOS_HK_SND, nothing));
    FAILS(mtcp_register_callback(m, listener, MOS_ON_PKT_OUT, MOS_HK_SND, nothing));
    FAILS(mtcp_register_callback(m, listener, MOS_ON_PKT_IN, 0, nothing));
    FAILS(mtcp_register_callback(m, listener, MOS_ON_PKT_IN, MOS_HK_RCV, NULL));
    FAILS(mtcp_register_callback(m, listener, (event_t)-1, MOS_HK_RCV, nothing));
    FAILS(mtcp_unregister_callback(m, listener, MOS_ON_PKT_IN, MOS_HK_RCV));
    FAILS(mtcp_raise_event(m, MOS_ON_PKT_IN));
    FAILS(mtcp_raise_event(m, 5000));
    FAILS(mtcp_socket(m, AF_INET6, MOS_SOCK_MONITOR_STREAM, 0));
    FAILS(mtcp_socket(m, AF_INET, MOS_SOCK_STREAM, 0));
    FAILS(mtcp_socket(m, AF_INET, 77, 0));
    FAILS(mtcp_settimer(m, 1, NULL, nothing));
    FAILS(mtcp_settimer(m, 1, &negative, nothing));
    FAILS(mtcp_settimer(m, 1, &fine, NULL));
    FAILS(mtcp_getconf(NULL));
    FAILS(mtcp_setconf(NULL));
    FAILS(mtcp_init(NULL));
    FAILS(mtcp_core_affinitize(7));
    FAILS(mtcp_bind(m, 1, NULL, 0));
    FAILS(mtcp_connect(m, 1, NULL, 0));
    FAILS(mtcp_read(m, 1, NULL, 0));
    FAILS(mtcp_epoll_create(m, 1));
    FAILS(mtcp_setlastpkt(m, 1, 0, 0, NULL, 10, MOS_OVERWRITE | MOS_IP_HDR));
    FAILS(StrToArgs(words, &argc, argv, 2));
    if (mtcp_create_context(0) || mtcp_create_context(1) || mtcp_create_context(-1)) printf("a second context\n");
    mtcp_getconf(&conf);
    if (conf.num_cores != 1) printf("%d cores\n", conf.num_cores);
}

static void without_context(void)
{
    struct pkt_info p;
    char buffer[8];
    FAILS(mtcp_socket(NULL, AF_INET, MOS_SOCK_MONITOR_STREAM, 0));
    FAILS(mtcp_close(NULL, listener));
    FAILS(mtcp_register_callback(NULL, listener, MOS_ON_PKT_IN, MOS_HK_SND, nothing));
    FAILS(mtcp_bind_monitor_filter(NULL, listener, NULL));
    FAILS(mtcp_peek(NULL, old, 0, buffer, 8));
    FAILS(mtcp_getlastpkt(NULL, old, 0, &p));
    FAILS(mtcp_setlastpkt(NULL, old, 0, 0, NULL, 0, MOS_DROP));
    FAILS(mtcp_settimer(NULL, 0, NULL, NULL));
    FAILS(mtcp_destroy_context(NULL));
    FAILS(mtcp_cb_dropcurpkt(NULL));
    mtcp_set_uctx(NULL, 0, NULL);
    mtcp_get_uctx(NULL, 0);
    mtcp_get_connection_cnt(NULL);
    mtcp_cb_get_ts(NULL);
    mtcp_app_join(NULL);
}

static void started(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg)
{
    char buffer[8];
    struct sockaddr address[2];
    socklen_t length = 3;
    int value;
    everywhere(m);
    without_context();
    old = sock;
    FAILS(mtcp_peek(m, sock, 2, buffer, 8));
    FAILS(mtcp_peek(m, sock, -1, buffer, 8));
    FAILS(mtcp_peek(m, sock, 0, NULL, 8));
    FAILS(mtcp_ppeek(m, sock, 0, buffer, 8, 0));
    FAILS(mtcp_ppeek(m, sock, 0, buffer, 8, UINT64_MAX));
    FAILS(mtcp_ppeek(m, sock, 7, buffer, 8, 0));
    FAILS(mtcp_getpeername(m, sock, address, &length, MOS_SIDE_CLI));
    length = sizeof(address[0]);
    FAILS(mtcp_getpeername(m, sock, address, &length, MOS_SIDE_BOTH));
    FAILS(mtcp_getpeername(m, sock, address, &length, 9));
    FAILS(mtcp_getpeername(m, sock, NULL, &length, MOS_SIDE_CLI));
    value = 9;
    FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, MOS_STOP_MON, &value, sizeof(value)));
    FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, MOS_CLIOVERLAP, &value, sizeof(value)));
    value = -1;
    FAILS(mtcp_setsockopt(m, sock, SOL_MONSOCKET, MOS_CLIBUF, &value, sizeof(value)));
    FAILS(mtcp_bind_monitor_filter(m, sock, NULL));
    FAILS(mtcp_register_callback(m, sock, MOS_ON_ORPHAN, MOS_NULL, nothing));
    FAILS(mtcp_getlastpkt(m, sock, side, NULL));
    mtcp_app_join(m); /* in a callback it must not wait */
}

/* Callbacks that close, stop, reset, register and drop in any order. */
static void mixed(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg)
{
    static int turn;
    int both = MOS_SIDE_BOTH;
    switch (turn++ % 6) {
    case 0: mtcp_register_callback(m, sock, MOS_ON_PKT_IN, MOS_HK_RCV, NULL); break;
    case 1: mtcp_setlastpkt(m, sock, side, 0, NULL, 0, MOS_DROP); mtcp_reset_conn(m, sock); break;
    case 2: mtcp_setsockopt(m, sock, SOL_MONSOCKET, MOS_STOP_MON, &both, sizeof(both)); mtcp_setsockopt(m, sock, SOL_MONSOCKET, MOS_STOP_MON, &both, sizeof(both)); break;
    case 3: mtcp_close(m, sock); mtcp_set_uctx(m, sock, &turn); mtcp_close(m, sock); break;
    case 4: mtcp_reset_conn(m, sock); mtcp_cb_stop(m, sock, side); mtcp_cb_dropcurpkt(m); break;
    case 5: mtcp_register_callback(m, sock, mtcp_define_event(MOS_ON_PKT_IN, never, NULL), MOS_HK_SND, nothing); break;
    }
    if (turn == 200) mtcp_close(m, listener);
}

int main(int argc, char **argv)
{
    mctx_t mctx;
    without_context();
    mctx = mtcp_create_context(0);
    listener = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    everywhere(mctx);
    mtcp_register_callback(mctx, listener, MOS_ON_CONN_START, MOS_HK_SND, started);
    if (argc > 1) {
        mtcp_register_callback(mctx, listener, MOS_ON_PKT_IN, MOS_HK_SND, mixed);
        mtcp_register_callback(mctx, listener, MOS_ON_PKT_IN, MOS_HK_RCV, mixed);
    }
    mtcp_app_join(mctx);
    on_socket(mctx, listener);
    without_context();
    printf("%d wrong\n", wrong);
    return 0;
}
