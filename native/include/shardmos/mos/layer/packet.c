/* The current packet: a copy of it, changing it, and sending another. */
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define ETHERNET 14
#define TCP_PROTO 6


/* ---- a copy ---- */

static uint8_t *room(size_t bytes)
{
    static uint8_t *memory;
    static size_t have;
    if (bytes + 2 > have) {
        uint8_t *more = realloc(memory, bytes + 2 + 2048);
        if (!more) return NULL;
        memory = more;
        have = bytes + 2 + 2048;
    }
    return memory + 2; /* the IP header behind an Ethernet header is aligned */
}


static bool within_frame(const smos_packet_t *p) { return p->ip >= p->frame && p->ip < p->frame + p->caplen; }


/* Captures do not say what their link layer is: Ethernet names what follows, directly or behind tags. */
static bool is_ethernet(const smos_packet_t *p)
{
    if (!within_frame(p) || p->ip - p->frame < ETHERNET) return false;
    unsigned type = (unsigned)(p->frame[12] << 8 | p->frame[13]);
    if (p->ip - p->frame == ETHERNET) return type == 0x0800;
    if (p->ip - p->frame == 16) return false; /* Linux's cooked capture */
    return type == 0x8100 || type == 0x88a8 || type == 0x8847 || type == 0x8864 || type == 0x0800 || type == 0x86dd;
}


/* Bytes that were captured from the IP header on. */
static uint32_t captured(const smos_packet_t *p)
{
    if (within_frame(p)) {
        uint32_t rest = p->caplen - (uint32_t)(p->ip - p->frame);
        return rest < p->ip_len ? rest : p->ip_len;
    }
    return p->payload ? (uint32_t)(p->payload - p->ip) + p->payload_captured : p->ip_len; /* a reassembled datagram is whole */
}


static uint64_t offset_of(const smos_packet_t *p)
{
    smos_buffer_info_t info;
    const entry_t *e = mos__now.entry;
    if (!e || !p->payload_len || ENGINE(buffer_info, e->listener->sock, e->flow, !p->from, &info)) return 0;
    return info.next + (uint64_t)(int64_t)(int32_t)(p->seq - (info.init_seq + (uint32_t)info.next));
}


static void fill(struct pkt_info *out, const smos_packet_t *p, uint8_t *ip)
{
    bool tcp = p->l4 && p->ip[9] == TCP_PROTO;
    *out = (struct pkt_info){.cur_ts = (uint32_t)(p->time_ns / 1000000), .ip_len = (uint16_t)p->ip_len, .iph = (struct iphdr *)ip};
    if (!tcp) return;
    out->offset = offset_of(p);
    out->payloadlen = (uint16_t)p->payload_len;
    out->seq = p->seq;
    out->ack_seq = p->ack;
    out->window = p->window;
    out->tcph = (struct tcphdr *)(ip + (p->l4 - p->ip));
    out->payload = ip + (p->l4 - p->ip) + (p->l4[12] >> 4) * 4;
}


int mtcp_getlastpkt(mctx_t mctx, int sock, int side, struct pkt_info *out)
{
    const smos_packet_t *p = mos__now.packet;
    (void)sock, (void)side; /* there is one current packet */
    if (!mctx || !out) return FAIL(EINVAL);
    if (!mos__here) return FAIL(EPERM);
    if (!p || !p->ip) return FAIL(EACCES);
    bool ethernet = is_ethernet(p);
    uint32_t head = ethernet ? (uint32_t)(p->ip - p->frame) : ETHERNET, rest = ethernet ? p->caplen - head : captured(p);
    uint32_t whole = head + (p->ip_len > rest ? p->ip_len : rest), wire = ethernet ? p->len : head + p->ip_len;
    if (wire > UINT16_MAX) wire = UINT16_MAX; /* eth_len has no more */
    if (whole < wire) whole = wire;
    uint8_t *frame = room(whole);
    if (!frame) return FAIL(ENOMEM);
    memset(frame, 0, whole); /* what a short capture left out reads as zeros */
    if (ethernet) memcpy(frame, p->frame, p->caplen);
    else memcpy(frame + ETHERNET, p->ip, rest);
    if (!ethernet) frame[12] = 0x08;
    fill(out, p, frame + head);
    out->ethh = (struct ethhdr *)frame;
    out->eth_len = (uint16_t)wire;
    return 0;
}


int mtcp_clonepkt(mctx_t mctx, int sock, int side, struct pkt_info *p) { return mtcp_getlastpkt(mctx, sock, side, p); }


/* ---- changing it ---- */

static int answer(int status) { return status < 0 ? FAIL(-status) : 0; }


int mtcp_cb_dropcurpkt(mctx_t mctx)
{
    if (!mctx) return FAIL(EACCES);
    if (!mos__here) return FAIL(EPERM);
    if (!mos__now.packet) return FAIL(EACCES);
    return answer(ENGINE(drop));
}


static int write_bytes(int from, uint32_t offset, const uint8_t *data, uint32_t length)
{
    return length ? ENGINE(overwrite, from, offset, data, length) : 0;
}


/* Overwriting in the IP header leaves tot_len out: lengths are the engine's, and follow INSERT and CHOMP. */
static int overwrite(int from, uint32_t offset, const uint8_t *data, uint32_t length)
{
    if (from != SMOS_FROM_IP || offset >= 4 || offset + length <= 2) return write_bytes(from, offset, data, length);
    uint32_t before = offset < 2 ? 2 - offset : 0, skip = 4 - offset < length ? 4 - offset : length;
    int status = write_bytes(from, offset, data, before);
    return status ? status : write_bytes(from, offset + skip, data + skip, length - skip);
}


static int place(int option)
{
    switch (option & (MOS_ETH_HDR | MOS_IP_HDR | MOS_TCP_HDR | MOS_TCP_PAYLOAD)) {
    case MOS_ETH_HDR: return SMOS_FROM_FRAME;
    case MOS_IP_HDR: return SMOS_FROM_IP;
    case MOS_TCP_HDR: return SMOS_FROM_L4;
    case MOS_TCP_PAYLOAD: return SMOS_FROM_PAYLOAD;
    default: return -1;
    }
}


int mtcp_setlastpkt(mctx_t mctx, int sock, int side, off_t offset, byte *data, uint16_t datalen, int option)
{
    const int operation = option & (MOS_DROP | MOS_OVERWRITE | MOS_CHOMP | MOS_INSERT), from = place(option);
    (void)sock, (void)side;
    if (!mctx) return FAIL(EACCES);
    if (!mos__here) return FAIL(EPERM);
    if (!mos__now.packet) return FAIL(EACCES);
    if (!operation || operation & (operation - 1)) return FAIL(EAGAIN);
    if (operation == MOS_DROP) return mtcp_cb_dropcurpkt(mctx);
    if (from < 0 || offset < 0 || offset > UINT16_MAX || (!data && datalen && operation != MOS_CHOMP)) return FAIL(EINVAL);
    if (from == SMOS_FROM_FRAME && !is_ethernet(mos__now.packet)) return FAIL(EOPNOTSUPP);
    if (operation == MOS_OVERWRITE) {
        if (!HAVE(overwrite)) return FAIL(ENOSYS);
        return answer(overwrite(from, (uint32_t)offset, data, datalen));
    }
    if (from != SMOS_FROM_PAYLOAD) return FAIL(EOPNOTSUPP);
    if (!HAVE(insert) || !HAVE(remove)) return FAIL(ENOSYS);
    return answer(operation == MOS_INSERT ? ENGINE(insert, (uint32_t)offset, data, datalen) : ENGINE(remove, (uint32_t)offset, datalen));
}


/* ---- another ---- */

int mtcp_sendpkt(mctx_t mctx, int sock, const struct pkt_info *pkt)
{
    if (!mctx) return FAIL(EACCES);
    if (!mos__here) return FAIL(EPERM);
    const entry_t *e = mos__entry(sock);
    if (!e) return FAIL(mos__missing(sock));
    if (!pkt || !pkt->iph || !pkt->tcph || (pkt->payloadlen && !pkt->payload)) return FAIL(ENODATA);
    if (!HAVE(inject)) return FAIL(ENOSYS);
    const struct tcphdr *t = pkt->tcph;
    bool to_client = !memcmp(&pkt->iph->daddr, e->tuple.src + 12, 4) && t->dest == htons(e->tuple.sport);
    smos_injection_t what = {
        .to = to_client ? SMOS_CLIENT : SMOS_SERVER,
        .tcp_flags = (uint8_t)(t->fin | t->syn << 1 | t->rst << 2 | t->psh << 3 | t->ack << 4 | t->urg << 5),
        .set_seq = 1,
        .seq = ntohl(t->seq),
        .ack = ntohl(t->ack_seq),
        .window = ntohs(t->window),
        .urgent = ntohs(t->urg_ptr),
        .payload = pkt->payload,
        .length = pkt->payloadlen,
    };
    int status = ENGINE(inject, e->flow, &what);
    return status == -ENOTSUP ? 0 : answer(status); /* a capture cannot send: counted by the engine */
}
