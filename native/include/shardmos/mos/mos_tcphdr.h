/* mos_tcphdr.h: struct tcphdr and the TCP states, whichever of the system's two headers a program includes, and in whichever order.
 *
 * mOS's own header takes <linux/tcp.h>. <netinet/tcp.h> has another struct tcphdr and other numbers for the same state names, so that the
 * two cannot be included together. A program that included one before keeps its struct; otherwise it gets one with both spellings.
 */
#ifndef SHARDMOS_MOS_TCPHDR_H
#define SHARDMOS_MOS_TCPHDR_H

#include <stdint.h>
#include <sys/types.h>

#if defined(_NETINET_TCP_H)
#if !defined(_LINUX_TCP_H) && !defined(_UAPI_LINUX_TCP_H)
#define _LINUX_TCP_H 1 /* it would define again what is here */
#define _UAPI_LINUX_TCP_H 1
#endif
/* Its enumerators are taken: the names become macros with mOS's numbers. */
#define TCP_CLOSED 0
#define TCP_SYN_RCVD 3
#define TCP_LISTEN 1
#define TCP_SYN_SENT 2
#define TCP_ESTABLISHED 4
#define TCP_FIN_WAIT_1 5
#define TCP_FIN_WAIT_2 6
#define TCP_CLOSE_WAIT 7
#define TCP_CLOSING 8
#define TCP_LAST_ACK 9
#define TCP_TIME_WAIT 10
#else
#define _NETINET_TCP_H 1
#if !defined(_LINUX_TCP_H) && !defined(_UAPI_LINUX_TCP_H)
#define tcphdr smos_linux_tcphdr
#include <linux/tcp.h>
#undef tcphdr
#ifdef __BYTE_ORDER__
#define SHARDMOS_LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#else
#define SHARDMOS_LITTLE 1
#endif
struct tcphdr {
    __extension__ union {
        struct {
            uint16_t th_sport, th_dport;
            uint32_t th_seq, th_ack;
#if SHARDMOS_LITTLE
            uint8_t th_x2 : 4, th_off : 4;
#else
            uint8_t th_off : 4, th_x2 : 4;
#endif
            uint8_t th_flags;
            uint16_t th_win, th_sum, th_urp;
        };
        struct {
            uint16_t source, dest;
            uint32_t seq, ack_seq;
#if SHARDMOS_LITTLE
            uint16_t res1 : 4, doff : 4, fin : 1, syn : 1, rst : 1, psh : 1, ack : 1, urg : 1, ece : 1, cwr : 1;
#else
            uint16_t doff : 4, res1 : 4, cwr : 1, ece : 1, urg : 1, ack : 1, psh : 1, rst : 1, syn : 1, fin : 1;
#endif
            uint16_t window, check, urg_ptr;
        };
    };
};
#endif
typedef uint32_t tcp_seq;
#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_PUSH 0x08
#define TH_ACK 0x10
#define TH_URG 0x20
#define TCPOPT_EOL 0
#define TCPOPT_NOP 1
#define TCPOPT_MAXSEG 2
#define TCPOLEN_MAXSEG 4
#define TCPOPT_WINDOW 3
#define TCPOLEN_WINDOW 3
#define TCPOPT_SACK_PERMITTED 4
#define TCPOLEN_SACK_PERMITTED 2
#define TCPOPT_SACK 5
#define TCPOPT_TIMESTAMP 8
#define TCPOLEN_TIMESTAMP 10
#define TCPOLEN_TSTAMP_APPA (TCPOLEN_TIMESTAMP + 2)
#define TCPOPT_TSTAMP_HDR (TCPOPT_NOP << 24 | TCPOPT_NOP << 16 | TCPOPT_TIMESTAMP << 8 | TCPOLEN_TIMESTAMP)
#define TCP_MSS 512
#define TCP_MAXWIN 65535
#define TCP_MAX_WINSHIFT 14
#define SOL_TCP 6

enum tcpstate {
    TCP_CLOSED = 0,
    TCP_LISTEN = 1,
    TCP_SYN_SENT = 2,
    TCP_SYN_RCVD = 3,
    TCP_ESTABLISHED = 4,
    TCP_FIN_WAIT_1 = 5,
    TCP_FIN_WAIT_2 = 6,
    TCP_CLOSE_WAIT = 7,
    TCP_CLOSING = 8,
    TCP_LAST_ACK = 9,
    TCP_TIME_WAIT = 10
};
#endif
#endif
