/* life.h: what the engine's thread and the program's threads share. Under the lock. */
#ifndef SHARDMOS_MOS_LIFE_H
#define SHARDMOS_MOS_LIFE_H

#include <pthread.h>
#include <time.h>

#include "layer.h"

typedef struct life {
    pthread_mutex_t lock;
    pthread_cond_t asked, answered; /* on the monotonic clock */
    bool closed;                    /* nothing is served any more */
    bool released;                  /* mtcp_app_join returns, whatever its context */
    bool have_context;
    int ended; /* contexts that were destroyed */
    bool main_returned, exited;     /* exited: exit() was called; read without the lock, too */
    int main_status, exit_status;
    int alive, joined, waiting; /* threads of the program: all, within mtcp_app_join, within pthread_join */
} life_t;

extern life_t mos__life;

struct timespec mos__in_ms(long ms); /* from now on, on the monotonic clock */
/* Takes a lock of the layer's own, as libc does. */
void mos__hold(pthread_mutex_t *);
/* Takes the lock of mos__life; whoever holds it is not cancelled: threads of the program may be, anywhere else. */
int mos__enter(void);
void mos__leave(int cancel);
void mos__unlock(void *mutex); /* for cleanup: a wait was cancelled */

/* requests.c: with the lock held. True if there was something to do. */
bool mos__serve_all(void);

/* threads.c */
bool mos__is_program_thread(void);
int mos__thread(pthread_t *, const pthread_attr_t *, void *(*run)(void *), void *arg);
/* What main()'s thread, or all of the program's, sleep or wait in is interrupted, as a signal does it. */
void mos__wake(bool everyone);
/* With the lock held. Are all of them over? Waits for it; where `main_ends_all` until main() returned or exit() was called at the latest. */
bool mos__wait_ended(long ms, bool main_ends_all);
/* With the lock held. Afterwards none of them runs; one that cannot be ended keeps the library loaded. */
void mos__end_threads(void);

/* crash.c */
void mos__watch_crashes(bool on);
bool mos__in_program(void); /* this thread runs its code */

/* signals.c: libc's pthread_kill() */
int mos__send(pthread_t, int signum);

#endif
