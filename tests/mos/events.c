/* User-defined events: nested, with arguments, shared; outcomes; registering anew and undoing from within. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

struct least { unsigned bytes; };
static int asked[3];
static event_t big, bigger, kind, get, http;

static bool at_least(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    unsigned least = ((struct least *)arg->arg)->bytes;
    asked[least >= 20]++;
    return mtcp_getlastpkt(mctx, sock, side, &p) == 0 && p.payloadlen >= least;
}

static bool classify(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) || !p.payloadlen) return false;
    asked[2]++;
    if (!memcmp(p.payload, "GET", 3) && mtcp_raise_event(mctx, get)) perror("raise");
    if (!memcmp(p.payload, "HTTP", 4) && mtcp_raise_event(mctx, http)) perror("raise");
    return true;
}

static void say(const char *what, int side, event_t event, filter_arg_t *arg)
{
    printf("%s %s %u\n", what, side ? "SVR" : "CLI", arg ? ((struct least *)arg->arg)->bytes : 0);
}

static void on_big(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { say("big", side, event, arg); }
static void on_bigger(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { say("bigger", side, event, arg); }
static void on_get(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { say("get", side, event, arg); }
static void on_http(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { say("http", side, event, arg); }
static void on_state_new(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { say("replaced", side, event, arg); }

static void on_state(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    say("state", side, event, arg);
    if (mtcp_register_callback(mctx, sock, MOS_ON_TCP_STATE_CHANGE, MOS_HK_SND, on_state_new)) perror("replace");
}

static void on_start(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    say("start", side, event, arg);
    if (mtcp_register_callback(mctx, sock, get, MOS_HK_SND, on_get)) perror("dynamic get");
    if (mtcp_register_callback(mctx, sock, http, MOS_HK_SND, on_http)) perror("dynamic http");
    if (mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, NULL)) perror("undo");
    if (!mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, NULL)) printf("undone twice\n");
}

int main(int argc, char **argv)
{
    struct least small = {10}, large = {20};
    filter_arg_t a = {&small, sizeof(small)}, b = {&large, sizeof(large)};
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    big = mtcp_define_event(MOS_ON_PKT_IN, at_least, &a);
    bigger = mtcp_define_event(big, at_least, &b);
    kind = mtcp_define_event(MOS_ON_PKT_IN, classify, NULL); /* NULL beside siblings with an argument */
    if (mtcp_define_event(MOS_ON_PKT_IN, at_least, &a) != big) printf("not shared\n");
    get = mtcp_alloc_event(kind);
    http = mtcp_alloc_event(kind);
    if (!big || !bigger || !kind || !get || !http || get == http) printf("not defined\n");
    if (mtcp_define_event(0, classify, NULL) || mtcp_define_event(3, classify, NULL) || mtcp_define_event(99999, classify, NULL)) printf("defined nonsense\n");
    if (mtcp_define_event(MOS_ON_PKT_IN, NULL, NULL) || mtcp_alloc_event(MOS_ON_PKT_IN)) printf("allocated nonsense\n");
    if (mtcp_raise_event(mctx, get) != -1) printf("raised outside\n");
    if (mtcp_register_callback(mctx, sock, bigger, MOS_HK_SND, on_bigger)) perror("register");
    if (mtcp_register_callback(mctx, sock, big, MOS_HK_SND, on_big)) perror("register");
    if (mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, on_start)) perror("register");
    if (mtcp_register_callback(mctx, sock, MOS_ON_TCP_STATE_CHANGE, MOS_HK_SND, on_state)) perror("register");
    if (!mtcp_register_callback(mctx, sock, MOS_ON_CONN_NEW_DATA, MOS_HK_SND, on_big) || !mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_NULL, on_big) ||
        !mtcp_register_callback(mctx, sock, 12345, MOS_HK_SND, on_big) || !mtcp_register_callback(mctx, 99, MOS_ON_PKT_IN, MOS_HK_SND, on_big))
        printf("registered nonsense\n");
    mtcp_app_join(mctx);
    printf("asked %d %d %d\n", asked[0], asked[1], asked[2]);
    return 0;
}
