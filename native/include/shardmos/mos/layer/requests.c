/* What threads of the program ask of the engine, and the engine's thread answers. */
#include "life.h"

typedef struct request {
    struct request *next;
    mos__task_t run;
    const intptr_t *args;
    intptr_t result;
    int error;
    bool done;
} request_t;

life_t mos__life = {.lock = PTHREAD_MUTEX_INITIALIZER};
static request_t *first_request, **last_request = &first_request;


struct timespec mos__in_ms(long ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}


int mos__enter(void)
{
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    mos__hold(&mos__life.lock);
    return cancel;
}


void mos__leave(int cancel)
{
    pthread_mutex_unlock(&mos__life.lock);
    pthread_setcancelstate(cancel, NULL);
}


void mos__unlock(void *mutex) { pthread_mutex_unlock(mutex); }


intptr_t mos__run_there(mos__task_t run, const intptr_t *args, intptr_t failed)
{
    life_t *life = &mos__life;
    if (mos__here) return run(args);
    request_t r = {.run = run, .args = args}; /* on this stack */
    int cancel = mos__enter();
    if (!life->closed) {
        *last_request = &r;
        last_request = &r.next;
        pthread_cond_signal(&life->asked);
    }
    while (!r.done && !life->closed) pthread_cond_wait(&life->answered, &life->lock);
    mos__leave(cancel);
    if (!r.done) return errno = EPERM, failed;
    if (r.error) errno = r.error;
    return r.result;
}


bool mos__serve_all(void)
{
    life_t *life = &mos__life;
    bool any = false;
    while (first_request) {
        request_t *r = first_request;
        first_request = r->next;
        if (!first_request) last_request = &first_request;
        pthread_mutex_unlock(&life->lock);
        mos__here++;
        errno = 0;
        r->result = r->run(r->args);
        r->error = errno;
        mos__here--;
        mos__hold(&life->lock);
        r->done = true;
        any = true;
        pthread_cond_broadcast(&life->answered);
    }
    return any;
}


void mos__serve_within(void)
{
    int error = errno;
    if (!__atomic_load_n(&first_request, __ATOMIC_RELAXED)) return;
    mos__hold(&mos__life.lock);
    mos__serve_all();
    pthread_mutex_unlock(&mos__life.lock);
    errno = error;
}


void mos__serve_waiting(void)
{
    if (__atomic_load_n(&mos__life.exited, __ATOMIC_RELAXED) && !mos__over) { /* a thread of the program called exit() */
        mos__over = true;
        mos__close_all();
        mos__say_status();
    }
    mos__serve_within();
}
