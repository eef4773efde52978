#include "port/shrink.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define WATCHES 256
#define TAKEN 1 /* no mapping begins there */

typedef struct watch {
    atomic_uintptr_t map; /* 0: free; written last, so that the handler sees all of it or nothing */
    size_t bytes;
    volatile int *shrunk;
} watch_t;

static watch_t watches[WATCHES];
static struct sigaction before;
static uintptr_t page;


static void not_ours(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* raised again as soon as this returns */
}


/* Of mmap() POSIX does not say that a handler may call it; on Linux it is a bare system call. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr / page * page;
    int error = errno;
    for (int i = 0; i < WATCHES; i++) {
        uintptr_t map = atomic_load_explicit(&watches[i].map, memory_order_acquire);
        if (map <= TAKEN || at < map || at - map >= watches[i].bytes) continue;
        size_t rest = watches[i].bytes - (at - map);
        if (mmap((void *)at, rest, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
        *watches[i].shrunk = 1;
        errno = error;
        return;
    }
    not_ours(number, info, context);
}


static void install(void)
{
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGBUS, &action, &before);
}


int smos__shrink_watch(const void *map, size_t bytes, volatile int *shrunk)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    for (int i = 0; i < WATCHES; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong(&watches[i].map, &none, TAKEN)) continue;
        watches[i].bytes = bytes;
        watches[i].shrunk = shrunk;
        atomic_store_explicit(&watches[i].map, (uintptr_t)map, memory_order_release);
        return i;
    }
    return -1;
}


void smos__shrink_unwatch(int watch)
{
    if (watch >= 0) atomic_store(&watches[watch].map, 0);
}
