/* A long line for each packet, in pieces. */
#include <stdio.h>
#include <mos_api.h>

static void told(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    int i;
    for (i = 0; i < 30; i++) printf("%s", side == MOS_SIDE_CLI ? "client" : "server");
    printf(" of %d\n", sock);
}

int main(void)
{
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, told);
    mtcp_app_join(mctx);
    return 0;
}
