/* Signals are the program's own: what it sets up changes nothing in the process, and what it sends itself, it gets. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "life.h"

#define OURS __attribute__((visibility("hidden"), weak))
#define SIGNALS 65
#define SECOND 1000000000ll

static struct sigaction actions[SIGNALS]; /* all zeros: SIG_DFL */

/* A thread in sigwait(). */
typedef struct waiter {
    struct waiter *next;
    const sigset_t *set;
    int got;
} waiter_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static waiter_t *waiters;


/* ---- setting up ---- */

static bool known(int signum) { return signum >= 1 && signum < SIGNALS; }


static mtcp_sighandler_t set_handler(int signum, mtcp_sighandler_t handler)
{
    if (!known(signum)) return errno = EINVAL, SIG_ERR;
    mtcp_sighandler_t before = actions[signum].sa_handler;
    actions[signum] = (struct sigaction){.sa_handler = handler};
    return before;
}


OURS mtcp_sighandler_t signal(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }

/* What signal() is called where a program asks for an older standard, and its other names. */
OURS mtcp_sighandler_t __sysv_signal(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }
OURS mtcp_sighandler_t sysv_signal(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }
OURS mtcp_sighandler_t bsd_signal(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }
OURS mtcp_sighandler_t ssignal(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }
OURS mtcp_sighandler_t sigset(int signum, mtcp_sighandler_t handler) { return set_handler(signum, handler); }

mtcp_sighandler_t mtcp_register_signal(int signum, mtcp_sighandler_t handler)
{
    return set_handler(signum, handler) == SIG_ERR ? (mtcp_sighandler_t)-1 : handler;
}


OURS int sigaction(int signum, const struct sigaction *new, struct sigaction *old)
{
    if (!known(signum)) return FAIL(EINVAL);
    struct sigaction before = actions[signum];
    if (new) actions[signum] = *new;
    if (old) *old = before;
    return 0;
}


/* ---- sending ---- */

/* Does a thread wait for it? */
static bool hand_over(int signum)
{
    bool given = false;
    mos__hold(&lock);
    for (waiter_t *w = waiters; w && !given; w = w->next) {
        if (w->got || sigismember(w->set, signum) != 1) continue;
        w->got = signum;
        given = true;
    }
    if (given) pthread_cond_broadcast(&came);
    pthread_mutex_unlock(&lock);
    return given;
}


bool mos__signal(int signum)
{
    if (!known(signum)) return false;
    if (hand_over(signum)) return true;
    struct sigaction a = actions[signum];
    if (a.sa_handler == SIG_DFL) return false;
    if (a.sa_handler == SIG_IGN) return true;
    if (a.sa_flags & (int)SA_RESETHAND) actions[signum] = (struct sigaction){0};
    siginfo_t info = {.si_signo = signum, .si_code = SI_USER};
    if (a.sa_flags & SA_SIGINFO) a.sa_sigaction(signum, &info, NULL);
    else a.sa_handler(signum);
    return true;
}


static bool ends_by_default(int signum)
{
    return signum != SIGCHLD && signum != SIGURG && signum != SIGWINCH && signum != SIGCONT && signum != SIGSTOP && signum != SIGTSTP &&
           signum != SIGTTIN && signum != SIGTTOU;
}


OURS int raise(int signum)
{
    if (!signum) return 0;
    if (!known(signum)) return FAIL(EINVAL);
    if (!mos__signal(signum) && ends_by_default(signum)) mos__exit(128 + signum);
    mos__wake(false);
    return 0;
}


OURS int kill(pid_t pid, int signum)
{
    if (pid == getpid() || !pid) return raise(signum);
    return (int)syscall(SYS_kill, pid, signum);
}


OURS int sigqueue(pid_t pid, int signum, const union sigval value)
{
    static int (*real)(pid_t, int, union sigval);
    if (!real) real = (int (*)(pid_t, int, union sigval))dlsym(RTLD_DEFAULT, "sigqueue");
    return pid == getpid() ? raise(signum) : real ? real(pid, signum, value) : FAIL(ENOSYS);
}


int mos__send(pthread_t thread, int signum)
{
    static int (*real)(pthread_t, int);
    if (!real) real = (int (*)(pthread_t, int))dlsym(RTLD_DEFAULT, "pthread_kill");
    return real ? real(thread, signum) : ENOSYS;
}


OURS int pthread_kill(pthread_t thread, int signum)
{
    if (!signum) return mos__send(thread, 0);
    if (raise(signum)) return errno;
    mos__wake(true); /* it may be any of them that sleeps */
    return 0;
}


/* ---- waiting ---- */

static void leave(void *place)
{
    waiter_t **at = &waiters;
    while (*at != place) at = &(*at)->next;
    *at = (*at)->next;
    pthread_mutex_unlock(&lock);
}


/* The signal that came; 0 after the time limit. */
static int await(const sigset_t *set, const struct timespec *limit)
{
    waiter_t w = {.set = set};
    struct timespec until;
    int type, status = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    if (limit) {
        until.tv_sec += limit->tv_sec + (until.tv_nsec + limit->tv_nsec) / 1000000000;
        until.tv_nsec = (until.tv_nsec + limit->tv_nsec) % 1000000000;
    }
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
    mos__hold(&lock);
    w.next = waiters;
    waiters = &w;
    pthread_cleanup_push(leave, &w);
    while (!w.got && status != ETIMEDOUT) status = limit ? pthread_cond_timedwait(&came, &lock, &until) : pthread_cond_wait(&came, &lock);
    pthread_cleanup_pop(1);
    pthread_setcanceltype(type, NULL);
    return w.got;
}


OURS int sigwait(const sigset_t *restrict set, int *restrict signum)
{
    *signum = await(set, NULL);
    return 0;
}


OURS int sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info, const struct timespec *restrict limit)
{
    int signum = await(set, limit);
    if (!signum) return FAIL(EAGAIN);
    if (info) *info = (siginfo_t){.si_signo = signum, .si_code = SI_USER};
    return signum;
}


OURS int sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info) { return sigtimedwait(set, info, NULL); }


OURS int sigsuspend(const sigset_t *set)
{
    (void)set;
    return pause(); /* which handlers run where does not depend on it */
}


/* Nobody shuts himself off from being woken. */
static int set_mask(int how, const sigset_t *set, sigset_t *old)
{
    static int (*real)(int, const sigset_t *, sigset_t *);
    sigset_t most;
    if (!real) real = (int (*)(int, const sigset_t *, sigset_t *))dlsym(RTLD_DEFAULT, "pthread_sigmask");
    if (set) most = *set;
    if (set && how != SIG_UNBLOCK) sigdelset(&most, SIGURG);
    if (mos__here) return old ? sigemptyset(old), 0 : 0; /* the engine's thread has its own */
    return real ? real(how, set ? &most : NULL, old) : ENOSYS;
}

OURS int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) { return set_mask(how, set, old); }

OURS int sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
    int status = set_mask(how, set, old);
    return status ? FAIL(status) : 0;
}


/* ---- SIGALRM, on packet time, as mtcp_settimer() ---- */

static struct {
    uint64_t timer;
    int64_t due, period; /* nanoseconds; due 0: none */
} bell;


static void ring(const smos_call_t *call)
{
    (void)call;
    bell.due = bell.period ? ENGINE(now_ns) + bell.period : 0; /* alarms that were missed are one */
    if (!mos__signal(SIGALRM)) mos__exit(128 + SIGALRM);
    mos__wake(false);
}

static void on_bell(void *self, const smos_call_t *call) { (void)self; mos__guard(ring, call); }


static intptr_t set_bell(const intptr_t *a)
{
    int64_t now = ENGINE(now_ns), *left = (int64_t *)a[2];
    *left = bell.due > now ? bell.due - now : 0;
    if (bell.due) ENGINE(cancel_timer, bell.timer);
    bell.due = a[0] ? now + (int64_t)a[0] : 0;
    bell.period = (int64_t)a[1];
    int status = a[0] ? ENGINE(set_timer, 0, (int64_t)a[0], (int64_t)a[1], on_bell, NULL, &bell.timer) : 0;
    if (!status) return 0;
    bell.due = 0;
    return FAIL(-status);
}


/* Nanoseconds that were left of the one before; -1 with errno. */
static int64_t set_alarm(int64_t delay, int64_t period)
{
    int64_t left = 0;
    return THERE(set_bell, -1, (intptr_t)delay, (intptr_t)period, (intptr_t)&left) ? -1 : left;
}


OURS unsigned alarm(unsigned seconds)
{
    int64_t left = set_alarm(seconds * SECOND, 0);
    return left < 0 ? 0 : (unsigned)((left + SECOND - 1) / SECOND);
}


OURS useconds_t ualarm(useconds_t first, useconds_t interval)
{
    int64_t left = set_alarm(first * 1000ll, interval * 1000ll);
    return left < 0 ? 0 : (useconds_t)(left / 1000);
}


static int64_t in_ns(struct timeval t) { return t.tv_sec * SECOND + t.tv_usec * 1000; }


OURS int setitimer(__itimer_which_t which, const struct itimerval *new, struct itimerval *old)
{
    if (!new) return FAIL(EFAULT);
    if (new->it_value.tv_sec < 0 || new->it_value.tv_sec > INT32_MAX || new->it_value.tv_usec < 0 || new->it_value.tv_usec > 999999 ||
        new->it_interval.tv_sec < 0 || new->it_interval.tv_sec > INT32_MAX || new->it_interval.tv_usec < 0 || new->it_interval.tv_usec > 999999) return FAIL(EINVAL);
    if (which != ITIMER_REAL) return mos__warn("setitimer() has ITIMER_REAL only here"), FAIL(ENOSYS);
    int64_t period = bell.period, left = set_alarm(in_ns(new->it_value), in_ns(new->it_interval));
    if (left < 0) return -1;
    if (old) *old = (struct itimerval){{period / SECOND, period % SECOND / 1000}, {left / SECOND, left % SECOND / 1000}};
    return 0;
}


OURS int timer_create(clockid_t clock, struct sigevent *restrict event, timer_t *restrict timer)
{
    (void)clock, (void)event, (void)timer;
    mos__warn("timer_create() is not here; use mtcp_settimer()");
    return FAIL(ENOSYS);
}
