/* nat: source NAT and port forwarding for IPv4 (RFC 3022), connection by connection.
 *
 *     shardmos push nat --set inside=10.0.0.0/8 --set pool=192.0.2.8-192.0.2.15 --set forward=tcp/192.0.2.8:80/10.0.0.5:8080
 *
 * Beyond the box an inside host's connection goes by another name: an address of the pool and a port, or the identifier of an ICMP query. The name is one
 * whose answers come to this very worker (api->owner), so workers share nothing, and never choose the same one: whose a name is follows from the name. That
 * makes the mapping address- and port-dependent, and a port serves several destinations at once (RFC 4787 4.1; its REQ-1 and REQ-3 ask for more, which
 * workers that share nothing cannot give). An inside host keeps to one address of the pool as long as that has ports (REQ-2).
 *
 * A forwarded port is a rule, PROTOCOL/OUTSIDE/INSIDE: what comes to the outside address and port goes to the inside ones.
 *
 * The engine does the rest: answers find their flow by its other name, checksums follow each edit, fragments come put together and leave in fragments, and
 * an ICMP error comes with the flow that it is about. docs/middleboxes.md says how it is deployed, and what it leaves alone: IPv6, hairpins, and protocols
 * that carry addresses within (FTP, SIP).
 */
#include <shardmos/shardmos.h>

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { ICMP = 1, TCP = 6, UDP = 17 };
enum { MAX_RANGES = 64, MAX_RULES = 256, RULE_PLACES = 1024, MAX_ANOMALIES = 512 };
enum { TRIES = 512, ADDRESSES = 8 }; /* ports of an address, and addresses, that are looked at for one connection */

#define SECOND INT64_C(1000000000)
#define NONE UINT32_MAX

typedef struct range {
    uint32_t first, last; /* addresses, host order */
} range_t;

/* An end of a connection; for ICMP the identifier is the port. */
typedef struct name {
    uint32_t address;
    uint16_t port;
} name_t;

typedef struct rule {
    uint8_t proto;
    name_t outer, inner;
} rule_t;

/* A name in use, towards one peer; after its flow it rests for a while, lest the next one's packets be taken for the last one's. */
typedef struct mapping {
    uint32_t next;   /* of its bucket, or of the free ones */
    uint32_t rested; /* next of those that rest, which come in order of time */
    name_t outer, peer;
    uint8_t proto;
    int64_t until_ns; /* resting */
} mapping_t;

typedef struct nat {
    smos_engine_t *engine;
    const smos_api_t *api;
    uint32_t number; /* of this instance: flows of an older one are taken over */
    int worker;
    range_t inside[MAX_RANGES], pool[MAX_RANGES];
    int insides, pools;
    uint32_t addresses; /* in the pool */
    rule_t rules[MAX_RULES];
    int rule_count;
    uint16_t by_outer[RULE_PLACES], by_inner[RULE_PLACES]; /* number of the rule + 1, at its hash or behind it */
    uint16_t low, high; /* ports */
    int64_t rest_ns;
    uint64_t seed;
    bool on_link; /* inside hosts are on this link, not behind a gateway */
    mapping_t *mappings;
    uint32_t *buckets, mask, limit, fresh, free, rest_first, rest_last;
    int64_t told_ns; /* the pool is exhausted, in the log */
    bool damaged[MAX_ANOMALIES]; /* which anomalies say that a checksum is wrong */
    uint64_t *sources, *forwards, *out, *in, *errors, *mapped_now, *resting_now;
    uint64_t *drop_exhausted, *drop_full, *drop_stray, *drop_hairpin, *drop_unsupported, *drop_untranslatable, *drop_damaged;
} nat_t;

enum { UNDECIDED = 0, LEFT_ALONE, SOURCE, FORWARD };

/* What a flow keeps: who it is within (SOURCE: its client, FORWARD: its server), and the name that its tuple does not tell. */
typedef struct flow {
    uint8_t kind;
    uint32_t number;  /* of the instance that decided */
    uint32_t mapping; /* SOURCE */
    name_t name;      /* SOURCE: outer, FORWARD: inner */
    uint8_t link[6];  /* SOURCE, on_link: where its client was heard from */
} flow_t;


/* ---- bytes ---- */

static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}


static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}


/* RFC 1624 equation 3: the checksum at `sum` covers 16 bits that were `old` and are `new`. */
static void mend(uint8_t *sum, uint32_t old, uint32_t new)
{
    uint32_t v = (~be16(sum) & 0xffff) + (~old & 0xffff) + new;
    v = (v & 0xffff) + (v >> 16);
    put16(sum, ~(v + (v >> 16)) & 0xffff);
}


static void mend32(uint8_t *sum, uint32_t old, uint32_t new)
{
    mend(sum, old >> 16, new >> 16);
    mend(sum, old & 0xffff, new & 0xffff);
}


/* ---- names in use ---- */

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}


static uint64_t hash(const nat_t *n, uint8_t proto, name_t a, name_t b)
{
    uint64_t h = mix(n->seed ^ ((uint64_t)a.address << 32 | (uint64_t)a.port << 16 | b.port));
    return mix(h ^ ((uint64_t)b.address << 8 | proto));
}


static bool same(name_t a, name_t b) { return a.address == b.address && a.port == b.port; }


static bool has_rested(const mapping_t *m, int64_t now_ns) { return m->until_ns && m->until_ns <= now_ns; }


static bool in_use(const nat_t *n, uint8_t proto, name_t outer, name_t peer)
{
    int64_t now = n->api->now_ns(n->engine);
    for (uint32_t i = n->buckets[hash(n, proto, outer, peer) & n->mask]; i != NONE; i = n->mappings[i].next) {
        const mapping_t *m = &n->mappings[i];
        if (same(m->outer, outer) && same(m->peer, peer) && m->proto == proto && !has_rested(m, now)) return true;
    }
    return false;
}


/* NONE: there are as many as may be. */
static uint32_t map(nat_t *n, uint8_t proto, name_t outer, name_t peer)
{
    uint32_t i = n->free;
    if (i != NONE)
        n->free = n->mappings[i].next;
    else if (n->fresh < n->limit)
        i = n->fresh++;
    else
        return NONE;
    uint32_t *bucket = &n->buckets[hash(n, proto, outer, peer) & n->mask];
    n->mappings[i] = (mapping_t){.next = *bucket, .outer = outer, .peer = peer, .proto = proto};
    *bucket = i;
    ++*n->mapped_now;
    return i;
}


static void rest(nat_t *n, uint32_t i, int64_t now_ns)
{
    n->mappings[i].until_ns = now_ns + n->rest_ns;
    n->mappings[i].rested = NONE;
    *(n->rest_first == NONE ? &n->rest_first : &n->mappings[n->rest_last].rested) = i;
    n->rest_last = i;
    --*n->mapped_now;
    ++*n->resting_now;
}


/* Gives back a few that have rested: more than one connection can begin with, so they never pile up. */
static void give_back(nat_t *n, int64_t now_ns)
{
    for (int turn = 0; turn < 4 && n->rest_first != NONE && has_rested(&n->mappings[n->rest_first], now_ns); turn++) {
        uint32_t i = n->rest_first;
        mapping_t *m = &n->mappings[i];
        uint32_t *link = &n->buckets[hash(n, m->proto, m->outer, m->peer) & n->mask];
        while (*link != i) link = &n->mappings[*link].next;
        *link = m->next;
        n->rest_first = m->rested;
        m->next = n->free;
        n->free = i;
        --*n->resting_now;
    }
}


/* ---- choosing a name ---- */

static uint32_t address_at(const nat_t *n, uint32_t place)
{
    const range_t *r = n->pool;
    while (place > r->last - r->first) place -= r->last - r->first + 1, r++;
    return r->first + place;
}


static uint32_t place_of(const nat_t *n, uint8_t proto, name_t name) { return (uint32_t)hash(n, proto, name, (name_t){0, 0}) % RULE_PLACES; }


/* The rule for an outside name; for an inside one. */
static const rule_t *rule_of(const nat_t *n, uint8_t proto, name_t outer)
{
    for (uint32_t at = place_of(n, proto, outer); n->by_outer[at]; at = (at + 1) % RULE_PLACES) {
        const rule_t *r = &n->rules[n->by_outer[at] - 1];
        if (r->proto == proto && same(r->outer, outer)) return r;
    }
    return NULL;
}


static const rule_t *rule_for(const nat_t *n, uint8_t proto, name_t inner)
{
    for (uint32_t at = place_of(n, proto, inner); n->by_inner[at]; at = (at + 1) % RULE_PLACES) {
        const rule_t *r = &n->rules[n->by_inner[at] - 1];
        if (r->proto == proto && same(r->inner, inner)) return r;
    }
    return NULL;
}


static void add_rule(nat_t *n, const rule_t *rule)
{
    uint32_t outer = place_of(n, rule->proto, rule->outer), inner = place_of(n, rule->proto, rule->inner);
    while (n->by_outer[outer]) outer = (outer + 1) % RULE_PLACES;
    while (n->by_inner[inner]) inner = (inner + 1) % RULE_PLACES;
    n->rules[n->rule_count++] = *rule;
    n->by_outer[outer] = n->by_inner[inner] = (uint16_t)n->rule_count;
}


static smos_tuple_t tuple_of(uint8_t proto, name_t outer, name_t peer)
{
    smos_tuple_t t = {.src = {[10] = 0xff, [11] = 0xff}, .dst = {[10] = 0xff, [11] = 0xff}, .sport = outer.port, .dport = proto == ICMP ? outer.port : peer.port, .proto = proto, .version = 4};
    put32(t.src + 12, outer.address);
    put32(t.dst + 12, peer.address);
    return t;
}


/* Its answers come to this worker. */
static bool is_ours(const nat_t *n, uint8_t proto, name_t outer, name_t peer)
{
    smos_tuple_t t = tuple_of(proto, outer, peer);
    return n->api->owner(n->engine, &t) == n->worker;
}


/* From a place that nobody can guess (RFC 6056 3.3.3), the first port that is free and ours; first of the address that this host always gets. */
static bool choose(const nat_t *n, uint8_t proto, name_t inner, name_t peer, name_t *outer)
{
    uint32_t ports = n->high - n->low + 1u, tries = ports < TRIES ? ports : TRIES;
    uint32_t from = (uint32_t)(hash(n, proto, inner, peer) % ports), paired = (uint32_t)(mix(n->seed + inner.address) % n->addresses);
    for (uint32_t a = 0; a < ADDRESSES && a < n->addresses; a++) {
        outer->address = address_at(n, (paired + a) % n->addresses);
        for (uint32_t k = 0; k < tries; k++) {
            outer->port = (uint16_t)(n->low + (from + k) % ports);
            if (is_ours(n, proto, *outer, peer) && !in_use(n, proto, *outer, peer) && !rule_of(n, proto, *outer)) return true;
        }
    }
    return false;
}


/* ---- what is to be done with a flow ---- */

static bool within(const range_t *ranges, int count, uint32_t address)
{
    for (int i = 0; i < count; i++)
        if (address >= ranges[i].first && address <= ranges[i].last) return true;
    return false;
}


static bool has_identifier(uint8_t type) { return type == 0 || type == 8 || (type >= 13 && type <= 18); }


/* The next packet may ask again. */
static uint8_t refuse(const nat_t *n, uint64_t *why)
{
    ++*why;
    n->api->drop(n->engine);
    return UNDECIDED;
}


static name_t client_of(const smos_tuple_t *t) { return (name_t){be32(t->src + 12), t->sport}; }
static name_t server_of(const smos_tuple_t *t) { return (name_t){be32(t->dst + 12), t->dport}; }
static name_t peer_of(const smos_tuple_t *t) { return (name_t){be32(t->dst + 12), t->proto == ICMP ? 0 : t->dport}; }


/* By its addresses. UNDECIDED: it comes from elsewhere to an address of the pool. */
static uint8_t kind_of(const nat_t *n, const smos_call_t *call)
{
    uint32_t client = client_of(call->tuple).address, server = server_of(call->tuple).address;
    smos_flow_info_t info;
    if (call->existing || server >= 0xe0000000) return LEFT_ALONE; /* it goes by its own name already; multicast and broadcast */
    bool tunnelled = !n->api->flow_info(n->engine, call->flow, &info) && info.tunnel && info.tunnel != SMOS_TUNNEL_PPPOE && info.tunnel != SMOS_TUNNEL_MPLS;
    if (tunnelled) return LEFT_ALONE; /* the tunnel's own flow is what passes here */
    if (rule_of(n, call->tuple->proto, server_of(call->tuple))) return FORWARD;
    if (within(n->pool, n->pools, call->packet->from == SMOS_CLIENT ? server : client)) return UNDECIDED;
    return within(n->inside, n->insides, client) && !within(n->inside, n->insides, server) ? SOURCE : LEFT_ALONE;
}


/* The connection of an inside host gets its name. */
static uint8_t map_source(nat_t *n, const smos_call_t *call, flow_t *f)
{
    uint8_t proto = call->tuple->proto;
    name_t peer = peer_of(call->tuple);
    if (proto == ICMP ? !has_identifier(call->packet->l4[0]) : proto != TCP && proto != UDP) return refuse(n, n->drop_unsupported);
    give_back(n, call->time_ns);
    if (!choose(n, proto, client_of(call->tuple), peer, &f->name)) {
        if (call->time_ns - n->told_ns > 10 * SECOND) {
            n->api->log(n->engine, SMOS_LOG_WARNING, "no free port in the pool: give it more addresses (pool) or ports (ports)");
            n->told_ns = call->time_ns;
        }
        return refuse(n, n->drop_exhausted);
    }
    f->mapping = map(n, proto, f->name, peer);
    if (f->mapping == NONE) return refuse(n, n->drop_full);
    ++*n->sources;
    return SOURCE;
}


static uint8_t decide(nat_t *n, const smos_call_t *call, flow_t *f)
{
    uint8_t kind = kind_of(n, call);
    f->number = n->number;
    if (kind == SOURCE) return map_source(n, call, f);
    if (kind == UNDECIDED) return refuse(n, n->drop_stray);
    if (kind == FORWARD) {
        if (within(n->inside, n->insides, client_of(call->tuple).address)) return refuse(n, n->drop_hairpin);
        f->name = rule_of(n, call->tuple->proto, server_of(call->tuple))->inner;
        ++*n->forwards;
    }
    return kind;
}


/* An older instance of this module decided: its names are ours from here on, but for one that a newer connection got meanwhile. */
static void take_over(nat_t *n, const smos_call_t *call, flow_t *f)
{
    f->number = n->number;
    if (f->kind != SOURCE) return;
    f->mapping = in_use(n, call->tuple->proto, f->name, peer_of(call->tuple)) ? NONE : map(n, call->tuple->proto, f->name, peer_of(call->tuple));
    if (f->mapping == NONE) f->kind = refuse(n, n->drop_full);
}


/* ---- packets ---- */

/* The first bytes of a packet, from its addresses on, as they are to become. */
typedef struct header {
    uint8_t bytes[192];
    uint32_t length, l4; /* where the transport header begins */
} header_t;

enum { SRC = 12, DST = 16 }; /* in the IPv4 header */

static header_t header_of(const smos_packet_t *p, uint32_t l4_bytes)
{
    header_t h = {.l4 = (uint32_t)(p->l4 - p->ip) - SRC};
    h.length = h.l4 + l4_bytes;
    memcpy(h.bytes, p->ip + SRC, h.length);
    return h;
}


static void write_back(const nat_t *n, const header_t *h, uint64_t *counted)
{
    if (n->api->overwrite(n->engine, SMOS_FROM_IP, SRC, h->bytes, h->length) < 0)
        refuse(n, n->drop_untranslatable);
    else
        ++*counted;
}


/* With Ethernet before IPv4, and up to two tags. */
static bool is_ethernet(const smos_packet_t *p)
{
    ptrdiff_t link = p->ip - p->frame;
    return (link == 14 || link == 18 || link == 22) && be16(p->ip - 2) == 0x0800;
}


/* Who answered ARP for the pool need not be the host that the packet is for. */
static void address_link(const nat_t *n, const smos_packet_t *p, const flow_t *f)
{
    static const uint8_t none[6];
    if (f->kind == SOURCE && is_ethernet(p) && memcmp(f->link, none, sizeof none)) n->api->overwrite(n->engine, SMOS_FROM_FRAME, 0, f->link, sizeof f->link);
}


/* Where the port is in the transport header. */
static uint32_t port_at(uint8_t proto, int end) { return proto == ICMP ? 4 : end == SRC ? 0 : 2; }


static name_t inner_of(const flow_t *f, const smos_tuple_t *t) { return f->kind == SOURCE ? client_of(t) : f->name; }
static name_t outer_of(const flow_t *f, const smos_tuple_t *t) { return f->kind == SOURCE ? f->name : server_of(t); }


static void on_packet(void *self, const smos_call_t *call)
{
    nat_t *n = self;
    flow_t *f = call->state;
    const smos_packet_t *p = call->packet;
    if (f->kind == UNDECIDED) f->kind = decide(n, call, f);
    if (f->number != n->number) take_over(n, call, f);
    if (f->kind != SOURCE && f->kind != FORWARD) return;
    if (n->on_link && p->from == SMOS_CLIENT && is_ethernet(p)) memcpy(f->link, p->frame + 6, sizeof f->link);
    bool leaves = p->from == (f->kind == SOURCE ? SMOS_CLIENT : SMOS_SERVER);
    name_t inner = inner_of(f, call->tuple), outer = outer_of(f, call->tuple), was = leaves ? inner : outer, to = leaves ? outer : inner;
    int end = leaves ? SRC : DST;
    if (be32(p->ip + end) != was.address) return; /* said to its inside name: the routes beyond seem to know that */
    if (p->ip + p->ip_len < p->l4 + 8) {
        refuse(n, n->drop_untranslatable);
        return;
    }
    header_t h = header_of(p, 6);
    put32(h.bytes + end - SRC, to.address);
    put16(h.bytes + h.l4 + port_at(call->tuple->proto, end), to.port);
    write_back(n, &h, leaves ? n->out : n->in);
    if (n->on_link && !leaves) address_link(n, p, f);
}


/* The packet that an ICMP error quotes, from its IP header on: the name, and the sums as far as they are quoted. The transport's sum may be cut off. */
static void translate_quote(uint8_t *ip, uint32_t length, int end, name_t to)
{
    uint8_t proto = ip[9], *l4 = ip + (ip[0] & 15) * 4, *port = l4 + port_at(proto, end);
    uint32_t sum_at = proto == TCP ? 16 : proto == UDP ? 6 : 2, address = be32(ip + end), old = be16(port);
    bool sum = l4 + sum_at + 2 <= ip + length && !(proto == UDP && !be16(l4 + sum_at)); /* RFC 768: sent without */
    put32(ip + end, to.address);
    put16(port, to.port);
    mend32(ip + 10, address, to.address);
    if (sum && proto != ICMP) mend32(l4 + sum_at, address, to.address);
    if (sum) mend(l4 + sum_at, old, to.port);
}


/* An ICMP error about the flow: to the end within, or from there (RFC 5508 4). Who sent it keeps its address unless that is an inside one. */
static void on_error(nat_t *n, const smos_call_t *call, const flow_t *f)
{
    bool leaves = call->packet->from == (f->kind == SOURCE ? SMOS_CLIENT : SMOS_SERVER);
    name_t inner = inner_of(f, call->tuple), outer = outer_of(f, call->tuple), was = leaves ? inner : outer, to = leaves ? outer : inner;
    int end = leaves ? DST : SRC; /* of the quoted packet */
    uint32_t quoted = call->packet->payload_captured, header = quoted < 20 ? 0 : (call->packet->payload[0] & 15) * 4u;
    if (header < 20 || quoted < header + 8 || be32(call->packet->payload + end) != was.address) return; /* the last: as in on_packet() */
    if (quoted > header + 20) quoted = header + 20; /* as far as a sum lies */
    header_t h = header_of(call->packet, 8 + quoted);
    uint8_t *address = h.bytes + (leaves ? 0 : 4), *quote = h.bytes + h.l4 + 8;
    if (!leaves || within(n->inside, n->insides, be32(address)) || be32(address) == inner.address) put32(address, to.address);
    translate_quote(quote, quoted, end, to);
    write_back(n, &h, n->errors);
    if (n->on_link && !leaves) address_link(n, call->packet, f);
}


/* From hosts that ports are forwarded to, or ICMP errors about them; where there are several workers. Which of them an answer comes to is not ours to choose, for
 * both of its names are given: it goes to where the connection is, under its outer name. */
static void on_answer(void *self, const smos_call_t *call)
{
    nat_t *n = self;
    const smos_tuple_t *t = call->tuple;
    const smos_packet_t *p = call->packet;
    uint8_t proto = t->proto;
    name_t inner = {be32(t->src + 12), t->sport}, peer = {be32(t->dst + 12), t->dport};
    if (proto == ICMP && p->l4 && !has_identifier(p->l4[0]) && p->payload_captured >= 20 && p->payload_captured >= (p->payload[0] & 15) * 4u + 8) {
        const uint8_t *quoted = p->payload, *ports = quoted + (quoted[0] & 15) * 4;
        proto = quoted[9];
        peer = (name_t){be32(quoted + SRC), (uint16_t)be16(ports)};
        inner = (name_t){be32(quoted + DST), (uint16_t)be16(ports + 2)};
    }
    const rule_t *rule = rule_for(n, proto, inner);
    if (!rule) return;
    smos_tuple_t outer = tuple_of(proto, rule->outer, peer);
    n->api->redirect(n->engine, &outer);
}


static void on_anomaly(void *self, const smos_call_t *call)
{
    nat_t *n = self;
    const flow_t *f = call->state;
    const smos_packet_t *p = call->packet;
    if (!p) return;
    if (call->detail < MAX_ANOMALIES && n->damaged[call->detail]) {
        /* The engine does not show it to on_packet(): it would pass under its inside name. */
        if ((f->kind == UNDECIDED ? kind_of(n, call) : f->kind) != LEFT_ALONE) refuse(n, n->drop_damaged);
    } else if (p->ip[9] == ICMP && (f->kind == SOURCE || f->kind == FORWARD) && p->l4 && !has_identifier(p->l4[0])) {
        on_error(n, call, f);
    }
}


static void on_end(void *self, const smos_call_t *call)
{
    nat_t *n = self;
    flow_t *f = call->state;
    if (f->kind == SOURCE && f->number == n->number) rest(n, f->mapping, call->time_ns);
    f->kind = LEFT_ALONE;
}


/* ---- parameters ---- */

typedef struct reader {
    const char *at, *what, *form;
    char *error;
    size_t size;
} reader_t;

static int wrong(const reader_t *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int wrong(const reader_t *r, const char *format, ...)
{
    char why[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    snprintf(r->error, r->size, "%s: %s; give it as in %s", r->what, why, r->form);
    return -EINVAL;
}


static bool read_number(reader_t *r, uint32_t most, uint32_t *out)
{
    uint32_t v = 0;
    int digits = 0;
    for (; *r->at >= '0' && *r->at <= '9'; r->at++) {
        v = v * 10 + (uint32_t)(*r->at - '0');
        if (++digits > 5 || v > most) return false;
    }
    *out = v;
    return digits > 0;
}


static bool read_char(reader_t *r, char c) { return *r->at == c ? r->at++, true : false; }


static bool read_address(reader_t *r, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t byte;
        if ((i && !read_char(r, '.')) || !read_number(r, 255, &byte)) return false;
        *out = *out << 8 | byte;
    }
    return true;
}


static bool read_name(reader_t *r, name_t *out)
{
    uint32_t port;
    if (!read_address(r, &out->address) || !read_char(r, ':') || !read_number(r, 65535, &port) || !port) return false;
    out->port = (uint16_t)port;
    return true;
}


/* A list of addresses, ranges and prefixes that do not overlap. Returns their number. */
static int read_ranges(reader_t *r, range_t *out)
{
    for (int count = 0; count < MAX_RANGES;) {
        const char *item = r->at;
        int length = (int)strcspn(item, ",");
        uint32_t bits, host;
        range_t *a = &out[count];
        bool good = read_address(r, &a->first);
        a->last = a->first;
        if (good && read_char(r, '/')) {
            good = read_number(r, 32, &bits);
            host = good && bits ? UINT32_MAX >> (bits - 1) >> 1 : UINT32_MAX;
            if (good && a->first & host) return wrong(r, "%.*s has bits beyond its length", length, item);
            a->last |= host;
        } else if (good && read_char(r, '-')) {
            good = read_address(r, &a->last) && a->last >= a->first;
        }
        if (!good || (*r->at && *r->at != ',')) return wrong(r, "\"%.*s\" is no address, range or prefix", length, item);
        for (int i = 0; i < count; i++)
            if (a->first <= out[i].last && a->last >= out[i].first) return wrong(r, "%.*s overlaps what stands before it", length, item);
        count++;
        if (!read_char(r, ',')) return count;
    }
    return wrong(r, "more than %d of them", MAX_RANGES);
}


static int read_rules(reader_t *r, nat_t *n)
{
    while (*r->at) {
        const char *item = r->at;
        int length = (int)strcspn(item, ",");
        rule_t rule = {.proto = !strncmp(item, "tcp/", 4) ? TCP : !strncmp(item, "udp/", 4) ? UDP : 0};
        r->at += rule.proto ? 4 : 0;
        bool good = rule.proto && read_name(r, &rule.outer) && read_char(r, '/') && read_name(r, &rule.inner) && (!*r->at || *r->at == ',');
        if (!good) return wrong(r, "\"%.*s\" is no rule", length, item);
        if (rule_of(n, rule.proto, rule.outer)) return wrong(r, "%.*s: that outside port is forwarded already", length, item);
        if (rule_for(n, rule.proto, rule.inner)) return wrong(r, "%.*s: that inside port has a rule already", length, item);
        if (n->rule_count == MAX_RULES) return wrong(r, "more than %d of them", MAX_RULES);
        add_rule(n, &rule);
        read_char(r, ',');
    }
    return 0;
}


static int read_ports(reader_t *r, nat_t *n)
{
    uint32_t low, high;
    bool good = read_number(r, 65535, &low) && read_char(r, '-') && read_number(r, 65535, &high) && !*r->at && low && low <= high;
    if (!good) return wrong(r, "no range of ports");
    n->low = (uint16_t)low;
    n->high = (uint16_t)high;
    return 0;
}


static int read_parameters(nat_t *n, char *error, size_t size)
{
    const char *(*param)(smos_engine_t *, void *, const char *) = n->api->param;
#define READER(name, as) (reader_t){param(n->engine, n, name), name, as, error, size}
    reader_t pool = READER("pool", "192.0.2.1,192.0.2.8-192.0.2.15,198.51.100.0/28"), inside = READER("inside", "10.0.0.0/8,192.168.1.0/24");
    reader_t forward = READER("forward", "tcp/192.0.2.1:80/10.0.0.5:8080,udp/192.0.2.1:53/10.0.0.6:53"), ports = READER("ports", "1024-65535");
    reader_t seconds = READER("rest", "120"), limit = READER("mappings", "262144");
    if (!*pool.at) return wrong(&pool, "which addresses inside hosts get beyond the box is not said");
    if ((n->pools = read_ranges(&pool, n->pool)) < 0 || (n->insides = read_ranges(&inside, n->inside)) < 0) return -EINVAL;
    if (read_rules(&forward, n) < 0 || read_ports(&ports, n) < 0) return -EINVAL;
    for (int i = 0; i < n->pools; i++) {
        n->addresses += n->pool[i].last - n->pool[i].first + 1;
        if (n->pool[i].last - n->pool[i].first > 65535) return wrong(&pool, "more than 65,536 addresses");
    }
    long long rest_seconds = strtoll(seconds.at, NULL, 0), mappings = strtoll(limit.at, NULL, 0);
    if (rest_seconds < 0 || rest_seconds > 86400) return wrong(&seconds, "0 to 86,400 seconds");
    if (mappings < 1 || mappings > 1 << 26) return wrong(&limit, "1 to 67,108,864");
    n->rest_ns = rest_seconds * SECOND;
    n->limit = (uint32_t)mappings;
    const char *on_link = param(n->engine, n, "on_link");
    n->on_link = *on_link == 't' || *on_link == '1';
    return 0;
}


/* ---- life ---- */

static void fini(void *self)
{
    nat_t *n = self;
    free(n->mappings);
    free(n->buckets);
    free(n);
}


static int count_all(nat_t *n)
{
    struct {
        uint64_t **counter;
        const char *name;
    } all[] = {
        {&n->sources, "connections"}, {&n->forwards, "forwarded"}, {&n->out, "packets_out"}, {&n->in, "packets_in"}, {&n->errors, "icmp_errors"},
        {&n->mapped_now, "mappings_now"}, {&n->resting_now, "resting_now"}, {&n->drop_exhausted, "drop_exhausted"}, {&n->drop_full, "drop_full"},
        {&n->drop_stray, "drop_stray"}, {&n->drop_hairpin, "drop_hairpin"}, {&n->drop_unsupported, "drop_unsupported"}, {&n->drop_untranslatable, "drop_untranslatable"},
        {&n->drop_damaged, "drop_bad_checksum"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!(*all[i].counter = n->api->counter(n->engine, all[i].name))) return -ENOMEM;
    return 0;
}


/* A raw socket, which sees packets before they are of any flow, for the hosts that ports are forwarded to. */
static int watch_answers(nat_t *n)
{
    static const char each[] = " or (src host 255.255.255.255 and src port 65535)";
    uint32_t workers;
    smos_sock_t raw;
    n->api->worker(n->engine, &workers);
    if (workers == 1 || !n->rule_count) return 0;
    char *filter = malloc(32 + (size_t)n->rule_count * sizeof each), *at = filter;
    if (!filter) return -ENOMEM;
    at += sprintf(at, "icmp");
    for (const rule_t *r = n->rules; r < n->rules + n->rule_count; r++) {
        const uint32_t a = r->inner.address;
        at += sprintf(at, " or (src host %u.%u.%u.%u and src port %u)", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, r->inner.port);
    }
    int status = n->api->socket(n->engine, SMOS_RAW, &raw);
    if (!status) status = n->api->bind(n->engine, raw, filter, "");
    if (!status) status = n->api->register_handler(n->engine, raw, 0, SMOS_PKT_IN, SMOS_NO_HOOK, SMOS_BOTH, on_answer, NULL);
    free(filter);
    return status;
}


static int init(smos_engine_t *engine, const smos_api_t *api, void **self, char *error, size_t error_size)
{
    nat_t *n = calloc(1, sizeof *n);
    if (!n) return snprintf(error, error_size, "out of memory"), -ENOMEM;
    n->engine = engine;
    n->api = api;
    n->worker = api->worker(engine, NULL);
    n->free = n->rest_first = n->rest_last = NONE;
    uint64_t random[2] = {0};
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != sizeof random) random[0] = random[1] = (uint64_t)(uintptr_t)n;
    n->number = (uint32_t)random[0] | 1;
    n->seed = strtoull(api->param(engine, n, "seed"), NULL, 0);
    if (!n->seed) n->seed = random[1];
    int status = read_parameters(n, error, error_size);
    if (!status) {
        while (n->mask < n->limit && n->mask < (1u << 26) - 1) n->mask = n->mask * 2 + 1;
        n->buckets = malloc(((size_t)n->mask + 1) * sizeof *n->buckets);
        n->mappings = calloc(n->limit, sizeof *n->mappings); /* touched as they are used */
        status = n->buckets && n->mappings && !count_all(n) ? 0 : -ENOMEM;
        if (status) snprintf(error, error_size, "mappings: no memory for %u of them", n->limit);
    }
    if (status) return fini(n), status;
    memset(n->buckets, 0xff, ((size_t)n->mask + 1) * sizeof *n->buckets);
    for (uint32_t i = 0; i < MAX_ANOMALIES; i++) n->damaged[i] = strstr(api->anomaly_name(i), "bad_checksum") != NULL;
    *self = n;
    if ((status = watch_answers(n)) < 0) return snprintf(error, error_size, "forward: %s", api->last_error(engine)), fini(n), status;
    return api->set_option(engine, 0, 0, SMOS_BOTH, SMOS_OPT_DATAGRAMS, 1);
}


static const smos_param_t params[] = {
    {"pool", "str", "", "addresses that inside hosts get beyond the box, as in 192.0.2.1,192.0.2.8-192.0.2.15,198.51.100.0/28"},
    {"inside", "str", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16", "whose connections to elsewhere are translated"},
    {"ports", "str", "1024-65535", "ports of the pool's addresses that are used"},
    {"forward", "str", "", "ports that are forwarded, as in tcp/192.0.2.1:80/10.0.0.5:8080"},
    {"on_link", "bool", "false", "true: inside hosts are on the box's own link; answers get the link-layer address that their host was heard from"},
    {"rest", "int", "120", "seconds from the end of a connection until its port may serve another one to the same peer"},
    {"mappings", "int", "262144", "most connections under translation in a worker, those that rest included"},
    {"seed", "int", "0", "of the choice of ports, for tests; 0: random"},
    {NULL, NULL, NULL, NULL},
};

static const smos_registration_t registrations[] = {
    {.event = SMOS_PKT_IN, .hook = SMOS_SENDER, .side = SMOS_BOTH, .handler = on_packet},
    {.event = SMOS_ANOMALY, .side = SMOS_BOTH, .handler = on_anomaly},
    {.event = SMOS_CONN_END, .side = SMOS_CLIENT, .handler = on_end},
    {.event = SMOS_EVENT_COUNT},
};

SMOS_MODULE = {
    SMOS_MODULE_HEADER,
    .name = "nat",
    .filter = "ip",
    .state_size = sizeof(flow_t),
    .layout = 1,
    .fail_closed = 1,
    .params = params,
    .registrations = registrations,
    .init = init,
    .fini = fini,
};
