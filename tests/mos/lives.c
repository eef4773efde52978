/* How a program begins and ends, by its first argument. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <mos_api.h>

static int packets, tagged;
static mctx_t mine;

static void counted(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { packets++; }

static void leaving(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    printf("leaving\n");
    exit(3);
}

static void stopping(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    int one = MOS_SIDE_SVR;
    packets += side == MOS_SIDE_CLI;
    tagged += side == MOS_SIDE_SVR;
    if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_STOP_MON, &one, sizeof(one))) perror("stop");
}

static void tag(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    long *n = mtcp_get_uctx(mctx, sock);
    if (!n) mtcp_set_uctx(mctx, sock, n = calloc(1, sizeof(*n)));
    ++*n;
}

static void untag(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    long *n = mtcp_get_uctx(mctx, sock);
    if (side != MOS_SIDE_SVR) return; /* the last of its calls */
    printf("%ld packets\n", *n);
    free(n);
    mtcp_set_uctx(mctx, sock, NULL);
}

static void *one_core(void *arg)
{
    int core = (int)(long)arg, sock;
    mctx_t mctx;
    mtcp_core_affinitize(core);
    if (!(mctx = mtcp_create_context(core))) return NULL;
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
    mtcp_app_join(mctx);
    mtcp_destroy_context(mctx);
    return &packets;
}

static void interrupted(int signum) { printf("signal %d\n", signum); }

int main(int argc, char **argv)
{
    const char *mode = argv[1];
    int sock;
    long i;
    if (!strcmp(mode, "exit")) exit(argc > 2 ? atoi(argv[2]) : 0);
    if (!strcmp(mode, "forever")) for (;;) packets++;
    if (!strcmp(mode, "asleep")) for (;;) sleep(100);
    if (!strcmp(mode, "fails")) return 1;
    if (!strcmp(mode, "threads")) {
        pthread_t thread[4];
        void *result;
        int joined = 0;
        for (i = 0; i < 4; i++) pthread_create(&thread[i], NULL, one_core, (void *)i);
        for (i = 0; i < 4; i++) {
            pthread_join(thread[i], &result);
            joined += result == &packets;
        }
        printf("%d threads, %d packets\n", joined, packets);
        return 0;
    }
    mine = mtcp_create_context(0);
    sock = mtcp_socket(mine, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (!strcmp(mode, "leave")) {
        mtcp_register_callback(mine, sock, MOS_ON_CONN_START, MOS_HK_RCV, leaving);
        mtcp_register_callback(mine, sock, MOS_ON_PKT_IN, MOS_HK_RCV, leaving);
    } else if (!strcmp(mode, "stop")) {
        mtcp_register_callback(mine, sock, MOS_ON_PKT_IN, MOS_HK_SND, stopping);
    } else if (!strcmp(mode, "uctx")) {
        mtcp_register_callback(mine, sock, MOS_ON_PKT_IN, MOS_HK_SND, tag);
        mtcp_register_callback(mine, sock, MOS_ON_CONN_END, MOS_HK_SND, untag);
    } else {
        mtcp_register_callback(mine, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
    }
    if (!strcmp(mode, "returns")) return 0;
    signal(SIGINT, interrupted);
    mtcp_app_join(mine);
    printf("%d %d packets\n", packets, tagged);
    if (!strcmp(mode, "lingers")) for (;;) sleep(1);
    if (!strcmp(mode, "exits")) exit(0);
    return 0;
}
