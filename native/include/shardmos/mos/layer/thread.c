/* The program's threads: main() on a stack of its own, the threads that it makes, what they ask of the engine, and their end. */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "layer.h"

#define STACK (8u << 20)
#define SETUP_SECONDS 5  /* for main() to join or return */
#define ENDING_SECONDS 2 /* for what follows mtcp_app_join() */
#define QUIET_MS 100     /* threads that set up side by side: nobody asked anything for so long */

typedef struct request {
    struct request *next;
    mos__task_t run;
    const intptr_t *args;
    intptr_t result;
    int error;
    bool done;
} request_t;

/* Under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked, answered; /* on the monotonic clock */
static request_t *first_request, **last_request = &first_request;
static bool closed;       /* nothing is served any more */
static bool released;     /* mtcp_app_join returns */
static int alive, joined, waiting; /* threads of the program: all, within mtcp_app_join, within pthread_join */
static bool main_returned, exited;
static int main_status, exit_status;

#define MAX_THREADS 256
static pthread_t threads[MAX_THREADS];
static bool running[MAX_THREADS];
static __thread int my_place = -1; /* a thread of the program */

static jmp_buf way_out;
static bool guarded;
static mtcp_sighandler_t handlers[65];

int main(int argc, char **argv);


static struct timespec in_ms(long ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}


/* Whoever holds the lock is not cancelled: threads of the program may be, anywhere else. */
static int enter(void)
{
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_mutex_lock(&lock);
    return cancel;
}


static void leave(int cancel)
{
    pthread_mutex_unlock(&lock);
    pthread_setcancelstate(cancel, NULL);
}


/* ---- requests ---- */

static void unlock(void *mutex) { pthread_mutex_unlock(mutex); }


intptr_t mos__run_there(mos__task_t run, const intptr_t *args, intptr_t failed)
{
    if (mos__here) return run(args);
    request_t r = {.run = run, .args = args}; /* on this stack */
    int cancel = enter();
    if (!closed) {
        *last_request = &r;
        last_request = &r.next;
        pthread_cond_signal(&asked);
    }
    while (!r.done && !closed) pthread_cond_wait(&answered, &lock);
    leave(cancel);
    if (!r.done) return errno = EPERM, failed;
    if (r.error) errno = r.error;
    return r.result;
}


/* With the lock held. True if there was something to do. */
static bool serve_all(void)
{
    bool any = false;
    while (first_request) {
        request_t *r = first_request;
        first_request = r->next;
        if (!first_request) last_request = &first_request;
        pthread_mutex_unlock(&lock);
        mos__here++;
        errno = 0;
        r->result = r->run(r->args);
        r->error = errno;
        mos__here--;
        pthread_mutex_lock(&lock);
        r->done = true;
        any = true;
        pthread_cond_broadcast(&answered);
    }
    return any;
}


void mos__serve_waiting(void)
{
    if (!__atomic_load_n(&first_request, __ATOMIC_RELAXED) && !__atomic_load_n(&exited, __ATOMIC_RELAXED)) return;
    if (exited && !mos__over) { /* a thread of the program called exit() */
        mos__over = true;
        mos__close_all();
    }
    pthread_mutex_lock(&lock);
    serve_all();
    pthread_mutex_unlock(&lock);
}


/* ---- threads ---- */

typedef struct birth {
    void *(*run)(void *);
    void *arg;
    int place;
} birth_t;


static void thread_ended(void *place)
{
    int cancel = enter();
    running[(intptr_t)place] = false;
    alive--;
    pthread_cond_broadcast(&asked);
    leave(cancel);
}


static void *run_thread(void *arg)
{
    birth_t b = *(birth_t *)arg;
    void *result = NULL;
    free(arg);
    my_place = b.place;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL); /* only ever cancelled when it is given up */
    pthread_cleanup_push(thread_ended, (void *)(intptr_t)b.place);
    result = b.run(b.arg);
    pthread_cleanup_pop(1);
    return result;
}


static int make_thread(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    birth_t *b = malloc(sizeof *b);
    int place = 0, status = EAGAIN;
    if (!real) real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_DEFAULT, "pthread_create");
    if (!b || !real) return free(b), EAGAIN;
    int cancel = enter();
    while (place < MAX_THREADS && running[place]) place++;
    if (place < MAX_THREADS && !closed) {
        *b = (birth_t){run, arg, place};
        status = real(thread, attr, run_thread, b); /* it cannot end before the lock is given back */
        if (!status) {
            threads[place] = *thread;
            running[place] = true;
            alive++;
        }
    }
    leave(cancel);
    if (status) free(b);
    return status;
}


/* The program's pthread_create: libc's stays libc's for everyone else. */
__attribute__((visibility("hidden"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    return make_thread(thread, attr, run, arg);
}


static void wait_for(int change)
{
    int cancel = enter();
    waiting += change;
    pthread_cond_broadcast(&asked);
    leave(cancel);
}

static void waited(void *unused) { (void)unused; wait_for(-1); }


__attribute__((visibility("hidden"))) int pthread_join(pthread_t thread, void **result)
{
    static int (*real)(pthread_t, void **);
    int status;
    if (!real) real = (int (*)(pthread_t, void **))dlsym(RTLD_DEFAULT, "pthread_join");
    if (!real) return EINVAL;
    if (my_place < 0) return real(thread, result);
    wait_for(1);
    pthread_cleanup_push(waited, NULL);
    status = real(thread, result);
    pthread_cleanup_pop(1);
    return status;
}


void mtcp_app_join(mctx_t mctx)
{
    int type;
    if (!mctx || mos__here) return;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type); /* at the wait only, which gives the lock back */
    pthread_mutex_lock(&lock);
    joined++;
    pthread_cond_broadcast(&asked);
    pthread_cleanup_push(unlock, &lock);
    while (!released) pthread_cond_wait(&answered, &lock);
    joined--;
    pthread_cleanup_pop(1);
    pthread_setcanceltype(type, NULL);
}


void mos__release_joined(void)
{
    int cancel = enter();
    released = true;
    pthread_cond_broadcast(&answered);
    leave(cancel);
}


/* ---- main() ---- */

typedef struct arguments {
    int argc;
    char **argv;
} arguments_t;

static void *run_main(void *given)
{
    static arguments_t a;
    a = *(arguments_t *)given;
    int status = main(a.argc, a.argv), cancel = enter();
    main_returned = true;
    main_status = status;
    pthread_cond_broadcast(&asked);
    leave(cancel);
    return NULL;
}


/* Is the set-up over? Threads may set up side by side. */
static bool settled(bool quiet)
{
    if (exited) return true;
    if (!joined && !main_returned) return false;
    return joined + waiting >= alive || quiet;
}


static void cancel_all(void)
{
    for (int i = 0; i < MAX_THREADS; i++)
        if (running[i]) pthread_cancel(threads[i]);
}


/* With the lock held: waits until the program's threads have ended. */
static bool wait_ended(long ms)
{
    struct timespec until = in_ms(ms);
    while (alive > 0)
        if (pthread_cond_timedwait(&asked, &lock, &until) == ETIMEDOUT) return alive == 0;
    return true;
}


/* With the lock held. Afterwards none of the program's threads runs; one that cannot be ended keeps the library loaded. */
static void end_threads(long patience_ms)
{
    closed = true;
    pthread_cond_broadcast(&answered);
    if (!wait_ended(patience_ms)) {
        cancel_all();
        if (!wait_ended(500)) {
            Dl_info info;
            if (dladdr((void *)end_threads, &info)) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
        }
    }
    pthread_mutex_unlock(&lock);
    struct timespec moment = {0, 5000000}; /* the last instructions of theirs are in this library */
    nanosleep(&moment, NULL);
    pthread_mutex_lock(&lock);
}


static bool listens(void)
{
    for (int i = 0; i < MAX_LISTENERS; i++)
        if (mos__listeners[i].used) return true;
    return false;
}


static int setup_result(char *error, size_t size)
{
    if (!exited && !main_returned && !joined) {
        snprintf(error, size, "main() neither called mtcp_app_join() nor returned within %d seconds", SETUP_SECONDS);
        return -ETIMEDOUT;
    }
    if (exited && exit_status) {
        snprintf(error, size, "the program ended itself with exit(%d); its output says why", exit_status);
        return -ECANCELED;
    }
    if (main_returned && main_status && !listens()) {
        snprintf(error, size, "main() returned %d and made no monitoring socket; its output says why", main_status);
        return -ECANCELED;
    }
    return 0;
}


int mos__start(int argc, char **argv, char *error, size_t size)
{
    arguments_t a = {argc, argv};
    pthread_attr_t attr;
    pthread_condattr_t clock;
    pthread_t thread;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&asked, &clock);
    pthread_cond_init(&answered, &clock);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int status = make_thread(&thread, &attr, run_main, &a);
    pthread_attr_destroy(&attr);
    if (status) return snprintf(error, size, "no thread for main(): %s", strerror(status)), -status;
    struct timespec deadline = in_ms(SETUP_SECONDS * 1000), quiet = deadline;
    bool silent = false;
    pthread_mutex_lock(&lock);
    while (!settled(silent)) {
        silent = false;
        if (serve_all()) continue;
        if (settled(false)) break;
        bool some_joined = joined || main_returned;
        if (some_joined) quiet = in_ms(QUIET_MS);
        int how = pthread_cond_timedwait(&asked, &lock, some_joined ? &quiet : &deadline);
        if (how == ETIMEDOUT && !some_joined) break;
        silent = how == ETIMEDOUT;
    }
    serve_all();
    status = setup_result(error, size);
    if (status) end_threads(0);
    if (exited) mos__over = true;
    pthread_mutex_unlock(&lock);
    if (!status && exited) mos__close_all();
    if (status) mos__run_at_exit(exit_status);
    fflush(stdout);
    return status;
}


/* ---- exit() ---- */

void mos__exit(int status)
{
    if (mos__here && guarded) { /* in a callback */
        exit_status = status;
        exited = mos__over = true;
        longjmp(way_out, 1);
    }
    int cancel = enter();
    if (!exited) exit_status = status;
    __atomic_store_n(&exited, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&asked);
    leave(cancel);
    if (my_place >= 0) pthread_exit(NULL);
    for (;;) pause(); /* no thread of the program, no callback: there is nowhere to go */
}


static void guard(void (*f)(const smos_call_t *), const smos_call_t *call)
{
    mos__here++;
    guarded = true;
    mos__now = (now_t){.call = call, .packet = call ? call->packet : NULL};
    if (!setjmp(way_out)) {
        f(call);
    } else {
        mos__close_all(); /* exit() was called */
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


/* ---- signals ---- */

mtcp_sighandler_t mos__set_handler(int signum, mtcp_sighandler_t handler)
{
    if (signum < 1 || signum > 64) return errno = EINVAL, SIG_ERR;
    mtcp_sighandler_t before = handlers[signum];
    handlers[signum] = handler;
    return before ? before : SIG_DFL;
}


bool mos__signal(int signum)
{
    mtcp_sighandler_t handler = signum >= 1 && signum <= 64 ? handlers[signum] : NULL;
    if (!handler || handler == SIG_DFL) return false;
    if (handler != SIG_IGN) handler(signum);
    return true;
}


static void stop_signal(const smos_call_t *call)
{
    (void)call;
    if (!mos__signal(SIGINT)) mos__signal(SIGTERM);
}


/* The worker stops, or the capture is over. */
void mos__finish(void)
{
    pthread_mutex_lock(&lock);
    closed = true;
    pthread_cond_broadcast(&answered);
    pthread_mutex_unlock(&lock);
    if (!exited) mos__guard(stop_signal, NULL);
    mos__over = true;
    pthread_mutex_lock(&lock);
    if (exited) {
        cancel_all();
    } else {
        released = true;
        pthread_cond_broadcast(&answered);
    }
    end_threads(ENDING_SECONDS * 1000);
    pthread_mutex_unlock(&lock);
    mos__run_at_exit(exited ? exit_status : main_status);
}
