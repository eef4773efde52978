/* User-defined events nested deep, defined and registered from inside callbacks, undone from inside, over every built-in event. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

#define DEPTH 100
static int asked[DEPTH], told[DEPTH], once, twice, fresh, on_listener, self_undone, listener, both_hooks[2], filters;
static event_t deep[DEPTH];
static const char *order[64];
static int ordered;

static bool at_level(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct pkt_info p;
    int level = *(int *)arg->arg;
    asked[level]++;
    if (arg->len != sizeof(int) || event != deep[level]) printf("another event\n");
    return mtcp_getlastpkt(mctx, sock, side, &p) == 0 && p.payloadlen >= level;
}

static void level_told(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told[*(int *)arg->arg]++; }

static bool always(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { filters++; return true; }
static void count_once(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { once++; }
static void count_fresh(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { fresh++; }
static void count_listener(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { on_listener++; }
static void count_hook(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { both_hooks[side == MOS_SIDE_CLI]++; }

static void undo_self(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    self_undone++;
    if (mtcp_unregister_callback(mctx, sock, event, MOS_HK_RCV)) perror("undo");
}

/* Defined and registered while the flow lives: told from its next event on. */
static void define_more(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    event_t more = mtcp_define_event(MOS_ON_PKT_IN, always, NULL);
    if (!more || mtcp_register_callback(mctx, sock, more, MOS_HK_SND, count_fresh)) perror("more");
    if (mtcp_register_callback(mctx, listener, more, MOS_HK_RCV, count_listener)) perror("listener");
    twice++;
}

#define IN_ORDER(name) static void name(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { if (ordered < 64) order[ordered++] = #name; }
IN_ORDER(state) IN_ORDER(state_a) IN_ORDER(state_a_a) IN_ORDER(state_b) IN_ORDER(data_a) IN_ORDER(end_a) IN_ORDER(rexmit_a)

static bool is_client(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { return side == MOS_SIDE_CLI; }
static bool is_server(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { return side == MOS_SIDE_SVR; }
static bool has_data(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    char text[100];
    return mtcp_ppeek(mctx, sock, side, text, 1, 0) == 1;
}

int main(int argc, char **argv)
{
    mctx_t mctx = mtcp_create_context(0);
    event_t above = MOS_ON_PKT_IN, a, b;
    int i, other;
    listener = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    for (i = 0; i < DEPTH; i++) {
        filter_arg_t arg = {&i, sizeof(i)};
        above = deep[i] = mtcp_define_event(above, at_level, &arg);
        if (!above) perror("define");
        if (i % 10 == 9 && mtcp_register_callback(mctx, listener, above, MOS_HK_SND, level_told)) perror("register");
    }
    mtcp_register_callback(mctx, listener, mtcp_define_event(MOS_ON_CONN_START, always, NULL), MOS_HK_SND, define_more);
    mtcp_register_callback(mctx, listener, mtcp_define_event(MOS_ON_PKT_IN, is_client, NULL), MOS_HK_SND, count_hook);
    mtcp_register_callback(mctx, listener, mtcp_define_event(MOS_ON_PKT_IN, is_client, NULL), MOS_HK_RCV, count_hook);
    mtcp_register_callback(mctx, listener, mtcp_define_event(MOS_ON_PKT_IN, is_server, NULL), MOS_HK_RCV, undo_self);
    /* A second listener: its tree is asked for itself. Children run after their parent's callback, siblings as they were registered. */
    other = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    a = mtcp_define_event(MOS_ON_TCP_STATE_CHANGE, is_client, NULL);
    b = mtcp_define_event(MOS_ON_TCP_STATE_CHANGE, is_server, NULL);
    mtcp_register_callback(mctx, other, b, MOS_HK_RCV, state_b);
    mtcp_register_callback(mctx, other, mtcp_define_event(a, is_client, NULL), MOS_HK_RCV, state_a_a);
    mtcp_register_callback(mctx, other, MOS_ON_TCP_STATE_CHANGE, MOS_HK_RCV, state);
    mtcp_register_callback(mctx, other, a, MOS_HK_RCV, state_a);
    mtcp_register_callback(mctx, other, mtcp_define_event(MOS_ON_CONN_NEW_DATA, has_data, NULL), MOS_NULL, data_a);
    mtcp_register_callback(mctx, other, mtcp_define_event(MOS_ON_CONN_END, is_client, NULL), MOS_HK_RCV, end_a);
    mtcp_register_callback(mctx, other, mtcp_define_event(MOS_ON_REXMIT, is_server, NULL), MOS_HK_RCV, rexmit_a);
    mtcp_register_callback(mctx, other, mtcp_define_event(MOS_ON_CONN_START, always, NULL), MOS_HK_RCV, count_once);
    mtcp_app_join(mctx);
    for (i = 0; i < DEPTH; i++) printf("%d ", asked[i]);
    printf("\n");
    for (i = 9; i < DEPTH; i += 10) printf("%d ", told[i]);
    printf("\n%d %d %d %d %d %d %d\n", once, twice, fresh, on_listener, self_undone, both_hooks[0], both_hooks[1]);
    for (i = 0; i < ordered; i++) printf("%s ", order[i]);
    printf("\n");
    return 0;
}
