/* mtcp_api.h: mOS's contexts, sockets and options, for programs that were written for mOS (docs/mos.md).
 *
 * Names, types and values are mOS's, so that its programs compile unmodified. What follows functions as "0, -1" returns -1 with errno.
 * The calls of end-host sockets are here for the linker's sake and return -1 with ENOSYS (NULL where a pointer is returned).
 */
#ifndef __MTCP_API_H_
#define __MTCP_API_H_

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef UNUSED
#define UNUSED(x) (void)x
#endif

#ifndef INPORT_ANY
#define INPORT_ANY (uint16_t)0
#endif

typedef unsigned char byte;

/* One per core. Each worker is one core to its program: number 0 of 1. */
struct mtcp_context {
    int cpu;
};
typedef struct mtcp_context *mctx_t;

typedef void (*mtcp_sighandler_t)(int);

enum socket_type {
    MOS_SOCK_UNUSED,
    MOS_SOCK_STREAM_LISTEN,         /* end host */
    MOS_SOCK_PROXY_LISTEN,          /* never was */
    MOS_SOCK_MONITOR_STREAM,        /* watches flows: a template for the sockets of each */
    MOS_SOCK_STREAM,                /* end host */
    MOS_SOCK_PROXY,                 /* never was */
    MOS_SOCK_MONITOR_STREAM_ACTIVE, /* the socket of one flow, as given to callbacks */
    MOS_SOCK_MONITOR_RAW,           /* watches IPv4 packets */
    MOS_SOCK_EPOLL,
    MOS_SOCK_PIPE
};

#define APP_NAME_LEN 40
#define MOS_APP 20
#define MOS_APP_ARGC 20

/* What mtcp_init() read from the configuration file, and what is so in a worker. */
struct mtcp_conf {
    int num_cores;       /* 1 */
    int max_concurrency; /* connections watched at a time */
    uint64_t cpu_mask;   /* 1 */
    int max_num_buffers;
    int rcvbuf_size; /* bytes of each stream that stay readable */
    int sndbuf_size;
    int tcp_timewait; /* seconds */
    int tcp_timeout;  /* seconds; -1: never */
    uint64_t app_cpu_mask[MOS_APP];
    char *app_argv[MOS_APP][MOS_APP_ARGC];
    int app_argc[MOS_APP];
    int num_app;
};

struct app_context {
    mctx_t mctx;
    int socket_id;
    struct conn_filter *cf;
    int ep_id;
};

struct app_ops {
    void (*app_init)(int argc, char **argv);
    void (*thread_init)(mctx_t mctx, void **app_ctx);
    void (*run)(mctx_t mctx, void **app_ctx);
    int enable;
};

/* ---- life ---- */

/* Reads the file (blocks "mos {...}" and "application {...}"). 0; -1 when it cannot be read (ENOENT ...). */
int mtcp_init(const char *config_file);
int mtcp_destroy(void);
/* 0, -1 (EINVAL for NULL). setconf: max_concurrency, rcvbuf_size and the times count, before mtcp_create_context(). */
int mtcp_getconf(struct mtcp_conf *conf);
int mtcp_setconf(const struct mtcp_conf *conf);
/* The one context, for core 0; NULL for every other core, and while there is one already. */
mctx_t mtcp_create_context(int cpu);
int mtcp_destroy_context(mctx_t mctx);
/* Workers are pinned already. 0 for core 0, else -1 (EINVAL). */
int mtcp_core_affinitize(int cpu);
/* Handlers of SIGINT and SIGTERM are called when the worker stops or the capture is over. */
mtcp_sighandler_t mtcp_register_signal(int signum, mtcp_sighandler_t handler);
/* Connections that are watched now. */
uint32_t mtcp_get_connection_cnt(mctx_t mctx);

/* ---- monitoring sockets ---- */

/* MOS_SOCK_MONITOR_STREAM or MOS_SOCK_MONITOR_RAW: its number, at least 0. -1: EAFNOSUPPORT, EINVAL, ENFILE; ENOSYS for end-host types. */
int mtcp_socket(mctx_t mctx, int domain, int type, int protocol);
/* 0, -1 (EBADF). Of one flow's socket: stops watching that flow. */
int mtcp_close(mctx_t mctx, int sock);
/* level SOL_MONSOCKET. 0, -1: EBADF, EINVAL (also a short optlen), ENOPROTOOPT, EACCES where the option is one of flows' sockets. */
int mtcp_getsockopt(mctx_t mctx, int sock, int level, int optname, void *optval, socklen_t *optlen);
int mtcp_setsockopt(mctx_t mctx, int sock, int level, int optname, const void *optval, socklen_t optlen);

/* ---- end-host sockets: ENOSYS ---- */

int mtcp_bind(mctx_t mctx, int sock, const struct sockaddr *addr, socklen_t addrlen);
int mtcp_listen(mctx_t mctx, int sock, int backlog);
int mtcp_accept(mctx_t mctx, int sock, struct sockaddr *addr, socklen_t *addrlen);
int mtcp_connect(mctx_t mctx, int sock, const struct sockaddr *addr, socklen_t addrlen);
int mtcp_abort(mctx_t mctx, int sock);
int mtcp_getsockname(mctx_t mctx, int sock, struct sockaddr *addr, socklen_t *addrlen);
int mtcp_setsock_nonblock(mctx_t mctx, int sock);
int mtcp_ioctl(mctx_t mctx, int sock, int request, void *argp);
int mtcp_pipe(mctx_t mctx, int pipeid[2]);
int mtcp_init_rss(mctx_t mctx, in_addr_t saddr_base, int num_addr, in_addr_t daddr, in_addr_t dport);
ssize_t mtcp_recv(mctx_t mctx, int sockid, char *buf, size_t len, int flags);
ssize_t mtcp_read(mctx_t mctx, int sock, char *buf, size_t len);
ssize_t mtcp_readv(mctx_t mctx, int sock, const struct iovec *iov, int numIOV);
ssize_t mtcp_write(mctx_t mctx, int sock, const char *buf, size_t len);
ssize_t mtcp_writev(mctx_t mctx, int sock, const struct iovec *iov, int numIOV);

#ifdef __cplusplus
}
#endif
#endif
