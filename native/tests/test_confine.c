/* What a confined process can do, and what it cannot. Each check runs in a child, which is confined for good. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shardmos/engine.h"

static int failures_of(int (*body)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) _exit(body());
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static uint64_t own(const char *field)
{
    char line[256];
    unsigned long long value = ~0ull;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, field, strlen(field))) sscanf(line + strlen(field), strstr(field, "Cap") ? ":%llx" : ":%llu", &value);
    if (file) fclose(file);
    return value;
}

#define REFUSED(call) (errno = 0, (call) >= 0 || errno != EPERM ? fprintf(stderr, "line %d: %s: %s\n", __LINE__, #call, strerror(errno)), 1 : 0)
#define WORKS(what) ((what) ? 0 : (fprintf(stderr, "line %d: %s: %s\n", __LINE__, #what, strerror(errno)), 1))

static int is_refused(void)
{
    int pair[2], wrong = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || smos_confine_calls() < 0) return 99;
    char *const none[] = {NULL};
    wrong += REFUSED(execve("/bin/true", none, none));
    wrong += REFUSED(fork());
    wrong += REFUSED(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    wrong += REFUSED(syscall(SYS_clone, CLONE_THREAD | CLONE_NEWNET, 0, 0, 0, 0));
    wrong += REFUSED(socket(AF_INET, SOCK_STREAM, 0));
    wrong += REFUSED(connect(pair[0], NULL, 0));
    wrong += REFUSED(bind(pair[0], NULL, 0));
    wrong += REFUSED((int)ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    wrong += REFUSED((int)syscall(SYS_bpf, 0, NULL, 0));
    wrong += REFUSED((int)syscall(SYS_setresuid, -1, -1, -1));
    wrong += REFUSED(unshare(CLONE_NEWUSER));
    wrong += REFUSED(kill(getppid(), 0));
    wrong += REFUSED((int)syscall(SYS_prlimit64, getppid(), RLIMIT_NOFILE, NULL, NULL));
    wrong += REFUSED(open("/dev/null", O_WRONLY));
    wrong += REFUSED(open("/dev/null", O_RDONLY | O_TRUNC));
    wrong += REFUSED(open("/tmp", O_TMPFILE | O_RDWR, 0600));
    wrong += REFUSED(unlink("/nowhere"));
    errno = 0;
    wrong += WORKS(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
    wrong += WORKS(syscall(437, AT_FDCWD, "/", NULL, 0) < 0 && errno == ENOSYS);
    wrong += WORKS(syscall(425, 8, NULL) < 0 && errno == ENOSYS);
    wrong += WORKS(syscall(1000) < 0 && errno == ENOSYS);
    return wrong;
}

static void *stay(void *seen)
{
    return *(int *)seen = 1, NULL;
}

static int stays(void)
{
    int pair[2], wrong = 0, seen = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || smos_confine_calls() < 0) return 99;
    pthread_t thread;
    wrong += WORKS(!pthread_create(&thread, NULL, stay, &seen) && !pthread_join(thread, NULL) && seen);
    wrong += WORKS(send(pair[0], "x", 1, 0) == 1);
    wrong += WORKS(open("/proc/self/status", O_RDONLY | O_CLOEXEC) >= 0);
    wrong += WORKS(memfd_create("confined", MFD_CLOEXEC) >= 0);
    wrong += WORKS(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    wrong += WORKS(dlopen("libm.so.6", RTLD_NOW) != NULL);
    wrong += WORKS(kill(getpid(), 0) == 0);
    struct rlimit limit;
    wrong += WORKS(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    wrong += WORKS(own("NoNewPrivs") == 1 && own("Seccomp") == 2);
    return wrong;
}

static int filtered;

static void *wait_and_try(void *barrier)
{
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    filtered = socket(AF_INET, SOCK_DGRAM, 0) < 0 && errno == EPERM;
    return NULL;
}

static int reaches_threads(void)
{
    pthread_barrier_t barrier;
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, wait_and_try, &barrier);
    pthread_barrier_wait(&barrier);
    int status = smos_confine_calls();
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    return !(status == 0 && filtered);
}

static int drops(void)
{
    int privileged = own("CapEff") >> 8 & 1, wrong = 0; /* CAP_SETPCAP */
    uint64_t before = own("CapPrm"), setuid = 1u << 7;
    wrong += WORKS(smos_confine_capabilities(setuid) == 0);
    wrong += WORKS(own("CapEff") == (before & setuid) && own("CapPrm") == (before & setuid));
    wrong += WORKS(smos_confine_capabilities(0) == 0);
    wrong += WORKS(own("CapEff") == 0 && own("CapPrm") == 0 && own("CapInh") == 0 && own("CapAmb") == 0 && own("NoNewPrivs") == 1);
    if (privileged) wrong += WORKS(own("CapBnd") == 0);
    return wrong;
}

static int filters(void)
{
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0; /* where the kernel has none there is nothing to show */
}

static void test_what_a_worker_has_no_use_for_is_refused(void)
{
    if (filters()) CHECK_EQ(failures_of(is_refused), 0);
}

static void test_what_modules_need_stays(void)
{
    if (filters()) CHECK_EQ(failures_of(stays), 0);
}

static void test_threads_that_exist_are_filtered_too(void)
{
    if (filters()) CHECK_EQ(failures_of(reaches_threads), 0);
}

static void test_capabilities_go_from_every_set(void)
{
    CHECK_EQ(failures_of(drops), 0);
}

int main(void)
{
    RUN(test_what_a_worker_has_no_use_for_is_refused);
    RUN(test_what_modules_need_stays);
    RUN(test_threads_that_exist_are_filtered_too);
    RUN(test_capabilities_go_from_every_set);
    return 0;
}
