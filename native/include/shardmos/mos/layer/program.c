/* The program's life: main() on a thread of its own until it yields, exit(), and the end. */
#define _GNU_SOURCE /* environ */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "life.h"

#define STACK (8u << 20)
#define SETUP_SECONDS 5    /* for main() to join or return */
#define ENDING_MS 2000     /* for what follows mtcp_app_join() */
#define INTERRUPT_MS 300   /* for main() to end after its signal, before other threads are woken */
#define QUIET_MS 100       /* threads that set up side by side: nobody asked anything for so long, */
#define BUSY_MS 1000       /* or one has joined for so long, whatever others ask */

static jmp_buf way_out;
static bool guarded;

int main(int argc, char **argv, char **environment);


/* ---- main() ---- */

typedef struct arguments {
    int argc;
    char **argv;
} arguments_t;

static void *run_main(void *given)
{
    static arguments_t a;
    a = *(arguments_t *)given;
    int status = main(a.argc, a.argv, environ), cancel = mos__enter();
    mos__life.main_returned = true;
    mos__life.main_status = status;
    pthread_cond_broadcast(&mos__life.asked);
    mos__leave(cancel);
    return NULL;
}


/* Is the set-up over? Threads may set up side by side. */
static bool settled(bool quiet)
{
    const life_t *life = &mos__life;
    if (life->exited) return true;
    if (!life->joined && !life->main_returned) return false;
    return life->joined + life->waiting >= life->alive || quiet;
}


static struct timespec sooner(struct timespec a, struct timespec b)
{
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec) ? a : b;
}


static bool listens(void)
{
    for (int i = 0; i < MAX_LISTENERS; i++)
        if (mos__listeners[i].used) return true;
    return false;
}


static int setup_result(char *error, size_t size)
{
    const life_t *life = &mos__life;
    if (!life->exited && !life->main_returned && !life->joined) {
        snprintf(error, size, "main() neither called mtcp_app_join() nor returned within %d seconds", SETUP_SECONDS);
        return -ETIMEDOUT;
    }
    if (life->exited && life->exit_status) {
        snprintf(error, size, "the program ended itself with exit(%d); its output says why", life->exit_status);
        return -ECANCELED;
    }
    if (life->main_returned && life->main_status && !listens()) {
        snprintf(error, size, "main() returned %d and made no monitoring socket; its output says why", life->main_status);
        return -ECANCELED;
    }
    return 0;
}


static int begin_main(int argc, char **argv)
{
    life_t *life = &mos__life;
    static arguments_t a;
    pthread_attr_t attr;
    pthread_condattr_t clock;
    pthread_t thread;
    a = (arguments_t){argc, argv};
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&life->asked, &clock);
    pthread_cond_init(&life->answered, &clock);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int status = mos__thread(&thread, &attr, run_main, &a);
    pthread_attr_destroy(&attr);
    return status;
}


/* With the lock held: answers the program until its set-up is over, or takes too long. */
static void set_up(void)
{
    life_t *life = &mos__life;
    struct timespec deadline = mos__in_ms(SETUP_SECONDS * 1000), quiet = deadline, busy = deadline;
    bool some_joined = false, silent = false;
    while (!settled(silent)) {
        mos__serve_all();
        if (settled(false)) break;
        if ((life->joined || life->main_returned) && !some_joined) {
            some_joined = true;
            busy = mos__in_ms(BUSY_MS);
        }
        if (some_joined) quiet = sooner(mos__in_ms(QUIET_MS), busy);
        int how = pthread_cond_timedwait(&life->asked, &life->lock, some_joined ? &quiet : &deadline);
        if (how == ETIMEDOUT && !some_joined) break;
        silent = how == ETIMEDOUT;
    }
}


int mos__start(int argc, char **argv, char *error, size_t size)
{
    life_t *life = &mos__life;
    mos__watch_crashes(true);
    int status = begin_main(argc, argv);
    if (status) return snprintf(error, size, "no thread for main(): %s", strerror(status)), -status;
    mos__hold(&life->lock);
    set_up();
    mos__serve_all();
    status = setup_result(error, size);
    if (status) mos__end_threads();
    if (life->exited) mos__over = true;
    pthread_mutex_unlock(&life->lock);
    if (!status && life->exited) mos__close_all();
    if (status) {
        mos__run_at_exit(life->exit_status);
        mos__watch_crashes(false);
    } else if (life->main_returned) {
        mos__say_status();
    }
    fflush(stdout);
    return status;
}


/* ---- exit() ---- */

void mos__say_status(void)
{
    if (mos__life.exited && mos__life.exit_status) mos__warn("the program ended itself with exit(%d)", mos__life.exit_status);
    else if (!mos__life.exited && mos__life.main_status) mos__warn("main() returned %d", mos__life.main_status);
}


bool mos__in_program(void) { return (mos__here && guarded) || mos__is_program_thread(); }


void mos__leave_callback(void)
{
    if (guarded) longjmp(way_out, 1);
}


void mos__exit(int status)
{
    life_t *life = &mos__life;
    if (mos__here && guarded) {
        if (!life->exited) life->exit_status = status;
        life->exited = mos__over = true;
        longjmp(way_out, 1);
    }
    int cancel = mos__enter();
    if (!life->exited) life->exit_status = status;
    __atomic_store_n(&life->exited, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&life->asked);
    mos__leave(cancel);
    if (mos__is_program_thread()) pthread_exit(NULL);
    for (;;) pause(); /* no thread of the program, no callback: there is nowhere to go */
}


static void guard(void (*f)(const smos_call_t *), const smos_call_t *call)
{
    mos__here++;
    guarded = true;
    mos__now = (now_t){.call = call, .packet = call ? call->packet : NULL};
    if (!setjmp(way_out)) {
        f(call);
    } else if (call) { /* exit() was called */
        mos__over = true;
        mos__close_all();
        mos__say_status();
    }
    mos__now = (now_t){0};
    guarded = false;
    mos__here--;
}


void mos__guard(void (*f)(const smos_call_t *), const smos_call_t *call)
{
    if (!mos__over) guard(f, call);
}


void mos__guard_last(void (*f)(const smos_call_t *)) { guard(f, NULL); }


/* ---- the end ---- */

static bool interrupted;

static void stop_signal(const smos_call_t *call)
{
    (void)call;
    interrupted = mos__signal(SIGINT) || mos__signal(SIGTERM);
}


/* The worker stops, or the capture is over. */
void mos__finish(void)
{
    life_t *life = &mos__life;
    bool exited = life->exited, main_ends_all = !life->main_returned, told = exited || life->main_returned;
    mos__hold(&life->lock);
    life->closed = true;
    pthread_cond_broadcast(&life->answered);
    pthread_mutex_unlock(&life->lock);
    if (!exited) mos__guard(stop_signal, NULL);
    mos__over = true;
    if (interrupted) mos__wake(false);
    mos__hold(&life->lock);
    life->released = true;
    pthread_cond_broadcast(&life->answered);
    if (!exited && !life->exited && !mos__wait_ended(INTERRUPT_MS, main_ends_all) && interrupted && !(main_ends_all && life->main_returned)) {
        pthread_mutex_unlock(&life->lock);
        mos__wake(true);
        mos__hold(&life->lock);
    }
    if (!exited) mos__wait_ended(ENDING_MS - INTERRUPT_MS, main_ends_all);
    mos__end_threads();
    pthread_mutex_unlock(&life->lock);
    if (!told) mos__say_status();
    mos__run_at_exit(life->exited ? life->exit_status : life->main_status);
    mos__watch_crashes(false);
}
