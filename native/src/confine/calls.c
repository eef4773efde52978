/* A seccomp filter for a process that parses hostile bytes and loads modules: a list of the system calls that it has no use for, each answered with EPERM.
 *
 * A list of what is denied, not of what is allowed: modules bring libraries whose needs nobody can list. What stays: memory, executable mappings, threads, clocks,
 * descriptors that are open, opening for reading. What goes: programs, processes, sockets, whatever changes files, other processes, rights, or the kernel.
 *
 * Calls newer than this list get ENOSYS, which is what an older kernel says; so do two that hide their arguments behind a pointer (clone3, openat2): the C library
 * then takes the older call, which can be judged. Calls that this filter lets pass whatever their arguments cost nothing: the kernel remembers them. */
#include <errno.h>
#include <asm/sockios.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shardmos/engine.h"

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

/* Numbers that all architectures share, for headers older than the calls. */
enum {
    CALL_PIDFD_SEND_SIGNAL = 424, CALL_IO_URING_SETUP, CALL_IO_URING_ENTER, CALL_IO_URING_REGISTER, CALL_OPEN_TREE, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT,
    CALL_FSPICK, CALL_CLONE3 = 435, CALL_OPENAT2 = 437, CALL_PIDFD_GETFD, CALL_PROCESS_MADVISE = 440, CALL_MOUNT_SETATTR = 442, CALL_QUOTACTL_FD, CALL_PROCESS_MRELEASE = 448,
    CALL_FCHMODAT2 = 452, CALL_SETXATTRAT = 463, CALL_REMOVEXATTRAT = 466, CALL_OPEN_TREE_ATTR, CALL_FILE_SETATTR = 469, CALL_NEWEST = 469,
};

static const int denied[] = {
    /* programs and processes; clone() is judged by its flags */
    SYS_execve, SYS_execveat,
#ifdef SYS_fork
    SYS_fork, SYS_vfork,
#endif
    /* sockets: those that are open can be used, no other can be had */
    SYS_socket, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4,
    /* other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_migrate_pages, SYS_move_pages, SYS_tkill, CALL_PIDFD_SEND_SIGNAL, CALL_PIDFD_GETFD,
    CALL_PROCESS_MADVISE, CALL_PROCESS_MRELEASE,
    /* by number, or by a name that is no file's */
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink,
    /* rights */
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups, SYS_capset, SYS_personality,
    /* namespaces, mounts */
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, CALL_OPEN_TREE, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT, CALL_FSPICK,
    CALL_MOUNT_SETATTR, CALL_OPEN_TREE_ATTR,
    /* the kernel: where its faults have been, and what is its administrator's */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_sethostname, SYS_setdomainname, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_acct, SYS_quotactl,
    CALL_QUOTACTL_FD, SYS_syslog, SYS_vhangup, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_fanotify_init, SYS_name_to_handle_at, SYS_open_by_handle_at,
#ifdef __x86_64__
    SYS_ioperm, SYS_iopl, SYS_modify_ldt, SYS_uselib,
#endif
    /* files: to be read, not changed */
    SYS_truncate, SYS_unlinkat, SYS_mkdirat, SYS_mknodat, SYS_linkat, SYS_symlinkat, SYS_renameat2, SYS_fchmodat, SYS_fchownat, SYS_utimensat, SYS_setxattr, SYS_lsetxattr,
    SYS_removexattr, SYS_lremovexattr, SYS_fchmod, SYS_fchown, SYS_fsetxattr, SYS_fremovexattr, CALL_FCHMODAT2, CALL_SETXATTRAT, CALL_REMOVEXATTRAT, CALL_FILE_SETATTR,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_unlink
    SYS_creat, SYS_unlink, SYS_mkdir, SYS_rmdir, SYS_mknod, SYS_link, SYS_symlink, SYS_rename, SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat,
#endif
};

/* As on a kernel that has not got them. io_uring can do most of what is denied, in a thread that no filter sees. */
static const int absent[] = {CALL_CLONE3, CALL_OPENAT2, CALL_IO_URING_SETUP, CALL_IO_URING_ENTER, CALL_IO_URING_REGISTER};

/* Their first argument is a process: this one, or 0 for it. */
static const int own_process[] = {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_prlimit64};

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ARGUMENT(n) LOAD(args[n]) /* its lower half: both architectures are little-endian, and none of these arguments is wider than 32 bits */
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, what)
#define REFUSE(error) ANSWER(SECCOMP_RET_ERRNO | (error))
#define UNLESS(condition, value, skip) BPF_JUMP(BPF_JMP | (condition) | BPF_K, (uint32_t)(value), 0, skip) /* where it does not hold, `skip` statements are left out */
#define WHERE(condition, value, skip) BPF_JUMP(BPF_JMP | (condition) | BPF_K, (uint32_t)(value), skip, 0)

#define OWNER_EX 15 /* F_SETOWN_EX, which wants _GNU_SOURCE */
#define WRITING (O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND)
#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

typedef struct program {
    struct sock_filter code[512];
    unsigned short length;
} program_t;

static void add(program_t *p, const struct sock_filter *statements, int count)
{
    for (int i = 0; i < count && p->length < COUNT(p->code); i++) p->code[p->length++] = statements[i];
}

#define ADD(p, ...) add(p, (const struct sock_filter[]){__VA_ARGS__}, COUNT(((const struct sock_filter[]){__VA_ARGS__})))

/* The number is in the accumulator before and after each part, but where the part answers. */
static void build(program_t *p, uint32_t self)
{
    ADD(p, LOAD(arch), WHERE(BPF_JEQ, ARCHITECTURE, 1), ANSWER(SECCOMP_RET_KILL_PROCESS), LOAD(nr));
    ADD(p, UNLESS(BPF_JGT, CALL_NEWEST, 1), REFUSE(ENOSYS)); /* x32 calls too, whose numbers have bit 30 */
    for (int i = 0; i < COUNT(absent); i++) ADD(p, UNLESS(BPF_JEQ, absent[i], 1), REFUSE(ENOSYS));
    for (int i = 0; i < COUNT(denied); i++) ADD(p, UNLESS(BPF_JEQ, denied[i], 1), REFUSE(EPERM));
    for (int i = 0; i < COUNT(own_process); i++)
        ADD(p, UNLESS(BPF_JEQ, own_process[i], 5), ARGUMENT(0), WHERE(BPF_JEQ, self, 2), WHERE(BPF_JEQ, 0, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
    ADD(p, UNLESS(BPF_JEQ, SYS_clone, 5), ARGUMENT(0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, CLONE_THREAD | NAMESPACES), WHERE(BPF_JEQ, CLONE_THREAD, 1), REFUSE(EPERM),
        ANSWER(SECCOMP_RET_ALLOW));
    ADD(p, UNLESS(BPF_JEQ, SYS_openat, 4), ARGUMENT(2), UNLESS(BPF_JSET, WRITING, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
#ifdef SYS_open
    ADD(p, UNLESS(BPF_JEQ, SYS_open, 4), ARGUMENT(1), UNLESS(BPF_JSET, WRITING, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
#endif
    /* typing into the terminal of whoever started us; any signal, to any process, when a descriptor has something to read */
    ADD(p, UNLESS(BPF_JEQ, SYS_ioctl, 7), ARGUMENT(1), WHERE(BPF_JEQ, TIOCSTI, 3), WHERE(BPF_JEQ, FIOSETOWN, 2), WHERE(BPF_JEQ, SIOCSPGRP, 1),
        UNLESS(BPF_JEQ, TIOCLINUX, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
    ADD(p, UNLESS(BPF_JEQ, SYS_fcntl, 5), ARGUMENT(1), WHERE(BPF_JEQ, F_SETOWN, 1), UNLESS(BPF_JEQ, OWNER_EX, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
    ADD(p, ANSWER(SECCOMP_RET_ALLOW));
}

int smos_confine_calls(void)
{
    program_t p = {.length = 0};
    build(&p, (uint32_t)getpid());
    struct sock_fprog program = {p.length, p.code};
    if (p.length == COUNT(p.code)) return -E2BIG; /* cut short: a fault of this file */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    /* Without SPEC_ALLOW kernels before 5.16 slow the whole process down. All threads at once: ZeroMQ's exist already. */
    long status = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
    if (status < 0 && errno == EINVAL) status = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (status > 0) return -EBUSY; /* a thread has another filter */
    return status < 0 ? -errno : 0;
}

#else

int smos_confine_calls(void)
{
    return -ENOTSUP;
}

#endif
