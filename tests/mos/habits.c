/* A program with the habits of its kind: a thread for each core and a main() that sleeps until SIGINT, a table by socket number, a log file, limits, masks,
 * locked memory, a function with a name of libc's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <mtcp_api.h>
#include <mos_api.h>
#include <cpu.h>
#include <debug.h>

#define MAX_FLOW 10000

static struct { int used; uint64_t bytes[2]; struct timeval begun; } table[MAX_FLOW];
static volatile sig_atomic_t done;
static mctx_t contexts[MAX_CPUS];
static pthread_t threads[MAX_CPUS];
static int beyond;

void error(char *message)
{
    perror(message);
    exit(1);
}

static void on_interrupt(int signum) { done = signum; }

static void started(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    if (sock < 0 || sock >= MAX_FLOW) {
        beyond++;
        return;
    }
    memset(&table[sock], 0, sizeof(table[sock]));
    table[sock].used = 1;
    gettimeofday(&table[sock].begun, NULL);
}

static void received(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p) < 0) error("no packet");
    table[sock].bytes[side] += p.ip_len;
}

static void ended(mctx_t mctx, int sock, int side, uint64_t events, filter_arg_t *arg)
{
    FILE *log;
    if (side == MOS_SIDE_CLI) return;
    table[sock].used = 0;
    if (!(log = fopen("habits.log", "a"))) error("habits.log");
    fprintf(log, "%lu %lu\n", (unsigned long)table[sock].bytes[0], (unsigned long)table[sock].bytes[1]);
    fclose(log);
}

static void print(mctx_t mctx, int id, int side, uint64_t events, filter_arg_t *arg)
{
    struct timeval second = {1, 0};
    int i, n = 0;
    for (i = 0; i < MAX_FLOW; i++) n += table[i].used;
    printf("%d flows, %u\n", n, mtcp_get_connection_cnt(mctx));
    mtcp_settimer(mctx, id, &second, print);
}

static void *watch(void *arg)
{
    int core = *(int *)arg, sock;
    struct timeval second = {1, 0};
    union monitor_filter ft;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof(set), &set);
    if (mtcp_core_affinitize(core)) perror("affinitize");
    if (!(contexts[core] = mtcp_create_context(core))) error("context");
    sock = mtcp_socket(contexts[core], AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    memset(&ft, 0, sizeof(ft));
    ft.stream_syn_filter = ft.stream_orphan_filter = "tcp";
    if (mtcp_bind_monitor_filter(contexts[core], sock, &ft)) error("bind");
    if (mtcp_register_callback(contexts[core], sock, MOS_ON_CONN_START, MOS_HK_SND, started)) error("start");
    if (mtcp_register_callback(contexts[core], sock, MOS_ON_PKT_IN, MOS_HK_SND, received)) error("packet");
    if (mtcp_register_callback(contexts[core], sock, MOS_ON_CONN_END, MOS_HK_SND, ended)) error("end");
    mtcp_settimer(contexts[core], sock, &second, print);
    mtcp_app_join(contexts[core]);
    mtcp_destroy_context(contexts[core]);
    return NULL;
}

int main(int argc, char *argv[])
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    struct sigaction action = {.sa_handler = on_interrupt};
    struct mtcp_conf conf;
    sigset_t pipes;
    int i, cores = sysconf(_SC_NPROCESSORS_ONLN), numbers[MAX_CPUS];
    setrlimit(RLIMIT_CORE, &all);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    setvbuf(stdout, NULL, _IOLBF, 0);
    srand(time(NULL));
    umask(022);
    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipes, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (mtcp_init("config/mos.conf")) error("init");
    mtcp_getconf(&conf);
    conf.num_cores = cores;
    conf.max_concurrency = MAX_FLOW;
    mtcp_setconf(&conf);
    for (i = 0; i < cores; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, watch, &numbers[i])) error("thread");
    }
    while (!done) sleep(1);
    for (i = 0; i < cores; i++) pthread_join(threads[i], NULL);
    mtcp_destroy();
    printf("signal %d, %d beyond\n", done, beyond);
    return 0;
}
