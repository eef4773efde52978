/* Every name of mOS's monitoring API, with its type, value and size, as C and as C++. What is false here does not compile. */
#include <mos_api.h>
#include <mtcp_api.h>
#include <mtcp_epoll.h>
#include <mtcp_util.h>

#ifdef __cplusplus
#define IS(truth) static_assert(truth, #truth)
#define FUNCTION(type, name, ...) type (*const f_##name)(__VA_ARGS__) = name
#else
#define IS(truth) _Static_assert(truth, #truth)
#define FUNCTION(type, name, ...) type (*const f_##name)(__VA_ARGS__) = name
#endif
#define FIELD(type, field, kind) IS(sizeof(((type *)0)->field) == sizeof(kind))

/* ---- values ---- */
IS(MOS_NULL_EVENT == 0); IS(MOS_ON_PKT_IN == 1); IS(MOS_ON_PKT_OUT == 2); IS(MOS_ON_CONN_START == 4); IS(MOS_ON_CONN_SETUP == 8);
IS(MOS_ON_CONN_NEW_DATA == 16); IS(MOS_ON_ERROR == 32); IS(MOS_ON_TIMEOUT == 64); IS(MOS_ON_TCP_STATE_CHANGE == 128); IS(MOS_ON_ORPHAN == 256);
IS(MOS_ON_REXMIT == 512); IS(MOS_ON_CONN_END == 1024); IS(MOS_ON_DEBUG_MESSAGE == 2048);
IS(MOS_NULL == 1 << 29); IS(MOS_HK_RCV == 1 << 30); IS((unsigned)MOS_HK_SND == 1u << 31);
IS(MOS_ETH_HDR == 1); IS(MOS_IP_HDR == 2); IS(MOS_TCP_HDR == 4); IS(MOS_TCP_PAYLOAD == 8); IS(MOS_UPDATE_IP_CHKSUM == 16); IS(MOS_UPDATE_TCP_CHKSUM == 32);
IS(MOS_DROP == 64); IS(MOS_OVERWRITE == 128); IS(MOS_CHOMP == 256); IS(MOS_INSERT == 512);
IS(SOL_MONSOCKET == 0xfffe); IS(SOL_SOCKET != SOL_MONSOCKET);
IS(MOS_FRAGINFO_CLIBUF == 1); IS(MOS_FRAGINFO_SVRBUF == 2); IS(MOS_INFO_CLIBUF == 3); IS(MOS_INFO_SVRBUF == 4); IS(MOS_TCP_STATE_CLI == 5);
IS(MOS_TCP_STATE_SVR == 6); IS(MOS_TIMESTAMP == 7); IS(MOS_CLIBUF == 9); IS(MOS_SVRBUF == 10); IS(MOS_SEQ_REMAP == 11); IS(MOS_STOP_MON == 12);
IS(MOS_FRAG_CLIBUF == 13); IS(MOS_FRAG_SVRBUF == 14); IS(MOS_CLIOVERLAP == 15); IS(MOS_SVROVERLAP == 16);
IS(MOS_OVERLAP_POLICY_FIRST == 0); IS(MOS_OVERLAP_POLICY_LAST == 1); IS(MOS_OVERLAP_CNT == 2);
IS(MOS_SIDE_CLI == 0); IS(MOS_SIDE_SVR == 1); IS(MOS_SIDE_BOTH == 2);
IS(MOS_SOCK_UNUSED == 0); IS(MOS_SOCK_STREAM_LISTEN == 1); IS(MOS_SOCK_PROXY_LISTEN == 2); IS(MOS_SOCK_MONITOR_STREAM == 3); IS(MOS_SOCK_STREAM == 4);
IS(MOS_SOCK_PROXY == 5); IS(MOS_SOCK_MONITOR_STREAM_ACTIVE == 6); IS(MOS_SOCK_MONITOR_RAW == 7); IS(MOS_SOCK_EPOLL == 8); IS(MOS_SOCK_PIPE == 9);
IS(TCP_CLOSED == 0); IS(TCP_LISTEN == 1); IS(TCP_SYN_SENT == 2); IS(TCP_SYN_RCVD == 3); IS(TCP_ESTABLISHED == 4); IS(TCP_FIN_WAIT_1 == 5);
IS(TCP_FIN_WAIT_2 == 6); IS(TCP_CLOSE_WAIT == 7); IS(TCP_CLOSING == 8); IS(TCP_LAST_ACK == 9); IS(TCP_TIME_WAIT == 10);
IS(MOS_EPOLL_CTL_ADD == 1); IS(MOS_EPOLL_CTL_DEL == 2); IS(MOS_EPOLL_CTL_MOD == 3); IS(MOS_EPOLLNONE == 1); IS(MOS_EPOLLIN == 2); IS(MOS_EPOLLPRI == 4);
IS(MOS_EPOLLOUT == 8); IS(MOS_EPOLLERR == 512); IS(MOS_EPOLLHUP == 1024); IS(MOS_EPOLLRDHUP == 2048); IS(MOS_EPOLLONESHOT == 1 << 30);
IS((unsigned)MOS_EPOLLET == 1u << 31); IS(APP_NAME_LEN == 40); IS(MOS_APP == 20); IS(MOS_APP_ARGC == 20); IS(INPORT_ANY == 0);

/* ---- types ---- */
IS(sizeof(event_t) == 8); IS(sizeof(byte) == 1); IS(sizeof(struct pkt_info) == 72); IS(PKT_INFO_LEN == 40);
FIELD(struct pkt_info, cur_ts, uint32_t); FIELD(struct pkt_info, in_ifidx, int8_t); FIELD(struct pkt_info, eth_len, uint16_t); FIELD(struct pkt_info, ip_len, uint16_t);
FIELD(struct pkt_info, offset, uint64_t); FIELD(struct pkt_info, payloadlen, uint16_t); FIELD(struct pkt_info, seq, uint32_t); FIELD(struct pkt_info, ack_seq, uint32_t);
FIELD(struct pkt_info, window, uint16_t); FIELD(struct pkt_ctx, p, struct pkt_info); FIELD(struct pkt_ctx, direction, int8_t); FIELD(struct pkt_ctx, forward, uint8_t);
FIELD(struct pkt_ctx, out_ifidx, int8_t); FIELD(struct pkt_ctx, batch_index, int8_t);
FIELD(struct tcp_buf_info, tcpbi_init_seq, uint32_t); FIELD(struct tcp_buf_info, tcpbi_last_byte_read, uint32_t);
FIELD(struct tcp_buf_info, tcpbi_next_byte_expected, uint32_t); FIELD(struct tcp_buf_info, tcpbi_last_byte_received, uint32_t);
FIELD(struct tcp_ring_fragment, offset, uint64_t); FIELD(struct tcp_ring_fragment, len, uint32_t);
FIELD(seq_remap_info, seq_off, int64_t); FIELD(seq_remap_info, side, int); FIELD(seq_remap_info, base_seq, uint32_t);
FIELD(struct filter_arg, arg, void *); FIELD(filter_arg_t, len, size_t);
FIELD(union monitor_filter, raw_pkt_filter, char *); FIELD(union monitor_filter, stream_syn_filter, char *); FIELD(union monitor_filter, stream_orphan_filter, char *);
FIELD(struct mtcp_context, cpu, int);
FIELD(struct mtcp_conf, num_cores, int); FIELD(struct mtcp_conf, max_concurrency, int); FIELD(struct mtcp_conf, cpu_mask, uint64_t);
FIELD(struct mtcp_conf, max_num_buffers, int); FIELD(struct mtcp_conf, rcvbuf_size, int); FIELD(struct mtcp_conf, sndbuf_size, int);
FIELD(struct mtcp_conf, tcp_timewait, int); FIELD(struct mtcp_conf, tcp_timeout, int); FIELD(struct mtcp_conf, app_cpu_mask, uint64_t[20]);
FIELD(struct mtcp_conf, app_argv, char *[20][20]); FIELD(struct mtcp_conf, app_argc, int[20]); FIELD(struct mtcp_conf, num_app, int);
FIELD(struct app_context, mctx, mctx_t); FIELD(struct app_context, socket_id, int); FIELD(struct app_context, ep_id, int);
FIELD(struct app_ops, app_init, void *); FIELD(struct app_ops, thread_init, void *); FIELD(struct app_ops, run, void *); FIELD(struct app_ops, enable, int);
FIELD(struct mtcp_epoll_event, events, uint64_t); FIELD(mtcp_epoll_data_t, ptr, void *); FIELD(mtcp_epoll_data_t, sock, int);
enum tcpstate a_state = TCP_CLOSED;
enum mtcp_hook_point a_hook = MOS_NULL;
enum mos_event_type an_event = MOS_ON_PKT_IN;
enum socket_type a_type = MOS_SOCK_MONITOR_RAW;
enum mos_socket_opts an_option = MOS_STOP_MON;
static monitor_filter_t a_filter;
static mtcp_manager_t a_manager;
static socket_map_t a_map;

static void called(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { (void)mctx, (void)sock, (void)side, (void)event, (void)arg; }
static bool asked(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { called(mctx, sock, side, event, arg); return false; }
callback_t a_callback = called;
filter_t a_predicate = asked;

/* ---- functions ---- */
FUNCTION(int, mtcp_init, const char *);
FUNCTION(int, mtcp_destroy, void);
FUNCTION(int, mtcp_getconf, struct mtcp_conf *);
FUNCTION(int, mtcp_setconf, const struct mtcp_conf *);
FUNCTION(mctx_t, mtcp_create_context, int);
FUNCTION(int, mtcp_destroy_context, mctx_t);
FUNCTION(void, mtcp_app_join, mctx_t);
FUNCTION(int, mtcp_core_affinitize, int);
FUNCTION(mtcp_sighandler_t, mtcp_register_signal, int, mtcp_sighandler_t);
FUNCTION(uint32_t, mtcp_get_connection_cnt, mctx_t);
FUNCTION(int, mtcp_init_rss, mctx_t, in_addr_t, int, in_addr_t, in_addr_t);
FUNCTION(int, mtcp_socket, mctx_t, int, int, int);
FUNCTION(int, mtcp_bind, mctx_t, int, const struct sockaddr *, socklen_t);
FUNCTION(int, mtcp_listen, mctx_t, int, int);
FUNCTION(int, mtcp_accept, mctx_t, int, struct sockaddr *, socklen_t *);
FUNCTION(int, mtcp_connect, mctx_t, int, const struct sockaddr *, socklen_t);
FUNCTION(int, mtcp_close, mctx_t, int);
FUNCTION(int, mtcp_abort, mctx_t, int);
FUNCTION(ssize_t, mtcp_recv, mctx_t, int, char *, size_t, int);
FUNCTION(ssize_t, mtcp_read, mctx_t, int, char *, size_t);
FUNCTION(ssize_t, mtcp_readv, mctx_t, int, const struct iovec *, int);
FUNCTION(ssize_t, mtcp_write, mctx_t, int, const char *, size_t);
FUNCTION(ssize_t, mtcp_writev, mctx_t, int, const struct iovec *, int);
FUNCTION(int, mtcp_epoll_create, mctx_t, int);
FUNCTION(int, mtcp_epoll_ctl, mctx_t, int, int, int, struct mtcp_epoll_event *);
FUNCTION(int, mtcp_epoll_wait, mctx_t, int, struct mtcp_epoll_event *, int, int);
FUNCTION(int, mtcp_pipe, mctx_t, int[2]);
FUNCTION(int, mtcp_ioctl, mctx_t, int, int, void *);
FUNCTION(int, mtcp_setsock_nonblock, mctx_t, int);
FUNCTION(int, mtcp_getsockname, mctx_t, int, struct sockaddr *, socklen_t *);
FUNCTION(int, mtcp_getsockopt, mctx_t, int, int, int, void *, socklen_t *);
FUNCTION(int, mtcp_setsockopt, mctx_t, int, int, int, const void *, socklen_t);
FUNCTION(int, mtcp_bind_monitor_filter, mctx_t, int, monitor_filter_t);
FUNCTION(int, mtcp_register_callback, mctx_t, int, event_t, int, callback_t);
FUNCTION(int, mtcp_unregister_callback, mctx_t, int, event_t, int);
FUNCTION(event_t, mtcp_define_event, event_t, filter_t, struct filter_arg *);
FUNCTION(event_t, mtcp_alloc_event, event_t);
FUNCTION(int, mtcp_raise_event, mctx_t, event_t);
FUNCTION(void, mtcp_set_uctx, mctx_t, int, void *);
FUNCTION(void *, mtcp_get_uctx, mctx_t, int);
FUNCTION(ssize_t, mtcp_peek, mctx_t, int, int, char *, size_t);
FUNCTION(ssize_t, mtcp_ppeek, mctx_t, int, int, char *, size_t, uint64_t);
FUNCTION(int, mtcp_getlastpkt, mctx_t, int, int, struct pkt_info *);
FUNCTION(int, mtcp_clonepkt, mctx_t, int, int, struct pkt_info *);
FUNCTION(int, mtcp_setlastpkt, mctx_t, int, int, off_t, byte *, uint16_t, int);
FUNCTION(int, mtcp_sendpkt, mctx_t, int, const struct pkt_info *);
FUNCTION(int, mtcp_reset_conn, mctx_t, int);
FUNCTION(int, mtcp_cb_stop, mctx_t, int, int);
FUNCTION(int, mtcp_cb_dropcurpkt, mctx_t);
FUNCTION(int, mtcp_settimer, mctx_t, int, struct timeval *, callback_t);
FUNCTION(uint32_t, mtcp_cb_get_ts, mctx_t);
FUNCTION(int, mtcp_getpeername, mctx_t, int, struct sockaddr *, socklen_t *, int);
FUNCTION(char *, mtcp_get_debug_string, mctx_t, int);
FUNCTION(int, StrToArgs, char *, int *, char **, int);
FUNCTION(unsigned int, XXH32, const void *, size_t, unsigned);
FUNCTION(unsigned long long, XXH64, const void *, size_t, unsigned long long);
FUNCTION(char *, EventToString, uint32_t);
static int (*const f_rss)(in_addr_t, in_addr_t, in_port_t, in_port_t, int, ...) = GetRSSCPUCore;

int main(void)
{
    struct pkt_info p = {0};
    struct ethhdr *ethernet = p.ethh;
    struct iphdr *ip = p.iph;
    struct tcphdr *tcp = p.tcph;
    uint8_t *payload = p.payload;
    UNUSED(ethernet), UNUSED(ip), UNUSED(tcp), UNUSED(payload), UNUSED(a_filter), UNUSED(a_manager), UNUSED(a_map);
    UNUSED(f_mtcp_init), UNUSED(f_rss);
    return 0;
}
