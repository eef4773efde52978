/* Translation of source addresses, with a pool of ports for each core: a port is taken whose answers come back to this core, and given back at
 * the connection's end. "-i ADDRESS [-n PORTS]". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pthread.h>
#include <sys/queue.h>
#include <linux/if_ether.h>
#include <linux/tcp.h>
#include <mos_api.h>
#include <mtcp_util.h>
#include "cpu.h"
#include "debug.h"
#include "rss.h"

enum { SOURCE, DESTINATION };

struct port {
    uint16_t number; /* network order */
    TAILQ_ENTRY(port) link;
};

static in_addr_t outside;
static TAILQ_HEAD(, port) unused;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int cores, taken, given_back, none_left, answers;

static struct port *take(mctx_t mctx, int sock)
{
    struct sockaddr_in a[2];
    socklen_t length = sizeof(a);
    struct port *p;
    if (mtcp_getpeername(mctx, sock, (struct sockaddr *)a, &length, MOS_SIDE_BOTH) < 0) exit(EXIT_FAILURE);
    pthread_mutex_lock(&lock);
    TAILQ_FOREACH(p, &unused, link)
        if (GetRSSCPUCore(outside, a[MOS_SIDE_SVR].sin_addr.s_addr, p->number, a[MOS_SIDE_SVR].sin_port, cores, 0) == mctx->cpu) break;
    if (p) {
        TAILQ_REMOVE(&unused, p, link);
        mtcp_set_uctx(mctx, sock, p);
        taken++;
        printf("%s:%d as %d\n", inet_ntoa(a[MOS_SIDE_CLI].sin_addr), ntohs(a[MOS_SIDE_CLI].sin_port), ntohs(p->number));
    } else {
        none_left++;
    }
    pthread_mutex_unlock(&lock);
    return p;
}

static int rewrite(mctx_t mctx, int sock, int side, in_addr_t address, uint16_t port, int part)
{
    if (mtcp_setlastpkt(mctx, sock, side, part == SOURCE ? 12 : 16, (uint8_t *)&address, sizeof(address), MOS_IP_HDR | MOS_OVERWRITE) < 0) return -1;
    return mtcp_setlastpkt(mctx, sock, side, part == SOURCE ? 0 : 2, (uint8_t *)&port, sizeof(port),
                           MOS_TCP_HDR | MOS_OVERWRITE | MOS_UPDATE_IP_CHKSUM | MOS_UPDATE_TCP_CHKSUM);
}

static void translate(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct port *p = mtcp_get_uctx(mctx, sock);
    struct sockaddr_in client;
    socklen_t length = sizeof(client);
    int failed;
    if (!p && !(p = take(mctx, sock))) {
        mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP);
        return;
    }
    if (side == MOS_SIDE_CLI) {
        failed = rewrite(mctx, sock, side, outside, p->number, SOURCE);
    } else {
        if (mtcp_getpeername(mctx, sock, (struct sockaddr *)&client, &length, MOS_SIDE_CLI)) exit(EXIT_FAILURE);
        answers++;
        failed = rewrite(mctx, sock, side, client.sin_addr.s_addr, client.sin_port, DESTINATION);
    }
    if (failed && mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP) < 0) exit(EXIT_FAILURE);
}

static void give_back(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct port *p = mtcp_get_uctx(mctx, sock);
    if (!p) return;
    pthread_mutex_lock(&lock);
    TAILQ_INSERT_TAIL(&unused, p, link);
    given_back++;
    pthread_mutex_unlock(&lock);
    mtcp_set_uctx(mctx, sock, NULL);
}

int main(int argc, char **argv)
{
    mctx_t mctx[MAX_CPUS];
    int i, opt, sock, ports = 65535 - 1025;
    cores = GetNumCPUs();
    while ((opt = getopt(argc, argv, "i:n:")) != -1) {
        if (opt == 'i') outside = inet_addr(optarg);
        else if (opt == 'n') ports = atoi(optarg);
        else return -1;
    }
    TAILQ_INIT(&unused);
    for (i = 1025; i < 1025 + ports; i++) {
        struct port *p = malloc(sizeof(*p));
        p->number = htons(i);
        TAILQ_INSERT_TAIL(&unused, p, link);
    }
    for (i = 0; i < cores; i++) {
        if (!(mctx[i] = mtcp_create_context(i))) return -1;
        sock = mtcp_socket(mctx[i], AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
        if (mtcp_register_callback(mctx[i], sock, MOS_ON_PKT_IN, MOS_HK_SND, translate)) exit(EXIT_FAILURE);
        if (mtcp_register_callback(mctx[i], sock, MOS_ON_CONN_END, MOS_HK_SND, give_back)) exit(EXIT_FAILURE);
    }
    for (i = 0; i < cores; i++) mtcp_app_join(mctx[i]);
    printf("%d taken, %d given back, %d without a port, %d answers\n", taken, given_back, none_left, answers);
    mtcp_destroy();
    return 0;
}
