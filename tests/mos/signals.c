/* A main() that sleeps or waits until a signal comes, in the way that argv[1] names, while another thread has joined; signals that the program sends
 * itself; and SIGALRM. */
#define _POSIX_C_SOURCE 200809L /* signal() has another name then */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>
#include <mos_api.h>

static mctx_t mctx;
static pthread_t first;
static volatile sig_atomic_t done, alarms;
static int packets;

static void told(int signum) { printf("signal %d at %d\n", signum, packets); }
static void stop(int signum) { done = signum; }
static void stop_with(int signum, siginfo_t *info, void *context) { done = info->si_signo; }
static void rang(int signum) { alarms++; }

static void counted(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg)
{
    switch (++packets) {
    case 2: kill(getpid(), SIGUSR1); break;
    case 3: pthread_kill(first, SIGUSR2); break;
    case 4: raise(SIGHUP); raise(SIGCHLD); break;
    }
}

static void *join(void *arg) { mtcp_app_join(mctx); return NULL; }

static void *wait(void *set)
{
    int signum;
    sigwait(set, &signum);
    done = signum;
    mtcp_destroy_context(mctx);
    return NULL;
}

int main(int argc, char **argv)
{
    const char *how = argv[1];
    struct sigaction action, before;
    struct itimerval each = {{0, 250000}, {1, 0}}, left;
    struct timeval long_time = {1000, 0};
    struct timespec short_time = {0, 1000};
    pthread_t thread;
    sigset_t set, all;
    int sock;
    first = pthread_self();
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
    signal(SIGUSR1, told);
    signal(SIGUSR2, told);
    signal(SIGHUP, SIG_IGN);
    signal(SIGALRM, rang);
    memset(&action, 0, sizeof(action));
    action.sa_handler = stop;
    sigaction(SIGINT, &action, NULL);
    sigfillset(&all);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (!strcmp(how, "wait")) {
        sigprocmask(SIG_BLOCK, &set, NULL);
        if (sigtimedwait(&set, NULL, &short_time) != -1) printf("nothing came\n");
        pthread_create(&thread, NULL, wait, &set);
        mtcp_app_join(mctx);
        pthread_join(thread, NULL);
    } else if (!strcmp(how, "alarm")) {
        alarm(100);
        if (setitimer(ITIMER_REAL, &each, &left) || left.it_value.tv_sec < 99 || left.it_interval.tv_sec) printf("another was left\n");
        mtcp_app_join(mctx);
        printf("%d alarms\n", (int)alarms);
    } else {
        pthread_create(&thread, NULL, join, NULL);
        if (!strcmp(how, "leave")) pthread_exit(NULL);
        while (!done && !strcmp(how, "pause")) pause();
        while (!done && !strcmp(how, "sleep")) sleep(1000);
        if (!strcmp(how, "suspend")) {
            pthread_sigmask(SIG_BLOCK, &all, NULL);
            sigdelset(&all, SIGINT);
            while (!done) sigsuspend(&all);
        }
        if (!strcmp(how, "select")) {
            action.sa_flags = SA_SIGINFO;
            action.sa_sigaction = stop_with;
            sigaction(SIGINT, &action, &before);
            if (before.sa_handler != stop) printf("another was before\n");
            while (!done) select(0, NULL, NULL, NULL, &long_time);
        }
    }
    printf("%d, %d packets\n", (int)done, packets);
    return 0;
}
