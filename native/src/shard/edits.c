/* See edits.h. */
#include "shard/edits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "edit/rewrite.h"
#include "shard/shard.h"

enum { TCP = 6 };
#define MTU 1500


static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}


static size_t slots(const smos_shard_t *s) { return s->arena.header->capacity; }


void smos__edits_free(smos_shard_t *s)
{
    smos__edits_t *e = &s->edits;
    for (uint32_t i = 0; e->flow && i < s->arena.header->high_water; i++) smos__edits_forget(s, i);
    if (e->buffer) munmap(e->buffer, 2 * SMOS__EDIT_ROOM);
    if (e->flow) munmap(e->flow, slots(s) * sizeof *e->flow);
    if (e->link) munmap(e->link, slots(s) * sizeof *e->link);
    smos__aliases_free(&e->aliases);
}


void smos__edits_forget(smos_shard_t *s, uint32_t flow)
{
    smos__edits_t *e = &s->edits;
    const smos_tuple_t *alias = smos__alias_of(&e->aliases, flow);
    if (alias) smos__alias_drop(&e->aliases, flow, smos__table_hash(&s->table, alias));
    if (e->link) e->link[flow][0].length = e->link[flow][1].length = 0;
    if (!e->flow || !e->flow[flow]) return;
    for (int side = 0; side < 2; side++) {
        e->bytes -= smos__splice_bytes(&e->flow[flow]->by[side]);
        smos__splice_clear(&e->flow[flow]->by[side]);
    }
    e->bytes -= sizeof *e->flow[flow];
    free(e->flow[flow]);
    e->flow[flow] = NULL;
}


smos__flow_edits_t *smos__edits_of(smos_shard_t *s, uint32_t flow)
{
    smos__edits_t *e = &s->edits;
    if (!e->flow && !(e->flow = reserve(slots(s) * sizeof *e->flow))) return NULL;
    if (e->flow[flow]) return e->flow[flow];
    if (e->bytes + sizeof **e->flow > SMOS__EDITED_FLOWS_BYTES) return NULL;
    e->flow[flow] = calloc(1, sizeof **e->flow);
    if (!e->flow[flow]) return NULL;
    e->bytes += sizeof **e->flow;
    s->arena.hot[flow].flags |= SMOS__FLOW_EDITED;
    return e->flow[flow];
}


int smos__edit_add(smos_shard_t *s, smos__splice_t *splice, uint32_t at, uint32_t removed, const uint8_t *text, uint32_t length, bool behind)
{
    size_t before = smos__splice_bytes(splice);
    if (s->edits.bytes + length > SMOS__EDITED_FLOWS_BYTES) return -ENOSPC;
    int status = smos__splice_add(splice, at, removed, text, length, behind);
    s->edits.bytes += smos__splice_bytes(splice) - before;
    return status;
}


/* ---- the packet under the hand ---- */

static int have_buffer(smos__edits_t *e)
{
    if (!e->buffer) e->buffer = reserve(2 * SMOS__EDIT_ROOM);
    return e->buffer ? 0 : -ENOMEM;
}


uint8_t *smos__edit_room(smos_shard_t *s) { return have_buffer(&s->edits) < 0 ? NULL : s->edits.buffer + SMOS__EDIT_ROOM; }


int smos__edit_begin(smos_shard_t *s)
{
    smos__edits_t *e = &s->edits;
    if (!s->events.in_packet || s->flow == SMOS__NO_FLOW) return -EPERM;
    if (e->active) return 0;
    smos__layer_t *l = s->layer;
    const smos__frame_t *f = s->frame;
    if (l->flags & (SMOS__REASSEMBLED | SMOS__TRUNCATED) || s->nested || f->caplen < f->len || f->caplen > SMOS__EDIT_ROOM / 2 || !l->l4 || l->ip_captured < l->ip_len) return -EOPNOTSUPP;
    if (have_buffer(e) < 0) return -ENOMEM;
    memcpy(e->buffer, f->data, f->caplen);
    e->frame = *f;
    e->frame.data = e->buffer;
    smos__rewrite_move(l, f->data, e->buffer);
    s->frame = &e->frame;
    if (s->events.call.packet) smos__show_frame(s);
    e->active = true;
    return 0;
}


bool smos__edit_entry(smos_shard_t *s, uint32_t flow, smos__layer_t *l, int from)
{
    const smos__flow_edits_t *fe = s->edits.flow ? s->edits.flow[flow] : NULL;
    if (!fe || smos__splice_empty(&fe->by[from]) || l->tcp_flags & SMOS__SYN) return true;
    if (smos__edit_begin(s) < 0) return false;
    uint8_t *built = s->edits.buffer + SMOS__EDIT_ROOM;
    uint32_t edited, length = l->payload_len;
    int64_t n = smos__splice_segment(&fe->by[from], l->seq, l->payload, length, l->tcp_flags & SMOS__FIN, built, SMOS__EDIT_ROOM, &edited);
    if (n < 0 || smos__rewrite_payload(&s->edits.frame, l, SMOS__EDIT_ROOM, 0, length, built, (uint32_t)n) < 0) return false;
    smos__rewrite_tcp(l, edited, l->ack);
    smos__rewrite_checksums(&s->edits.frame, l);
    return true;
}


/* RFC 2018: the edges of the blocks lie in the numbers of the other end's stream. */
static void translate_sack(const smos__splice_t *splice, smos__layer_t *l)
{
    if (!(l->flags & SMOS__HAS_SACK)) return;
    uint8_t *at = (uint8_t *)(uintptr_t)l->sack;
    for (int i = 0; i < 2 * l->sack_blocks; i++, at += 4) {
        uint32_t edge = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        smos__put32(at, smos__splice_ack(splice, edge));
    }
}


void smos__edit_exit(smos_shard_t *s, uint32_t flow, smos__layer_t *l, int from)
{
    smos__flow_edits_t *fe = s->edits.flow ? s->edits.flow[flow] : NULL;
    if (!fe || smos__splice_empty(&fe->by[!from]) || !(l->tcp_flags & SMOS__ACK)) return;
    s->events.in_packet = true;
    int status = smos__edit_begin(s);
    s->events.in_packet = false;
    if (status < 0) return;
    uint32_t edited = l->ack;
    size_t bytes = smos__splice_bytes(&fe->by[!from]);
    translate_sack(&fe->by[!from], l);
    smos__rewrite_tcp(l, l->seq, smos__splice_ack(&fe->by[!from], edited));
    smos__rewrite_checksums(&s->edits.frame, l);
    smos__splice_acked(&fe->by[!from], edited);
    s->edits.bytes -= bytes - smos__splice_bytes(&fe->by[!from]);
}


void smos__edit_translated(smos_shard_t *s, uint32_t flow, const smos__layer_t *l, int from)
{
    const smos__flow_t *f = &s->arena.hot[flow];
    int direction;
    if (from != SMOS_CLIENT || smos__tuple_match(&f->tuple, &l->tuple, &direction)) return;
    const smos_tuple_t *old = smos__alias_of(&s->edits.aliases, flow);
    if (old && smos__tuple_match(old, &l->tuple, &direction)) return;
    uint32_t old_hash = old ? smos__table_hash(&s->table, old) : 0;
    uint32_t hash = smos__table_hash(&s->table, &l->tuple);
    if (smos__alias_set(&s->edits.aliases, (uint32_t)slots(s), flow, &l->tuple, hash, old_hash) < 0) SMOS__COUNT(s, alias_no_memory);
    /* A flow of that very name is one of the past, late packets to whoever had it before: it would take the answers. */
    uint32_t stale = smos__table_find(&s->table, s->arena.hot, hash, &l->tuple, &direction);
    if (stale != SMOS__NO_FLOW && stale != flow) smos__flow_end(s, stale, SMOS_END_IDLE, true);
}


void smos__edit_note_link(smos_shard_t *s, uint32_t flow, const smos__frame_t *f, const smos__layer_t *l, int from)
{
    smos__edits_t *e = &s->edits;
    size_t length = (size_t)(l->ip - f->data);
    if (!e->link && !(e->link = reserve(slots(s) * sizeof *e->link))) return;
    if (f->linktype != 1 || length < 14 || length > sizeof e->link[0][0].header || l->flags & SMOS__REASSEMBLED) return;
    smos__link_t *own = &e->link[flow][from], *other = &e->link[flow][!from];
    own->length = (uint8_t)length;
    own->end = f->end;
    memcpy(own->header, f->data, length);
    if (other->length) return;
    *other = *own; /* until the other end is heard: the same way back */
    other->end = s->port->ends == 2 ? !f->end : f->end;
    memcpy(other->header, own->header + 6, 6);
    memcpy(other->header + 6, own->header, 6);
}


/* ---- sending ---- */

static int send_out(smos_shard_t *s, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like) { return s->port->send(s->port, end, data, length, like); }


/* A segment that grew beyond the MTU goes as two: the first without what ends a stream, the second with it. */
static void send_halves(smos_shard_t *s, int end, smos__layer_t *l)
{
    smos__frame_t first = s->edits.frame, second = first;
    smos__layer_t a = *l, b = *l;
    uint8_t *copy = s->edits.buffer + SMOS__EDIT_ROOM;
    uint32_t headers = l->ip_len - l->payload_len, keep = l->payload_len / 2;
    if (headers + keep > MTU) keep = MTU - headers;
    memcpy(copy, first.data, first.caplen);
    second.data = copy;
    smos__rewrite_move(&b, first.data, copy);
    smos__rewrite_payload(&first, &a, SMOS__EDIT_ROOM, keep, l->payload_len - keep, NULL, 0);
    ((uint8_t *)(uintptr_t)a.l4)[13] &= (uint8_t)~(SMOS__FIN | SMOS__PSH);
    smos__rewrite_checksums(&first, &a);
    smos__rewrite_payload(&second, &b, SMOS__EDIT_ROOM, 0, keep, NULL, 0);
    smos__rewrite_tcp(&b, l->seq + keep, l->ack);
    smos__rewrite_checksums(&second, &b);
    send_out(s, end, first.data, first.caplen, &first);
    send_out(s, end, second.data, second.caplen, &second);
}


void smos__edit_send(smos_shard_t *s, int end, const smos__frame_t *original)
{
    smos__edits_t *e = &s->edits;
    smos__layer_t *l = s->layer;
    uint32_t before = original->len - (uint32_t)(l->ip - e->frame.data); /* link-layer padding included: never less than the packet's own length */
    bool grew = l->ip_len > MTU && l->ip_len > before && l->ip_len <= 2 * MTU - 120;
    SMOS__COUNT(s, packets_edited);
    if (grew && l->tuple.proto == TCP && !original->offload.gso_type)
        send_halves(s, end, l);
    else
        send_out(s, end, e->frame.data, e->frame.caplen, &e->frame);
}


/* ---- packets of our own ---- */

typedef struct building {
    uint8_t *at;
    uint32_t link;
    smos__layer_t layer;
    smos__frame_t frame;
} building_t;


/* Link and IP headers of a packet that seems to come from the other end of `to`. Beyond the box the flow goes by its alias. */
static int begin_packet(smos_shard_t *s, uint32_t flow, int to, uint32_t l4_bytes, building_t *b)
{
    smos__edits_t *e = &s->edits;
    const smos__flow_t *f = &s->arena.hot[flow];
    const smos__link_t *link = e->link ? &e->link[flow][!to] : NULL;
    if (!link || !link->length) return -EOPNOTSUPP;
    if (have_buffer(e) < 0) return -ENOMEM;
    const smos_tuple_t *t = to == SMOS_SERVER && smos__alias_of(&e->aliases, flow) ? smos__alias_of(&e->aliases, flow) : &f->tuple;
    const uint8_t *src = to == SMOS_SERVER ? t->src : t->dst, *dst = to == SMOS_SERVER ? t->dst : t->src;
    uint32_t ip_bytes = t->version == 4 ? 20 : 40;
    uint8_t *ip = e->buffer + SMOS__EDIT_ROOM + link->length;
    *b = (building_t){.at = e->buffer + SMOS__EDIT_ROOM, .link = link->length};
    memcpy(b->at, link->header, link->length);
    memset(ip, 0, ip_bytes);
    if (t->version == 4) {
        ip[0] = 0x45;
        smos__put16(ip + 2, ip_bytes + l4_bytes);
        ip[6] = 0x40; /* do not fragment: no identification is needed (RFC 6864) */
        ip[8] = 64;
        ip[9] = t->proto;
        memcpy(ip + 12, src + 12, 4);
        memcpy(ip + 16, dst + 12, 4);
    } else {
        ip[0] = 0x60;
        smos__put16(ip + 4, l4_bytes);
        ip[6] = t->proto;
        ip[7] = 64;
        memcpy(ip + 8, src, 16);
        memcpy(ip + 24, dst, 16);
    }
    uint8_t *l4 = ip + ip_bytes;
    memset(l4, 0, l4_bytes);
    smos__put16(l4, to == SMOS_SERVER ? t->sport : t->dport);
    smos__put16(l4 + 2, to == SMOS_SERVER ? t->dport : t->sport);
    b->frame = (smos__frame_t){.data = b->at, .caplen = link->length + ip_bytes + l4_bytes, .len = link->length + ip_bytes + l4_bytes, .linktype = 1};
    b->layer = (smos__layer_t){.tuple = *t, .ip = ip, .l4 = l4, .ip_len = ip_bytes + l4_bytes};
    return s->port->ends == 2 ? !link->end : link->end;
}


static uint32_t options_of(const smos__endpoint_t *sender, const smos__endpoint_t *receiver, uint8_t flags, uint8_t *out)
{
    if (flags & SMOS__RST || !(sender->flags & receiver->flags & SMOS__EP_TIMESTAMPS)) return 0;
    out[0] = out[1] = 1; /* RFC 7323 appendix A */
    out[2] = 8;
    out[3] = 10;
    smos__put32(out + 4, sender->ts_recent);
    smos__put32(out + 8, receiver->ts_recent);
    return 12;
}


static uint32_t acknowledged(smos_shard_t *s, uint32_t flow, int side)
{
    const smos__endpoint_t *e = &s->arena.hot[flow].end[side];
    const smos__flow_edits_t *fe = s->edits.flow ? s->edits.flow[flow] : NULL;
    uint32_t ack = e->flags & SMOS__EP_BASE ? e->rcv_nxt + (e->flags & SMOS__EP_FIN_RECEIVED ? 1 : 0) : e->snd_nxt;
    return fe ? smos__splice_ack(&fe->by[side], ack) : ack;
}


static uint32_t next_window(const smos__endpoint_t *sender, const smos__endpoint_t *receiver)
{
    uint32_t window = sender->window;
    if (sender->flags & receiver->flags & SMOS__EP_WSCALE && sender->wscale < 15) window >>= sender->wscale;
    return window > UINT16_MAX ? UINT16_MAX : window;
}


/* A segment to `to`; `seq` as the receiver counts. */
static int send_segment(smos_shard_t *s, uint32_t flow, const smos_injection_t *in, uint32_t seq, uint32_t ack)
{
    const smos__flow_t *f = &s->arena.hot[flow];
    const smos__endpoint_t *sender = &f->end[!in->to], *receiver = &f->end[in->to];
    uint8_t options[12];
    uint32_t option_bytes = options_of(sender, receiver, in->tcp_flags, options);
    building_t b;
    int end = begin_packet(s, flow, in->to, 20 + option_bytes + in->length, &b);
    if (end < 0) return end;
    uint8_t *tcp = (uint8_t *)(uintptr_t)b.layer.l4;
    smos__put32(tcp + 4, seq);
    smos__put32(tcp + 8, in->tcp_flags & SMOS__ACK ? ack : 0);
    tcp[12] = (uint8_t)((20 + option_bytes) / 4 << 4);
    tcp[13] = in->tcp_flags;
    smos__put16(tcp + 14, in->window ? in->window : next_window(sender, receiver));
    smos__put16(tcp + 18, in->urgent);
    memcpy(tcp + 20, options, option_bytes);
    if (in->length) memcpy(tcp + 20 + option_bytes, in->payload, in->length);
    smos__rewrite_checksums(&b.frame, &b.layer);
    SMOS__COUNT(s, packets_injected);
    return send_out(s, end, b.at, b.frame.caplen, NULL);
}


/* Bytes of our own shift all that the apparent sender sends from now on. */
static int shift_stream(smos_shard_t *s, uint32_t flow, const smos_injection_t *in)
{
    smos__endpoint_t *sender = &s->arena.hot[flow].end[!in->to];
    smos__flow_edits_t *fe = smos__edits_of(s, flow);
    if (!fe) return -ENOSPC;
    int status = smos__edit_add(s, &fe->by[!in->to], sender->snd_nxt, 0, in->payload, in->length, false);
    if (status < 0) return status;
    if (sender->rcv_nxt == sender->snd_nxt) { /* nothing is missing: the stream goes on behind it */
        sender->rcv_nxt += in->length;
        sender->offset += in->length;
        s->arena.cold[flow].end[!in->to].skipped += in->length;
    }
    sender->snd_nxt += in->length;
    return 0;
}


static int inject_datagram(smos_shard_t *s, uint32_t flow, const smos_injection_t *in)
{
    building_t b;
    int end = begin_packet(s, flow, in->to, 8 + in->length, &b);
    if (end < 0) return end;
    smos__put16((uint8_t *)(uintptr_t)b.layer.l4 + 4, 8 + in->length);
    ((uint8_t *)(uintptr_t)b.layer.l4)[7] = 1; /* a checksum is wanted */
    if (in->length) memcpy((uint8_t *)(uintptr_t)b.layer.l4 + 8, in->payload, in->length);
    smos__rewrite_checksums(&b.frame, &b.layer);
    SMOS__COUNT(s, packets_injected);
    return send_out(s, end, b.at, b.frame.caplen, NULL);
}


int smos__inject(smos_shard_t *s, uint32_t flow, const smos_injection_t *in)
{
    const smos__flow_t *f = &s->arena.hot[flow];
    if (in->to > SMOS_SERVER || (in->length && !in->payload)) return -EINVAL;
    if (in->length > 1400) return -EMSGSIZE;
    if (!s->port || !s->port->send) {
        SMOS__COUNT(s, injections_without_port);
        return -ENOTSUP;
    }
    if (f->tuple.proto == 17) return inject_datagram(s, flow, in);
    if (f->tuple.proto != TCP) return -EOPNOTSUPP;
    uint32_t seq = in->set_seq ? in->seq : f->end[!in->to].snd_nxt, ack = in->set_seq ? in->ack : acknowledged(s, flow, in->to);
    if (in->length && !in->set_seq) {
        int status = shift_stream(s, flow, in);
        if (status < 0) return status;
    }
    return send_segment(s, flow, in, seq, ack);
}


void smos__send_resets(smos_shard_t *s, uint32_t flow)
{
    const smos__flow_t *f = &s->arena.hot[flow];
    if (!s->port || !s->port->send || f->tuple.proto != TCP) return;
    for (uint8_t to = 0; to < 2; to++) {
        const smos__endpoint_t *sender = &f->end[!to];
        smos_injection_t rst = {.to = to, .tcp_flags = SMOS__RST | SMOS__ACK, .set_seq = 1, .window = 1};
        uint32_t seq = sender->flags & SMOS__EP_BASE ? sender->rcv_nxt + (sender->flags & SMOS__EP_FIN_RECEIVED ? 1 : 0) : sender->snd_nxt;
        /* The packet under the hand is dropped with the flow: its receiver does not have it. */
        if (s->flow == flow && s->events.in_packet && s->layer->from == !to && s->layer->tuple.proto == TCP && s->layer->payload_len && smos__seq_lt(s->layer->seq, seq)) seq = s->layer->seq;
        send_segment(s, flow, &rst, seq, acknowledged(s, flow, to));
    }
}
