/* mOS's end-host sockets: not here. And its helpers. */
#include <ctype.h>
#include <string.h>

#include "layer.h"

#define NOT_HERE { return FAIL(ENOSYS); }
#pragma GCC diagnostic ignored "-Wunused-parameter"

int mtcp_bind(mctx_t mctx, int sock, const struct sockaddr *addr, socklen_t addrlen) NOT_HERE
int mtcp_listen(mctx_t mctx, int sock, int backlog) NOT_HERE
int mtcp_accept(mctx_t mctx, int sock, struct sockaddr *addr, socklen_t *addrlen) NOT_HERE
int mtcp_connect(mctx_t mctx, int sock, const struct sockaddr *addr, socklen_t addrlen) NOT_HERE
int mtcp_abort(mctx_t mctx, int sock) NOT_HERE
int mtcp_getsockname(mctx_t mctx, int sock, struct sockaddr *addr, socklen_t *addrlen) NOT_HERE
int mtcp_setsock_nonblock(mctx_t mctx, int sock) NOT_HERE
int mtcp_ioctl(mctx_t mctx, int sock, int request, void *argp) NOT_HERE
int mtcp_pipe(mctx_t mctx, int pipeid[2]) NOT_HERE
int mtcp_init_rss(mctx_t mctx, in_addr_t saddr_base, int num_addr, in_addr_t daddr, in_addr_t dport) NOT_HERE
ssize_t mtcp_recv(mctx_t mctx, int sockid, char *buf, size_t len, int flags) NOT_HERE
ssize_t mtcp_read(mctx_t mctx, int sock, char *buf, size_t len) NOT_HERE
ssize_t mtcp_readv(mctx_t mctx, int sock, const struct iovec *iov, int numIOV) NOT_HERE
ssize_t mtcp_write(mctx_t mctx, int sock, const char *buf, size_t len) NOT_HERE
ssize_t mtcp_writev(mctx_t mctx, int sock, const struct iovec *iov, int numIOV) NOT_HERE
int mtcp_epoll_create(mctx_t mctx, int size) NOT_HERE
int mtcp_epoll_ctl(mctx_t mctx, int epid, int op, int sock, struct mtcp_epoll_event *event) NOT_HERE
int mtcp_epoll_wait(mctx_t mctx, int epid, struct mtcp_epoll_event *events, int maxevents, int timeout) NOT_HERE


/* A program may bring its own of what follows. */
#define WEAK __attribute__((weak))

WEAK char *EventToString(uint32_t event)
{
    static const char *const NAMES[] = {"MOS_EPOLLNONE",   "MOS_EPOLLIN",     "MOS_EPOLLPRI", "MOS_EPOLLOUT", "MOS_EPOLLRDNORM", "MOS_EPOLLRDBAND",
                                        "MOS_EPOLLWRNORM", "MOS_EPOLLWRBAND", "MOS_EPOLLMSG", "MOS_EPOLLERR", "MOS_EPOLLHUP",    "MOS_EPOLLRDHUP"};
    for (unsigned i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (event == 1u << i) return (char *)NAMES[i];
    return (char *)"NULL";
}


WEAK int StrToArgs(char *str, int *argc, char **argv, int max_argc)
{
    int n = 0;
    if (!str || !argc || !argv) return FAIL(EINVAL);
    while (*str) {
        while (isspace((unsigned char)*str)) *str++ = '\0';
        if (!*str) break;
        if (n == max_argc) return *argc = n, FAIL(EINVAL);
        argv[n++] = str;
        while (*str && !isspace((unsigned char)*str)) str++;
    }
    *argc = n;
    return 0;
}


/* Toeplitz over source address, destination address, source port, destination port, with every byte of the key 0x05. */
static int toeplitz(in_addr_t sip, in_addr_t dip, in_port_t sp, in_port_t dp)
{
    uint8_t bytes[12];
    uint32_t hash = 0, window = 0x05050505;
    memcpy(bytes, &sip, 4);
    memcpy(bytes + 4, &dip, 4);
    memcpy(bytes + 8, &sp, 2);
    memcpy(bytes + 10, &dp, 2);
    for (int i = 0; i < 12; i++) {
        for (int bit = 7; bit >= 0; bit--) {
            if (bytes[i] >> bit & 1) hash ^= window;
            window = window << 1 | (0x05u >> bit & 1);
        }
    }
    return (int)(hash & 127);
}


/* Whoever sees one core asks whether it is the one: translators of addresses choose ports by it, whose answers have to come to this worker. */
WEAK int GetRSSCPUCore(in_addr_t sip, in_addr_t dip, in_port_t sp, in_port_t dp, int num_queues, ...)
{
    smos_tuple_t t = {.src = {[10] = 0xff, 0xff}, .dst = {[10] = 0xff, 0xff}, .sport = ntohs(sp), .dport = ntohs(dp), .proto = IPPROTO_TCP, .version = 4};
    if (num_queues > 1) return toeplitz(sip, dip, sp, dp) % num_queues;
    memcpy(t.src + 12, &sip, 4);
    memcpy(t.dst + 12, &dip, 4);
    int owner = ENGINE(owner, &t), me = ENGINE(worker, NULL);
    return owner < 0 || owner == me ? 0 : 1;
}
