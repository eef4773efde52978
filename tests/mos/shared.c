/* A thread prints while packets pass: it asks for states and counts with the lock in its hand that the callbacks take, of the kind that argv[1] names, and
 * ends at the program's SIGINT. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>
#include <mos_api.h>

#define TABLE 512
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static sem_t semaphore;
static mtx_t plain;
static char kind;
static unsigned long packets, started, ended, rounds;
static int table[TABLE];
static mctx_t mctx;
static volatile sig_atomic_t over;

static void take(int to_write)
{
    switch (kind) {
    case 'm': pthread_mutex_lock(&mutex); break;
    case 'r': to_write ? pthread_rwlock_wrlock(&readers) : pthread_rwlock_rdlock(&readers); break;
    case 's': pthread_spin_lock(&spin); break;
    case 'p': sem_wait(&semaphore); break;
    case 'c': mtx_lock(&plain); break;
    }
}

static void give(void)
{
    switch (kind) {
    case 'm': pthread_mutex_unlock(&mutex); break;
    case 'r': pthread_rwlock_unlock(&readers); break;
    case 's': pthread_spin_unlock(&spin); break;
    case 'p': sem_post(&semaphore); break;
    case 'c': mtx_unlock(&plain); break;
    }
}

static void counted(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg) { take(1); packets++; give(); }
static void start(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg) { take(1); started++; table[sock % TABLE] = sock; give(); }
static void end(mctx_t m, int sock, int side, event_t event, filter_arg_t *arg) { take(1); ended++; table[sock % TABLE] = 0; give(); }

static int report(void *arg)
{
    struct timespec moment = {0, 20000};
    while (!over) {
        int i, state;
        take(0);
        for (i = 0; i < TABLE; i++) {
            socklen_t length = sizeof(state);
            if (table[i]) mtcp_getsockopt(mctx, table[i], SOL_MONSOCKET, MOS_TCP_STATE_CLI, &state, &length);
        }
        if (mtcp_get_connection_cnt(mctx) > 1000) printf("too many\n");
        rounds++;
        give();
        nanosleep(&moment, NULL);
    }
    return (int)(started - ended / 2);
}

static void interrupted(int signum)
{
    over = 1;
    mtcp_destroy_context(mctx);
}

int main(int argc, char **argv)
{
    thrd_t thread;
    int sock, left;
    kind = argv[1][0];
    pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
    sem_init(&semaphore, 0, 1);
    mtx_init(&plain, mtx_plain);
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, start);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_END, MOS_HK_SND, end);
    mtcp_register_signal(SIGINT, interrupted);
    thrd_create(&thread, report, NULL);
    mtcp_app_join(mctx);
    thrd_join(thread, &left);
    printf("%lu packets, %lu started, %lu ended, %d left\n", packets, started, ended, left);
    return rounds == 0;
}
