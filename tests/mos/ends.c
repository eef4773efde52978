/* Every way in which a C program ends itself, in its set-up or in a callback: "main" or "callback", and which. */
#define _GNU_SOURCE
#include <assert.h>
#include <err.h>
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <mos_api.h>

static const char *how;
static int packets;

static void first_told(void) { printf("at exit, first told\n"); }
static void last_told(void) { printf("at exit, last told, %d packets\n", packets); }
static void with_status(int status, void *arg) { printf("at exit, %d %s\n", status, (char *)arg); }

static void end(void)
{
    errno = ENOENT;
    if (!strcmp(how, "exit")) exit(3);
    if (!strcmp(how, "_exit")) _exit(3);
    if (!strcmp(how, "_Exit")) _Exit(3);
    if (!strcmp(how, "quick_exit")) quick_exit(3);
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "assert")) assert(!"so");
    if (!strcmp(how, "assert_perror")) assert_perror(ENOENT);
    if (!strcmp(how, "err")) err(3, "file %d", 7);
    if (!strcmp(how, "errx")) errx(3, "file %d", 7);
    if (!strcmp(how, "error")) error(3, ENOENT, "file %d", 7);
    if (!strcmp(how, "raise")) raise(SIGTERM);
    if (!strcmp(how, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(how, "goes on")) { /* none of these ends anything */
        error(0, 0, "only told");
        warn("only told");
        if (daemon(1, 1)) printf("no daemon\n");
        alarm(1);
        if (alarm(0) != 1) printf("no alarm was set\n");
        return;
    }
    printf("still here\n");
}

static void on_packet(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    if (++packets == 3) end();
}

static void *in_thread(void *arg)
{
    mtcp_app_join(arg);
    printf("joined, %d packets\n", packets);
    return NULL;
}

int main(int argc, char **argv)
{
    mctx_t mctx;
    pthread_t thread;
    int sock;
    how = argv[2];
    atexit(last_told);
    on_exit(with_status, "status");
    atexit(first_told);
    if (!strcmp(argv[1], "main")) end();
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, on_packet);
    if (!strcmp(argv[1], "thread")) {
        pthread_create(&thread, NULL, in_thread, mctx);
        pthread_exit(NULL); /* the other thread goes on */
    }
    mtcp_app_join(mctx);
    printf("joined, %d packets\n", packets);
    return 0;
}
