/* The threads that the program makes, main()'s among them: how many there are, waking and ending them. */
#define _GNU_SOURCE /* dladdr, pthread_tryjoin_np */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <threads.h>

#include "life.h"

#define OURS __attribute__((visibility("hidden"), weak))
#define MAX_THREADS 256
#define WAKE SIGURG /* ignored where nobody asks for it */

static pthread_t threads[MAX_THREADS];
static bool running[MAX_THREADS], have_main;
static __thread int my_place = -1; /* a thread of the program */


bool mos__is_program_thread(void) { return my_place >= 0; }


/* ---- their beginning ---- */

typedef struct birth {
    void *(*run)(void *);
    void *arg;
    int place;
} birth_t;


static void thread_ended(void *place)
{
    life_t *life = &mos__life;
    int cancel = mos__enter();
    running[(intptr_t)place] = false;
    life->alive--;
    if (!place) life->main_returned = true; /* or left with pthread_exit() */
    pthread_cond_broadcast(&life->asked);
    mos__leave(cancel);
}


static void *run_thread(void *arg)
{
    birth_t b = *(birth_t *)arg;
    void *result = NULL;
    sigset_t wake;
    free(arg);
    my_place = b.place;
    sigemptyset(&wake);
    sigaddset(&wake, WAKE);
    pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL); /* only ever cancelled when it is given up */
    pthread_cleanup_push(thread_ended, (void *)(intptr_t)b.place);
    result = b.run(b.arg);
    pthread_cleanup_pop(1);
    return result;
}


int mos__thread(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    life_t *life = &mos__life;
    birth_t *b = malloc(sizeof *b);
    int place, status = EAGAIN;
    if (!real) real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_DEFAULT, "pthread_create");
    if (!b || !real) return free(b), EAGAIN;
    int cancel = mos__enter();
    place = have_main; /* the first is main()'s */
    while (place < MAX_THREADS && running[place]) place++;
    if (place < MAX_THREADS && !life->closed) {
        *b = (birth_t){run, arg, place};
        status = real(thread, attr, run_thread, b); /* it cannot end before the lock is given back */
        if (!status) {
            threads[place] = *thread;
            running[place] = have_main = true;
            life->alive++;
        }
    }
    mos__leave(cancel);
    if (status) free(b);
    return status;
}


/* libc's stays libc's for everyone else. */
OURS int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    return mos__thread(thread, attr, run, arg);
}


/* ---- their end ---- */

static void wait_for(int change)
{
    int cancel = mos__enter();
    mos__life.waiting += change;
    pthread_cond_broadcast(&mos__life.asked);
    mos__leave(cancel);
}

static void waited(void *unused) { (void)unused; wait_for(-1); }


/* In a callback: the thread that is to end may ask something first. */
static int join_here(pthread_t thread, void **result)
{
    const struct timespec turn = {0, 200000};
    int status;
    while ((status = pthread_tryjoin_np(thread, result)) == EBUSY) {
        mos__serve_within();
        nanosleep(&turn, NULL);
    }
    return status;
}


OURS int pthread_join(pthread_t thread, void **result)
{
    static int (*real)(pthread_t, void **);
    int status;
    if (!real) real = (int (*)(pthread_t, void **))dlsym(RTLD_DEFAULT, "pthread_join");
    if (!real) return EINVAL;
    if (my_place < 0) return mos__here ? join_here(thread, result) : real(thread, result);
    wait_for(1);
    pthread_cleanup_push(waited, NULL);
    status = real(thread, result);
    pthread_cleanup_pop(1);
    return status;
}


/* C11's, which begin libc's threads without its name. */
typedef struct c11 {
    int (*run)(void *);
    void *arg;
} c11_t;

static void *run_c11(void *given)
{
    c11_t c = *(c11_t *)given;
    free(given);
    return (void *)(intptr_t)c.run(c.arg);
}


OURS int thrd_create(thrd_t *thread, int (*run)(void *), void *arg)
{
    c11_t *c = malloc(sizeof *c);
    if (!c) return thrd_nomem;
    *c = (c11_t){run, arg};
    if (!pthread_create(thread, NULL, run_c11, c)) return thrd_success;
    free(c);
    return thrd_error;
}


OURS int thrd_join(thrd_t thread, int *result)
{
    void *value;
    if (pthread_join(thread, &value)) return thrd_error;
    if (result) *result = (int)(intptr_t)value;
    return thrd_success;
}


void mtcp_app_join(mctx_t mctx)
{
    life_t *life = &mos__life;
    int type;
    if (!mctx || mos__here) return;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type); /* at the wait only, which gives the lock back */
    mos__hold(&life->lock);
    life->joined++;
    pthread_cond_broadcast(&life->asked);
    pthread_cleanup_push(mos__unlock, &life->lock);
    int mine = life->ended;
    while (!life->released && life->have_context && life->ended == mine) pthread_cond_wait(&life->answered, &life->lock);
    life->joined--;
    pthread_cleanup_pop(1);
    pthread_setcanceltype(type, NULL);
}


bool mos__begin_context(void)
{
    int cancel = mos__enter();
    bool had_one = mos__life.have_context;
    mos__life.have_context = true;
    mos__leave(cancel);
    return !had_one;
}


void mos__end_context(void)
{
    int cancel = mos__enter();
    mos__life.have_context = false;
    mos__life.ended++;
    pthread_cond_broadcast(&mos__life.answered);
    mos__leave(cancel);
}


/* ---- ending them ---- */

void mos__wake(bool everyone)
{
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    struct sigaction nothing = {.sa_handler = (void (*)(int))(void *)abs}; /* a function that does nothing and outlives this library */
    if (!real) real = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_DEFAULT, "sigaction");
    if (!real || real(WAKE, &nothing, NULL)) return;
    int cancel = mos__enter();
    for (int i = 0; i < (everyone ? MAX_THREADS : 1); i++)
        if (running[i] && i != my_place) mos__send(threads[i], WAKE);
    mos__leave(cancel);
}


bool mos__wait_ended(long ms, bool main_ends_all)
{
    life_t *life = &mos__life;
    struct timespec until = mos__in_ms(ms);
    while (life->alive > 0 && !(main_ends_all && (life->main_returned || life->exited)))
        if (pthread_cond_timedwait(&life->asked, &life->lock, &until) == ETIMEDOUT) break;
    return life->alive == 0;
}


void mos__end_threads(void)
{
    life_t *life = &mos__life;
    life->closed = true;
    pthread_cond_broadcast(&life->answered);
    if (life->alive) {
        for (int i = 0; i < MAX_THREADS; i++)
            if (running[i]) pthread_cancel(threads[i]);
        if (!mos__wait_ended(500, false)) {
            Dl_info info;
            if (dladdr((void *)mos__end_threads, &info)) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
        }
    }
    pthread_mutex_unlock(&life->lock);
    struct timespec moment = {0, 5000000}; /* the last instructions of theirs are in this library */
    nanosleep(&moment, NULL);
    mos__hold(&life->lock);
}
