/* A context that ends in a callback, and another one after it: the callback waits until main() has set it up. */
#include <semaphore.h>
#include <stdio.h>
#include <mos_api.h>

static int packets, orphans;
static sem_t set_up;

static void counted(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    if (++packets != 9) return;
    mtcp_destroy_context(mctx);
    sem_wait(&set_up);
}

static void orphan(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { orphans++; }

int main(void)
{
    int round, sock;
    mctx_t mctx;
    sem_init(&set_up, 0, 0);
    for (round = 0; round < 2; round++) {
        if (!(mctx = mtcp_create_context(0)) || mtcp_create_context(0)) printf("no context\n");
        sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
        mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
        mtcp_register_callback(mctx, sock, MOS_ON_ORPHAN, MOS_NULL, orphan);
        if (round) sem_post(&set_up);
        mtcp_app_join(mctx);
        printf("%d packets, %d orphans\n", packets, orphans);
    }
    mtcp_app_join(mctx); /* does not wait for what is over */
    return 0;
}
