/* The program's locks. In mOS a thread may hold one that callbacks take, and ask the engine meanwhile; here its question is answered by the
 * thread that the callback keeps waiting. So whoever waits for a lock in the engine's thread answers questions until it has it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <threads.h>

#include "life.h"

#define OURS __attribute__((visibility("hidden"), weak))
#define REAL(name, ...) \
    static int (*real)(__VA_ARGS__); \
    if (!real) real = (int (*)(__VA_ARGS__))dlsym(RTLD_DEFAULT, name)
#define TURN_US 100


static struct timespec soon(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += TURN_US * 1000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}


/* Between two tries. The thread that has the lock may have ended the program. */
static void turn(void)
{
    if (__atomic_load_n(&mos__life.exited, __ATOMIC_RELAXED)) mos__leave_callback();
    mos__serve_within();
}


void mos__hold(pthread_mutex_t *lock)
{
    REAL("pthread_mutex_lock", pthread_mutex_t *);
    real(lock);
}


OURS int pthread_mutex_lock(pthread_mutex_t *lock)
{
    REAL("pthread_mutex_lock", pthread_mutex_t *);
    if (!mos__here) return real(lock);
    int status = pthread_mutex_trylock(lock);
    while (status == EBUSY || status == ETIMEDOUT) {
        struct timespec until = soon();
        turn();
        status = pthread_mutex_timedlock(lock, &until);
    }
    return status;
}


OURS int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    REAL("pthread_rwlock_rdlock", pthread_rwlock_t *);
    if (!mos__here) return real(lock);
    int status = pthread_rwlock_tryrdlock(lock);
    while (status == EBUSY || status == ETIMEDOUT) {
        struct timespec until = soon();
        turn();
        status = pthread_rwlock_timedrdlock(lock, &until);
    }
    return status;
}


OURS int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    REAL("pthread_rwlock_wrlock", pthread_rwlock_t *);
    if (!mos__here) return real(lock);
    int status = pthread_rwlock_trywrlock(lock);
    while (status == EBUSY || status == ETIMEDOUT) {
        struct timespec until = soon();
        turn();
        status = pthread_rwlock_timedwrlock(lock, &until);
    }
    return status;
}


OURS int pthread_spin_lock(pthread_spinlock_t *lock)
{
    REAL("pthread_spin_lock", pthread_spinlock_t *);
    if (!mos__here) return real(lock);
    while (pthread_spin_trylock(lock)) turn();
    return 0;
}


OURS int sem_wait(sem_t *semaphore)
{
    REAL("sem_wait", sem_t *);
    if (!mos__here) return real(semaphore);
    int status = sem_trywait(semaphore);
    while (status && (errno == EAGAIN || errno == ETIMEDOUT)) {
        struct timespec until = soon();
        turn();
        status = sem_timedwait(semaphore, &until);
    }
    return status;
}


OURS int mtx_lock(mtx_t *lock) { return pthread_mutex_lock((pthread_mutex_t *)lock) ? thrd_error : thrd_success; }
