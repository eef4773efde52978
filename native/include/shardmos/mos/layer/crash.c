/* A program that crashes is named before its worker goes. Only where nobody else listens for that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "life.h"

typedef int (*sigaction_t)(int, const struct sigaction *, struct sigaction *);

static const struct { int signum; const char *what; } FATAL[] = {
    {SIGSEGV, ": crashed (SIGSEGV)\n"}, {SIGFPE, ": crashed (SIGFPE)\n"}, {SIGILL, ": crashed (SIGILL)\n"}, /* SIGBUS is the engine's */
};
#define COUNT (sizeof FATAL / sizeof *FATAL)

static sigaction_t real(void)
{
    static sigaction_t found;
    if (!found) found = (sigaction_t)dlsym(RTLD_DEFAULT, "sigaction");
    return found;
}


static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}


static void crashed(int signum)
{
    struct sigaction end = {.sa_handler = SIG_DFL};
    real()(signum, &end, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        if (FATAL[i].signum != signum || !mos__in_program()) continue;
        say(mos__name);
        say(FATAL[i].what);
    }
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signum);
}


void mos__watch_crashes(bool on)
{
    struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_NODEFER}, none = {.sa_handler = SIG_DFL}, now;
    for (unsigned i = 0; i < COUNT && real(); i++)
        if (!real()(FATAL[i].signum, NULL, &now) && now.sa_handler == (on ? none : action).sa_handler) real()(FATAL[i].signum, on ? &action : &none, NULL);
}
