/* Streams and what is known of a flow: peek, ppeek, socket options, peer names. */
#include <stdio.h>
#include <string.h>

#include "layer.h"


static bool one_side(int side) { return side == MOS_SIDE_CLI || side == MOS_SIDE_SVR; }


/* The flow's socket for a function of callbacks; NULL with errno. */
static entry_t *in_callback(mctx_t mctx, int sock)
{
    if (!mctx) return errno = EACCES, NULL;
    if (!mos__here) return errno = EPERM, NULL;
    entry_t *e = mos__entry(sock);
    if (!e) errno = mos__missing(sock);
    return e;
}


/* ---- reading ---- */

ssize_t mtcp_peek(mctx_t mctx, int sock, int side, char *buf, size_t len)
{
    uint64_t lost;
    entry_t *e = in_callback(mctx, sock);
    if (!e) return -1;
    if (!one_side(side) || (!buf && len) || !e->buffer[side]) return FAIL(EINVAL);
    int64_t got = ENGINE(peek, e->listener->sock, e->flow, side, NULL, 0, &lost); /* steps over what is lost */
    if (!got && lost) return errno = ENODATA, -(ssize_t)lost;
    if (!got) got = ENGINE(peek, e->listener->sock, e->flow, side, buf, len > INT32_MAX ? INT32_MAX : len, NULL);
    return got < 0 ? FAIL((int)-got) : (ssize_t)got;
}


ssize_t mtcp_ppeek(mctx_t mctx, int sock, int side, char *buf, size_t count, uint64_t off)
{
    entry_t *e = in_callback(mctx, sock);
    if (!e) return -1;
    if (!one_side(side) || !buf || !e->buffer[side]) return FAIL(EINVAL);
    int64_t got = ENGINE(peek_at, e->listener->sock, e->flow, side, buf, count > INT32_MAX ? INT32_MAX : count, off);
    return got < 0 ? FAIL((int)-got) : (ssize_t)got;
}


/* ---- options: reading them ---- */

/* optlen counts bytes where it is a multiple of the element's size, else (as mOS's manual has it) elements. It comes back in the same unit. */
static int fragments(const entry_t *e, int side, struct tcp_ring_fragment *out, socklen_t *optlen)
{
    const bool bytes = *optlen % sizeof *out == 0;
    const uint32_t room = bytes ? *optlen / sizeof *out : *optlen;
    smos_range_t range[64];
    if (!room) return FAIL(EINVAL);
    int n = ENGINE(buffered, e->listener->sock, e->flow, side, range, room < 64 ? (int)room : 64);
    if (n < 0) return FAIL(-n);
    for (int i = 0; i < n; i++) out[i] = (struct tcp_ring_fragment){range[i].start, (uint32_t)(range[i].end - range[i].start)};
    if ((uint32_t)n < room) out[n] = (struct tcp_ring_fragment){0, 0}; /* whoever looks for the end finds it */
    *optlen = (socklen_t)(bytes ? (size_t)n * sizeof *out : (size_t)n);
    return 0;
}


static int buffer_info(const entry_t *e, int side, void *optval, socklen_t *optlen)
{
    smos_buffer_info_t info;
    if (*optlen < sizeof(struct tcp_buf_info)) return FAIL(EINVAL);
    int status = ENGINE(buffer_info, e->listener->sock, e->flow, side, &info);
    if (status) return FAIL(-status);
    struct tcp_buf_info *out = optval;
    *out = (struct tcp_buf_info){info.init_seq, (uint32_t)info.read, (uint32_t)info.next, (uint32_t)info.last};
    *optlen = sizeof *out;
    return 0;
}


static int from_info(const entry_t *e, int optname, void *optval, socklen_t *optlen)
{
    smos_flow_info_t info;
    if (*optlen < sizeof(int)) return FAIL(EINVAL);
    int status = ENGINE(flow_info, e->flow, &info);
    if (status) return FAIL(-status);
    if (optname == MOS_TIMESTAMP)
        *(uint32_t *)optval = (uint32_t)(info.end_ns / 1000);
    else /* enum tcpstate and the engine's states have the same numbers; at CONN_END mOS's ends are closed */
        *(int *)optval = e->ending ? TCP_CLOSED : info.side[optname - MOS_TCP_STATE_CLI].state;
    *optlen = sizeof(int);
    return 0;
}


static intptr_t get_option(const intptr_t *a)
{
    int sock = (int)a[0], optname = (int)a[1];
    void *optval = (void *)a[2];
    socklen_t *optlen = (socklen_t *)a[3];
    const entry_t *e = mos__entry(sock);
    if (!e) return FAIL(mos__missing(sock));
    switch (optname) {
    case MOS_FRAGINFO_CLIBUF: case MOS_FRAGINFO_SVRBUF: return fragments(e, optname - MOS_FRAGINFO_CLIBUF, optval, optlen);
    case MOS_INFO_CLIBUF: case MOS_INFO_SVRBUF: return buffer_info(e, optname - MOS_INFO_CLIBUF, optval, optlen);
    case MOS_TCP_STATE_CLI: case MOS_TCP_STATE_SVR: case MOS_TIMESTAMP: return from_info(e, optname, optval, optlen);
    default: return FAIL(ENOPROTOOPT);
    }
}


int mtcp_getsockopt(mctx_t mctx, int sock, int level, int optname, void *optval, socklen_t *optlen)
{
    if (!mctx) return FAIL(EACCES);
    if (level == SOL_SOCKET) return FAIL(ENOSYS);
    if (level != SOL_MONSOCKET) return FAIL(ENOPROTOOPT);
    if (!optval || !optlen) return FAIL(EINVAL);
    return (int)THERE(get_option, -1, sock, optname, (intptr_t)optval, (intptr_t)optlen);
}


/* ---- options: setting them ---- */

int mos__set_buffer(smos_sock_t sock, smos_flow_t flow, int side, uint32_t bytes, uint32_t *have)
{
    int status = ENGINE(set_option, sock, flow, side, SMOS_OPT_HISTORY, bytes);
    if (!status && (!bytes || !*have)) status = ENGINE(set_option, sock, flow, side, SMOS_OPT_BUFFER, bytes ? mos__whole_buffer : 0);
    if (!status) *have = bytes;
    return status;
}


static int set_buffer(listener_t *l, entry_t *e, int side, int bytes)
{
    if (bytes < 0) return FAIL(EINVAL);
    int status = l ? mos__set_buffer(l->sock, 0, side, (uint32_t)bytes, &l->buffer[side])
                   : mos__set_buffer(e->listener->sock, e->flow, side, (uint32_t)bytes, &e->buffer[side]);
    return status ? FAIL(-status) : 0;
}


static int set_overlap(const listener_t *l, const entry_t *e, int side, int policy)
{
    if (policy != MOS_OVERLAP_POLICY_FIRST && policy != MOS_OVERLAP_POLICY_LAST) return FAIL(EINVAL);
    int status = ENGINE(set_option, l ? l->sock : e->listener->sock, l ? 0 : e->flow, side, SMOS_OPT_OVERLAP,
                        policy == MOS_OVERLAP_POLICY_LAST ? SMOS_OVERLAP_LAST : SMOS_OVERLAP_FIRST);
    return status ? FAIL(-status) : 0;
}


static int stop(entry_t *e, int side)
{
    if (side < MOS_SIDE_CLI || side > MOS_SIDE_BOTH) return FAIL(EINVAL);
    int status = ENGINE(stop_socket, e->listener->sock, e->flow, side);
    if (status) return FAIL(-status);
    e->stopped |= side == MOS_SIDE_BOTH ? 3 : (uint8_t)(1 << side);
    return 0;
}


static intptr_t set_option(const intptr_t *a)
{
    int sock = (int)a[0], optname = (int)a[1], value = *(const int *)a[2];
    listener_t *l = mos__listener(sock);
    entry_t *e = l ? NULL : mos__entry(sock);
    if (!l && !e) return FAIL(EBADF);
    if (l && l->raw) return FAIL(EACCES);
    switch (optname) {
    case MOS_CLIBUF: case MOS_SVRBUF: return set_buffer(l, e, optname - MOS_CLIBUF, value);
    case MOS_FRAG_CLIBUF: case MOS_FRAG_SVRBUF: return value ? 0 : set_buffer(l, e, optname - MOS_FRAG_CLIBUF, 0);
    case MOS_CLIOVERLAP: case MOS_SVROVERLAP: return set_overlap(l, e, optname - MOS_CLIOVERLAP, value);
    case MOS_STOP_MON: return e ? stop(e, value) : FAIL(EACCES);
    case MOS_SEQ_REMAP: return 0;
    default: return FAIL(ENOPROTOOPT);
    }
}


int mtcp_setsockopt(mctx_t mctx, int sock, int level, int optname, const void *optval, socklen_t optlen)
{
    if (!mctx) return FAIL(EACCES);
    if (level == SOL_SOCKET) return FAIL(ENOSYS);
    if (level != SOL_MONSOCKET) return FAIL(ENOPROTOOPT);
    if (!optval || optlen < sizeof(int)) return FAIL(EINVAL);
    return (int)THERE(set_option, -1, sock, optname, (intptr_t)optval);
}


int mtcp_cb_stop(mctx_t mctx, int sock, int side)
{
    entry_t *e = in_callback(mctx, sock);
    return e ? stop(e, side) : -1;
}


int mtcp_reset_conn(mctx_t mctx, int sock)
{
    const entry_t *e = in_callback(mctx, sock);
    if (!e) return -1;
    int status = ENGINE(reset, e->flow);
    return status ? FAIL(-status) : 0;
}


/* ---- names ---- */

static void name(const uint8_t *address, uint16_t port, struct sockaddr *out)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    memcpy(&in.sin_addr, address + 12, 4);
    memcpy(out, &in, sizeof in);
}


int mtcp_getpeername(mctx_t mctx, int sock, struct sockaddr *saddr, socklen_t *addrlen, int side)
{
    const entry_t *e = in_callback(mctx, sock);
    if (!e) return errno == EACCES && mctx ? FAIL(ENOTCONN) : -1; /* a listener has no peers */
    if (!saddr || !addrlen || side < MOS_SIDE_CLI || side > MOS_SIDE_BOTH) return FAIL(EINVAL);
    bool room_for_two = *addrlen >= 2 * sizeof *saddr;
    if (*addrlen < sizeof *saddr || (side == MOS_SIDE_BOTH && !room_for_two)) return FAIL(EINVAL);
    if (side == MOS_SIDE_SVR) {
        name(e->tuple.dst, e->tuple.dport, saddr);
        return 0;
    }
    name(e->tuple.src, e->tuple.sport, &saddr[0]);
    if (room_for_two) name(e->tuple.dst, e->tuple.dport, &saddr[1]); /* mOS's own NAT asks for one and reads both */
    return 0;
}


char *mtcp_get_debug_string(mctx_t mctx, int sock)
{
    static char text[160];
    char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
    smos_flow_info_t info;
    const entry_t *e = in_callback(mctx, sock);
    text[0] = '\0';
    if (!e || ENGINE(flow_info, e->flow, &info)) return text;
    inet_ntop(AF_INET, e->tuple.src + 12, from, sizeof from);
    inet_ntop(AF_INET, e->tuple.dst + 12, to, sizeof to);
    snprintf(text, sizeof text, "%s:%u > %s:%u %s %s", from, e->tuple.sport, to, e->tuple.dport, mos__api->state_name(info.side[0].state), mos__api->state_name(info.side[1].state));
    return text;
}
