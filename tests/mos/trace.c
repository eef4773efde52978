/* Every event of a connection, in order: one line each. */
#include <stdio.h>
#include <mos_api.h>

static const char *SIDES[] = {"CLI", "SVR", "BOTH"};

static int state_of(mctx_t mctx, int sock, int side)
{
    int state = -1;
    socklen_t length = sizeof(state);
    mtcp_getsockopt(mctx, sock, SOL_MONSOCKET, side == MOS_SIDE_CLI ? MOS_TCP_STATE_CLI : MOS_TCP_STATE_SVR, &state, &length);
    return state;
}

static void show(mctx_t mctx, int sock, int side, const char *hook, event_t event)
{
    struct pkt_info p;
    const char *name = event == MOS_ON_PKT_IN ? "PKT_IN" : event == MOS_ON_CONN_START ? "START" : event == MOS_ON_TCP_STATE_CHANGE ? "STATE"
                     : event == MOS_ON_REXMIT ? "REXMIT" : event == MOS_ON_CONN_END ? "END" : event == MOS_ON_CONN_NEW_DATA ? "NEW_DATA"
                     : event == MOS_ON_ORPHAN ? "ORPHAN" : "ERROR";
    printf("%s/%s %s", hook, SIDES[side], name);
    if (event == MOS_ON_TCP_STATE_CHANGE) printf(" %d", state_of(mctx, sock, side));
    if (event == MOS_ON_CONN_NEW_DATA || event == MOS_ON_CONN_END) printf(" %s", mtcp_getlastpkt(mctx, sock, side, &p) ? "no packet" : "a packet?");
    printf("\n");
}

static void at_snd(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { show(mctx, sock, side, "SND", event); }
static void at_rcv(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { show(mctx, sock, side, "RCV", event); }
static void at_null(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { show(mctx, sock, side, "NULL", event); }

main(argc, argv) /* as it was written once */
    char **argv;
{
    static const event_t hooked[] = {MOS_ON_PKT_IN, MOS_ON_CONN_START, MOS_ON_TCP_STATE_CHANGE, MOS_ON_REXMIT, MOS_ON_CONN_END};
    static const event_t bare[] = {MOS_ON_CONN_NEW_DATA, MOS_ON_ERROR, MOS_ON_ORPHAN};
    unsigned i;
    mctx_t mctx;
    int sock;
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    for (i = 0; i < sizeof(hooked) / sizeof(hooked[0]); i++) {
        if (mtcp_register_callback(mctx, sock, hooked[i], MOS_HK_SND, at_snd)) perror("register");
        if (mtcp_register_callback(mctx, sock, hooked[i], MOS_HK_RCV, at_rcv)) perror("register");
    }
    for (i = 0; i < sizeof(bare) / sizeof(bare[0]); i++)
        if (mtcp_register_callback(mctx, sock, bare[i], MOS_NULL, at_null)) perror("register");
    mtcp_app_join(mctx);
    return 0;
}
