/* The current packet edited, packets of our own, and whose flows are whose, as modules call it. */
#include <errno.h>
#include <string.h>

#include "edit/rewrite.h"
#include "shard/api.h"

enum { TCP = 6, UDP = 17 };


static smos__layer_t *layer_of(const smos__caller_t *c) { return c->shard->layer; }


/* The packet under the hand, ready to be changed. */
static int begin(smos__caller_t *c, smos_engine_t *engine)
{
    int status = smos__caller(c, engine);
    if (status) return status;
    if (c->preparing) return -EPERM;
    return smos__edit_begin(c->shard);
}


/* The handlers' view of the packet follows. */
static void show(smos_shard_t *s)
{
    smos__show_frame(s);
}


/* What the receiver is to get instead, for as long as the sender may send those bytes again. */
static int remember(smos__caller_t *c, uint32_t offset, uint32_t removed, const void *data, uint32_t added)
{
    smos_shard_t *s = c->shard;
    const smos__layer_t *l = layer_of(c);
    if (l->tuple.proto != TCP) return 0;
    smos__flow_edits_t *fe = smos__edits_of(s, s->flow);
    if (!fe) return -ENOSPC;
    return smos__edit_add(s, &fe->by[s->layer->from], l->seq + offset, removed, data, added, offset + removed == l->payload_len && !removed);
}


/* Were the bytes from `offset` of the payload on sent before? Then their edit was made when they first came, and is made again by itself. */
static bool sent_before(const smos__caller_t *c, uint32_t offset)
{
    const smos__layer_t *l = layer_of(c);
    uint32_t before = c->shard->sent_before;
    if (l->tuple.proto != TCP) return false;
    return smos__seq_leq(l->seq + l->payload_len, before) || smos__seq_lt(l->seq + offset, before);
}


/* The bytes that can be overwritten from there on. */
static uint8_t *base_of(const smos__caller_t *c, int from, uint32_t *length)
{
    const smos__layer_t *l = layer_of(c);
    const smos__frame_t *f = &c->shard->edits.frame;
    const uint8_t *at = from == SMOS_FROM_FRAME ? f->data : from == SMOS_FROM_IP ? l->ip : from == SMOS_FROM_L4 ? l->l4 : from == SMOS_FROM_PAYLOAD ? l->payload : NULL;
    *length = at ? f->caplen - (uint32_t)(at - f->data) : 0;
    return (uint8_t *)(uintptr_t)at;
}


/* After headers were changed: what they say now. -EINVAL: nothing that could be sent. */
static int read_again(smos__caller_t *c)
{
    smos_shard_t *s = c->shard;
    smos__layer_t *l = layer_of(c);
    smos__decoded_t d;
    smos__frame_t f = s->edits.frame;
    f.flags |= SMOS__FRAME_NO_CHECKSUM;
    smos__decode(&f, NULL, &d);
    if (d.result != SMOS__WIRE_OK || d.layers != 1 || d.layer[0].tuple.proto != l->tuple.proto || d.layer[0].tuple.version != l->tuple.version) return -EINVAL;
    if (d.layer[0].ip != l->ip || d.layer[0].l4 != l->l4 || d.layer[0].payload_len != l->payload_len || d.layer[0].ip_len != l->ip_len) return -EINVAL;
    uint32_t flags = l->flags;
    const uint8_t from = l->from;
    *l = d.layer[0];
    l->from = from;
    l->flags = (l->flags & ~(uint32_t)SMOS__UNCHECKED) | (flags & SMOS__UNCHECKED);
    if (s->config.key == 0) l->tuple.vlan = 0, l->tuple.tunnel = 0;
    return 0;
}


int smos__api_overwrite(smos_engine_t *engine, int from, uint32_t offset, const void *data, uint32_t length)
{
    smos__caller_t c;
    uint32_t room;
    int status = begin(&c, engine);
    if (!status && !data && length) status = -EINVAL;
    uint8_t *base = status ? NULL : base_of(&c, from, &room);
    if (!status && (!base || offset > room || length > room - offset)) status = -EINVAL;
    if (status || !length) return smos__failed(&c, "overwrite", status);
    smos__layer_t *l = layer_of(&c);
    uint8_t *at = base + offset, before[256];
    uint32_t headers = (uint32_t)((l->payload ? l->payload : l->ip + l->ip_len) - c.shard->edits.frame.data), start = (uint32_t)(at - c.shard->edits.frame.data);
    uint32_t in_headers = start >= headers ? 0 : headers - start < length ? headers - start : length;
    if (in_headers > sizeof before) return smos__failed(&c, "overwrite", -EMSGSIZE);
    memcpy(before, at, in_headers);
    memcpy(at, data, in_headers);
    if (in_headers && read_again(&c) < 0) {
        memcpy(at, before, in_headers);
        return smos__failed(&c, "overwrite", -EINVAL);
    }
    if (length > in_headers && l->payload) {
        uint32_t place = (uint32_t)(at + in_headers - l->payload), n = length - in_headers;
        if (n > l->payload_len - place) n = l->payload_len - place; /* the rest is padding */
        if (sent_before(&c, place)) n = 0;
        status = n ? remember(&c, place, n, (const uint8_t *)data + in_headers, n) : 0;
        if (status) return smos__failed(&c, "overwrite", status);
        memcpy(at + in_headers, (const uint8_t *)data + in_headers, n);
    }
    bool headers_only = length == in_headers;
    if (!headers_only || !smos__rewrite_mend(&c.shard->edits.frame, l, at, before, length)) smos__rewrite_checksums(&c.shard->edits.frame, l);
    show(c.shard);
    return 0;
}


/* Sequence numbers that this packet moved already, when its sender's endpoint was updated. */
static void sender_sent(smos_shard_t *s, const smos__layer_t *l, uint32_t old_end, uint32_t by)
{
    smos__endpoint_t *e = &s->arena.hot[s->flow].end[s->layer->from];
    if (l->tcp_flags & SMOS__FIN) {
        smos__endpoint_cold_t *cold = &s->arena.cold[s->flow].end[s->layer->from];
        if (e->flags & SMOS__EP_FIN && cold->fin_seq == old_end) cold->fin_seq += by;
        old_end++;
    }
    if (e->snd_nxt == old_end) e->snd_nxt += by;
}


static int change_payload(smos__caller_t *c, const char *what, uint32_t offset, uint32_t removed, const void *data, uint32_t added)
{
    smos_shard_t *s = c->shard;
    smos__layer_t *l = layer_of(c);
    bool tcp = l->tuple.proto == TCP;
    if (s->events.call.hook != SMOS_SENDER) return smos__failed(c, what, -EPERM);
    if ((!tcp && l->tuple.proto != UDP) || (tcp && (l->tcp_flags & SMOS__SYN || !l->payload_len))) return smos__failed(c, what, -EOPNOTSUPP);
    if (offset > l->payload_len || removed > l->payload_len - offset) return smos__failed(c, what, -EINVAL);
    if (l->ip_len - removed + added > UINT16_MAX) return smos__failed(c, what, -EMSGSIZE);
    if (sent_before(c, offset)) return 0;
    uint32_t end = l->seq + l->payload_len;
    int status = remember(c, offset, removed, data, added);
    if (!status) status = smos__rewrite_payload(&s->edits.frame, l, SMOS__EDIT_ROOM, offset, removed, data, added);
    if (status) return smos__failed(c, what, status);
    smos__rewrite_checksums(&s->edits.frame, l);
    if (tcp) sender_sent(s, l, end, added - removed);
    show(s);
    return 0;
}


int smos__api_insert(smos_engine_t *engine, uint32_t offset, const void *data, uint32_t length)
{
    smos__caller_t c;
    int status = begin(&c, engine);
    if (!status && !data && length) status = -EINVAL;
    if (!status && length > SMOS__SPLICE_TEXT) status = -EMSGSIZE;
    if (status || !length) return smos__failed(&c, "insert", status);
    return change_payload(&c, "insert", offset, 0, data, length);
}


int smos__api_remove(smos_engine_t *engine, uint32_t offset, uint32_t length)
{
    smos__caller_t c;
    int status = begin(&c, engine);
    if (status || !length) return smos__failed(&c, "remove", status);
    return change_payload(&c, "remove", offset, length, NULL, 0);
}


int smos__api_inject(smos_engine_t *engine, smos_flow_t flow, const smos_injection_t *what)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status && !what) status = -EINVAL;
    if (!status && c.preparing) status = -EPERM;
    uint32_t i = status ? SMOS__NO_FLOW : smos__flow_find(&c.shard->arena, flow);
    if (!status && (i == SMOS__NO_FLOW || c.shard->arena.hot[i].flags & SMOS__FLOW_ENDED)) status = -ESTALE;
    if (!status) status = smos__inject(c.shard, i, what);
    return smos__failed(&c, "inject", status);
}


int smos__api_owner(smos_engine_t *engine, const smos_tuple_t *tuple)
{
    if (!engine || !tuple) return -EINVAL;
    const smos_config_t *config = &((smos_shard_t *)engine)->config;
    return (int)smos__owner(smos__owner_hash(tuple, config->owner_seed), config->workers);
}


int smos__api_worker(smos_engine_t *engine, uint32_t *workers)
{
    if (!engine) return -EINVAL;
    const smos_config_t *config = &((smos_shard_t *)engine)->config;
    if (workers) *workers = config->workers;
    return (int)config->worker;
}


int smos__api_redirect(smos_engine_t *engine, const smos_tuple_t *tuple)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status && !tuple) status = -EINVAL;
    if (!status && (c.preparing || !c.shard->events.in_packet || c.shard->flow != SMOS__NO_FLOW || !c.shard->in_raw)) status = -EPERM;
    if (!status && !c.shard->handover) status = c.shard->config.workers == 1 ? 0 : -ENOTSUP;
    else if (!status && smos__api_owner(engine, tuple) != (int)c.shard->config.worker) c.shard->redirect = *tuple, c.shard->redirected = true;
    return smos__failed(&c, "redirect", status);
}
