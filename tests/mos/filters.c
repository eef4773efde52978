/* Two listeners with filters of their own, orphans by a filter of theirs, user-defined events over NEW_DATA and CONN_END. */
#include <stdio.h>
#include <string.h>
#include <mos_api.h>

static int first, second;

static void told(mctx_t mctx, int sock, const char *what)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof(peer);
    if (sock == first || sock == second)
        printf("%s of listener %d\n", what, sock == first ? 1 : 2);
    else if (!mtcp_getpeername(mctx, sock, (struct sockaddr *)&peer, &length, MOS_SIDE_SVR))
        printf("%s of port %d\n", what, ntohs(peer.sin_port));
}

static void on_first(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told(mctx, sock, "first"); }
static void on_second(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told(mctx, sock, "second"); }
static void on_orphan(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told(mctx, sock, "orphan"); }
static void on_data(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told(mctx, sock, "data"); }
static void on_end(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { told(mctx, sock, "end"); }

static bool is_request(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    char text[4] = "";
    return mtcp_ppeek(mctx, sock, side, text, 3, 0) == 3 && !strcmp(text, "GET");
}

static bool of_client(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { return side == MOS_SIDE_CLI; }

int main(int argc, char **argv)
{
    union monitor_filter web = {.stream_syn_filter = "dst port 80", .stream_orphan_filter = "port 99"}, other = {.stream_syn_filter = "tcp and host 10.0.0.2 and portrange 81-90"};
    mctx_t mctx = mtcp_create_context(0);
    first = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    second = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (mtcp_bind_monitor_filter(mctx, first, &web) || mtcp_bind_monitor_filter(mctx, second, &other)) perror("bind");
    mtcp_register_callback(mctx, first, MOS_ON_CONN_START, MOS_HK_SND, on_first);
    mtcp_register_callback(mctx, second, MOS_ON_CONN_START, MOS_HK_SND, on_second);
    mtcp_register_callback(mctx, first, MOS_ON_ORPHAN, MOS_NULL, on_orphan);
    mtcp_register_callback(mctx, first, mtcp_define_event(MOS_ON_CONN_NEW_DATA, is_request, NULL), MOS_NULL, on_data);
    mtcp_register_callback(mctx, first, mtcp_define_event(MOS_ON_CONN_END, of_client, NULL), MOS_HK_SND, on_end);
    mtcp_app_join(mctx);
    return 0;
}
