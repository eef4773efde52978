/* A firewall of several sources: rules from a file, the first SYN decides, a table each second, threads' contexts in an array. */
#define _LARGEFILE64_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>
#include <signal.h>
#include <sys/types.h>
#include <linux/if_ether.h>
#include <linux/tcp.h>
#include <mos_api.h>
#include "cpu.h"
#include "http_parsing.h"
#include "debug.h"
#include "applib.h"
#include "rules.h"

#define FAILED(f, m...) { fprintf(stderr, "[%10s:%4d] errno: %u " f, __FUNCTION__, __LINE__, errno, ##m); exit(EXIT_FAILURE); }

struct thread_context {
    mctx_t mctx;
    int listener;
};

static void dump(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct timeval second = {.tv_sec = 1, .tv_usec = 0};
    print_rules("table");
    if (mtcp_settimer(mctx, sock, &second, dump)) FAILED("timer\n");
}

static bool is_first_syn(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) FAILED("no packet\n");
    return p.tcph->syn && !p.tcph->ack;
}

static void decide(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    int both = MOS_SIDE_BOTH;
    verdict_t verdict;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) FAILED("no packet\n");
    verdict = look_up(p.iph->saddr, p.iph->daddr, p.tcph->source, p.tcph->dest);
    if (verdict == DROP) {
        mtcp_setlastpkt(mctx, sock, side, 0, NULL, 0, MOS_DROP);
    } else {
        assert(verdict == ACCEPT);
        if (mtcp_setsockopt(mctx, sock, SOL_MONSOCKET, MOS_STOP_MON, &both, sizeof(both)) < 0) FAILED("stop of %d\n", sock);
    }
}

static void begin(struct thread_context *ctx, int core, event_t syn)
{
    struct timeval second = {.tv_sec = 1, .tv_usec = 0};
    ctx->mctx = mtcp_create_context(core);
    ctx->listener = mtcp_socket(ctx->mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (ctx->listener < 0) FAILED("socket\n");
    if (mtcp_register_callback(ctx->mctx, ctx->listener, syn, MOS_HK_SND, decide) == -1) FAILED("register\n");
    if (ctx->mctx->cpu == 0 && mtcp_settimer(ctx->mctx, ctx->listener, &second, dump)) FAILED("timer\n");
}

int main(int argc, char **argv)
{
    struct thread_context ctx[MAX_CPUS] = {{0}};
    struct conf_var settings[] = {{"greeting", "none"}, {"unset", "as it was"}};
    char *fname = "config/mos.conf", *file = NULL, *settings_file = NULL;
    struct mtcp_conf conf;
    event_t syn;
    int i, opt;
    while ((opt = getopt(argc, argv, "c:f:s:")) != -1) {
        switch (opt) {
        case 'c': fname = optarg; break;
        case 'f': file = optarg; break;
        case 's': settings_file = optarg; break;
        default: printf("usage: %s -f rules\n", argv[0]); return 0;
        }
    }
    if (mtcp_init(fname)) FAILED("init\n");
    mtcp_getconf(&conf);
    conf.num_cores = GetNumCPUs();
    mtcp_setconf(&conf);
    if (settings_file && !LoadConfig(settings_file, settings, 2)) printf("%s, %s, %s\n", settings[0].value, settings[1].value, strcbevent(MOS_ON_ORPHAN));
    if (!file || read_rules(file) < 0) FAILED("rules of %s\n", file);
    syn = mtcp_define_event(MOS_ON_PKT_IN, is_first_syn, NULL);
    if (syn == MOS_NULL_EVENT) FAILED("define");
    for (i = 0; i < conf.num_cores; i++) begin(&ctx[i], i, syn);
    for (i = 0; i < conf.num_cores; i++) {
        mtcp_app_join(ctx[i].mctx);
        mtcp_close(ctx[i].mctx, ctx[i].listener);
        mtcp_destroy_context(ctx[i].mctx);
        TRACE_INFO("thread %d joined\n", i);
    }
    mtcp_destroy();
    print_rules("end");
    return EXIT_SUCCESS;
}
