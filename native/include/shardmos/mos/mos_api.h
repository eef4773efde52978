/* mos_api.h: mOS's monitoring API, for programs that were written for mOS (docs/mos.md).
 *
 * Names, types and values are mOS's, so that its programs compile unmodified; behaviour is as mOS documents it. Functions return -1 with
 * errno on failure unless they say otherwise. Sides: at MOS_HK_SND `side` is the sender, at MOS_HK_RCV the receiver; of buffers and NEW_DATA
 * it is the receiving end, so MOS_SIDE_SVR is what the client sent.
 */
#ifndef __MOS_API_H_
#define __MOS_API_H_

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#include "mos_tcphdr.h"
#include "mtcp_epoll.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef __MTCP_MANAGER
#define __MTCP_MANAGER
typedef struct mtcp_manager *mtcp_manager_t;
#endif
#ifndef __SOCKET_MAP
#define __SOCKET_MAP
typedef struct socket_map *socket_map_t;
#endif

enum mtcp_hook_point {
    MOS_NULL = 1 << 29,        /* at no endpoint: NEW_DATA, ERROR, ORPHAN, packets of raw sockets */
    MOS_HK_RCV = 1 << 30,      /* after the receiver's end was updated */
    MOS_HK_SND = (int)(1u << 31) /* after the sender's end was updated */
};

enum mos_event_type {
    MOS_NULL_EVENT = 0,
    MOS_ON_PKT_IN = 1 << 0,
    MOS_ON_PKT_OUT = 1 << 1,    /* never raised */
    MOS_ON_CONN_START = 1 << 2, /* the first SYN; a retransmitted one is REXMIT */
    MOS_ON_CONN_SETUP = 1 << 3, /* never raised */
    MOS_ON_CONN_NEW_DATA = 1 << 4, /* once per burst and side, without a packet */
    MOS_ON_ERROR = 1 << 5,      /* bytes beyond what the buffer holds, or given up before they were peeked */
    MOS_ON_TIMEOUT = 1 << 6,    /* never raised */
    MOS_ON_TCP_STATE_CHANGE = 1 << 7,
    MOS_ON_ORPHAN = 1 << 8, /* a TCP packet of no flow: the listener's socket, MOS_SIDE_BOTH */
    MOS_ON_REXMIT = 1 << 9,
    MOS_ON_CONN_END = 1 << 10,
    MOS_ON_DEBUG_MESSAGE = 1 << 11 /* never raised */
};

/* mtcp_setlastpkt(): one of DROP, OVERWRITE, CHOMP, INSERT, and where offset counts from. Checksums are always kept right. */
#define MOS_ETH_HDR (1 << 0)
#define MOS_IP_HDR (1 << 1)
#define MOS_TCP_HDR (1 << 2)
#define MOS_TCP_PAYLOAD (1 << 3)
#define MOS_UPDATE_IP_CHKSUM (1 << 4)
#define MOS_UPDATE_TCP_CHKSUM (1 << 5)
#define MOS_DROP (1 << 6)
#define MOS_OVERWRITE (1 << 7)
#define MOS_CHOMP (1 << 8)
#define MOS_INSERT (1 << 9)

/* The current packet, as a copy that stays good until the next mtcp_getlastpkt(). tcph and payload are NULL in what is not TCP. */
struct pkt_info {
    uint32_t cur_ts; /* packet time in milliseconds */
    int8_t in_ifidx; /* 0 */
    uint16_t eth_len;
    uint16_t ip_len;
    uint64_t offset; /* of the payload in its stream */
    uint16_t payloadlen;
    uint32_t seq; /* host order, as the next two */
    uint32_t ack_seq;
    uint16_t window;
    struct ethhdr *ethh;
    struct iphdr *iph;
    struct tcphdr *tcph;
    uint8_t *payload;
};
#define PKT_INFO_LEN offsetof(struct pkt_info, ethh)

struct pkt_ctx {
    struct pkt_info p;
    int8_t direction;
    uint8_t forward;
    int8_t out_ifidx;
    int8_t batch_index;
};

typedef struct {
    int64_t seq_off;
    int side;
    uint32_t base_seq;
} seq_remap_info;

typedef struct filter_arg {
    void *arg;
    size_t len;
} filter_arg_t;

#ifndef SOL_SOCKET
#define SOL_SOCKET 0xffff
#endif
#define SOL_MONSOCKET 0xfffe

enum mos_socket_opts {
    MOS_FRAGINFO_CLIBUF = 0x01, /* get: struct tcp_ring_fragment [], stretches that can be read; see docs/mos.md for optlen */
    MOS_FRAGINFO_SVRBUF = 0x02,
    MOS_INFO_CLIBUF = 0x03, /* get: struct tcp_buf_info */
    MOS_INFO_SVRBUF = 0x04,
    MOS_TCP_STATE_CLI = 0x05, /* get: int, enum tcpstate */
    MOS_TCP_STATE_SVR = 0x06,
    MOS_TIMESTAMP = 0x07, /* get: uint32_t, microseconds of the last packet */
    MOS_CLIBUF = 0x09,    /* set: int, bytes that stay readable; 0: no reassembly for this socket */
    MOS_SVRBUF = 0x0a,
    MOS_SEQ_REMAP = 0x0b, /* set: accepted, nothing to do (numbers follow edits by themselves) */
    MOS_STOP_MON = 0x0c,  /* set: int, a side or MOS_SIDE_BOTH */
    MOS_FRAG_CLIBUF = 0x0d, /* set: int, 0 keeps no bytes */
    MOS_FRAG_SVRBUF = 0x0e,
    MOS_CLIOVERLAP = 0x0f, /* set: int, MOS_OVERLAP_POLICY_* */
    MOS_SVROVERLAP = 0x10
};

/* All but the first are offsets in the stream, cut to 32 bits. */
struct tcp_buf_info {
    uint32_t tcpbi_init_seq; /* sequence number of offset 0 */
    uint32_t tcpbi_last_byte_read;
    uint32_t tcpbi_next_byte_expected;
    uint32_t tcpbi_last_byte_received;
};

struct tcp_ring_fragment {
    uint64_t offset;
    uint32_t len;
};

enum { MOS_OVERLAP_POLICY_FIRST = 0, MOS_OVERLAP_POLICY_LAST, MOS_OVERLAP_CNT };

typedef uint64_t event_t;

enum { MOS_SIDE_CLI = 0, MOS_SIDE_SVR, MOS_SIDE_BOTH };

/* arg: of the user-defined event that happened, NULL if it has none or the event is a built-in one. */
typedef void (*callback_t)(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg);
typedef bool (*filter_t)(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg);

union monitor_filter {
    char *raw_pkt_filter; /* MOS_SOCK_MONITOR_RAW */
    struct {              /* MOS_SOCK_MONITOR_STREAM */
        char *stream_syn_filter;
        char *stream_orphan_filter;
    };
};
typedef union monitor_filter *monitor_filter_t;

/* pcap syntax; NULL: everything. -1: EACCES (a flow's socket), EBADF, EINVAL (a bad filter). */
int mtcp_bind_monitor_filter(mctx_t mctx, int sock, monitor_filter_t ft);
/* On a listener: for flows to come; on a flow's socket: for that flow. A second callback takes the first one's place, NULL takes it away.
 * -1: EBADF, EINVAL (no such event, or not at this hook), ENOENT (nothing to take away), ENOMEM. */
int mtcp_register_callback(mctx_t mctx, int sock, event_t event, int hook_point, callback_t cb);
/* 0: registration undone; as mtcp_register_callback with NULL. */
int mtcp_unregister_callback(mctx_t mctx, int sock, event_t event, int hook_point);
/* A user-defined event: `event` happened and the filter says so; the filter is asked once. arg is copied; equal definitions are one event.
 * 0 (MOS_NULL_EVENT) with errno on failure: EINVAL, ENOMEM. */
event_t mtcp_define_event(event_t event, filter_t filter, struct filter_arg *arg);
/* One of several outcomes of the user-defined `event`, raised by that one's filter. 0 with errno on failure. */
event_t mtcp_alloc_event(event_t event);
/* In the filter of the event's parent. -1: EPERM elsewhere, EINVAL. */
int mtcp_raise_event(mctx_t mctx, event_t event);

/* A pointer of the program's for a flow's socket, or for a listener. NULL to begin with, and with errno EBADF. */
void mtcp_set_uctx(mctx_t mctx, int sock, void *uctx);
void *mtcp_get_uctx(mctx_t mctx, int sock);

/* Reads on in the bytes that came in order for `side`. Bytes read; 0: none now; -1: EBADF, EACCES (no flow's socket), EPERM (outside
 * callbacks), EINVAL (a bad side, or the buffer is off); -k with ENODATA: k bytes were lost unread, the next call reads on behind them. */
ssize_t mtcp_peek(mctx_t mctx, int sock, int side, char *buf, size_t len);
/* Reads from offset `off` on (0 is the byte after the SYN), bytes that wait behind a hole too, up to the first absent one. -1: ENODATA. */
ssize_t mtcp_ppeek(mctx_t mctx, int sock, int side, char *buf, size_t count, uint64_t off);

#define MTCP_CB_GETCURPKT_CREATE_COPY

/* -1: EACCES where there is no current packet, EINVAL. */
int mtcp_getlastpkt(mctx_t mctx, int sock, int side, struct pkt_info *p);
int mtcp_clonepkt(mctx_t mctx, int sock, int side, struct pkt_info *p);
/* -1: EAGAIN (not exactly one operation), EACCES (no packet), EINVAL, EMSGSIZE, EOPNOTSUPP. Lengths follow INSERT and CHOMP by themselves; a
 * new tot_len that the program writes is not needed and not taken. In TCP sequence numbers follow for the rest of the flow. */
int mtcp_setlastpkt(mctx_t mctx, int sock, int side, off_t offset, byte *data, uint16_t datalen, int option);
/* Sends a TCP segment into the flow, in the direction of its addresses, with its numbers, flags and payload. -1: EBADF, EACCES, ENODATA. */
int mtcp_sendpkt(mctx_t mctx, int sock, const struct pkt_info *pkt);
/* RST to both ends, with numbers that they accept. */
int mtcp_reset_conn(mctx_t mctx, int sock);
/* As MOS_STOP_MON. */
int mtcp_cb_stop(mctx_t mctx, int sock, int side);
/* As MOS_DROP. */
int mtcp_cb_dropcurpkt(mctx_t mctx);

/* Calls cb(mctx, id, 0, 0, NULL) once, when packet time has come so much further. -1: EINVAL, ENOSPC. */
int mtcp_settimer(mctx_t mctx, int id, struct timeval *timeout, callback_t cb);
/* Packet time in microseconds, cut to 32 bits. */
uint32_t mtcp_cb_get_ts(mctx_t mctx);
/* Yields to the packets; returns when the worker stops or the capture is over. */
void mtcp_app_join(mctx_t mctx);
/* One sockaddr_in for a side; for MOS_SIDE_BOTH two: [MOS_SIDE_CLI] and [MOS_SIDE_SVR]. -1: EBADF, EINVAL (a short addrlen), ENOTCONN. */
int mtcp_getpeername(mctx_t mctx, int sock, struct sockaddr *saddr, socklen_t *addrlen, int side);
/* What is known of the flow as one line, "" if nothing. Static storage, until the next call. */
char *mtcp_get_debug_string(mctx_t mctx, int sock);

#ifdef __cplusplus
}
#endif
#endif
