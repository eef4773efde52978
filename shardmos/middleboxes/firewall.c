/* firewall: a stateful packet filter.
 *
 *   shardmos push firewall --set rules=@rules.txt --set default=drop
 *
 * Each flow is judged once, by the first rule that fits, and its packets of both directions share the verdict; so answers need no rule of their
 * own. New rules are a new push: they are read beside the packet loops, refused as a whole with the line that is wrong, take effect with the
 * next packet of every flow, those that are under way included, and can be rolled back. One rule a line (or between semicolons), # begins a comment:
 *
 *   ACTION [PROTOCOL] [from ADDRESSES [port PORTS]] [to ADDRESSES [port PORTS]] [either] [new | midstream]
 *
 *   pass tcp from 10.0.0.0/8 to any port 80,443      # flows that those clients begin
 *   reset tcp to 192.0.2.7 port 22 new               # both ends get a RST, so that the client need not wait
 *   pass icmp
 *   drop udp from any port 0-1023 to 2001:db8::/32
 *   pass tcp from 10.0.0.5 to 10.0.0.6 either        # whichever of the two begins
 *   drop tcp midstream                               # connections whose beginning was not seen
 *
 * ACTION is pass, drop, or reset (TCP; others are dropped). PROTOCOL is tcp, udp, icmp (of IPv4 and IPv6), any, or a number. ADDRESSES and PORTS are
 * lists with commas and no spaces, of addresses and prefixes, of ports and ranges; `any` is every address. What fits no rule is up to the parameter
 * `default`. ICMP errors pass if the packet that they quote, or its answer, may. Fragments wait for each other and are judged as the datagram that they
 * make. What comes in a tunnel must pass twice: the packet inside, and the one around it. Frames that are not IP are the port's business (port.refuse
 * in shardmos.toml).
 *
 * Rules are found by tuple space search (Srinivasan, Suri, Varghese: "Packet classification using tuple space search", SIGCOMM 1999): those that
 * look at the same bits of a flow's key share a mask, and one look into a hash table answers for all of them. Its cost grows with the number of
 * masks, not of rules, and is paid once a flow.
 */
#include <shardmos/shardmos.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RULES 65535
#define MAX_ENTRIES (1u << 20) /* a rule has one for each pair of addresses and port prefixes */
#define MAX_LIST 256           /* addresses, or port prefixes, of one end of a rule */
#define COUNTED 24             /* rules with a counter in the statistics; all are in the event "hits" */
#define NO_RULE UINT32_MAX

enum { ICMP4 = 1, TCP = 6, UDP = 17, ICMP6 = 58, SCTP = 132, UDPLITE = 136 };
typedef enum action { PASS, DROP, RESET } action_t;
static const char *const ACTIONS[] = {"pass", "drop", "reset"};

/* ---- facts: what rules look at, and the masks that say at which bits ---- */

typedef struct facts {
    uint8_t src[16], dst[16]; /* of who began the flow, and of whom it was begun with; IPv4 mapped */
    uint16_t sport, dport;
    uint8_t proto;
    uint8_t version;   /* 4 or 6: ::/0 is every address of IPv6, and none of IPv4 */
    uint8_t midstream; /* 1: its beginning was not seen */
    uint8_t zero;
} facts_t;

#define WORDS (sizeof(facts_t) / 8)
_Static_assert(sizeof(facts_t) % 8 == 0, "keys are masked and compared in words");

static bool has_ports(int proto) { return proto == TCP || proto == UDP || proto == SCTP || proto == UDPLITE; }

static facts_t masked(const facts_t *key, const facts_t *mask)
{
    uint64_t k[WORDS], m[WORDS];
    facts_t out;
    memcpy(k, key, sizeof k);
    memcpy(m, mask, sizeof m);
    for (size_t i = 0; i < WORDS; i++) k[i] &= m[i];
    memcpy(&out, k, sizeof out);
    return out;
}

static uint32_t hash(const facts_t *key, uint32_t mask)
{
    uint64_t k[WORDS], h = mask * 0x9e3779b97f4a7c15u;
    memcpy(k, key, sizeof k);
    for (size_t i = 0; i < WORDS; i++) {
        h = (h ^ k[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (uint32_t)h;
}

/* ---- the rules ---- */

typedef struct entry {
    facts_t key;
    uint32_t mask; /* place of its mask */
    uint32_t rule; /* NO_RULE: the place is free */
} entry_t;

typedef struct mask {
    facts_t bits;
    uint32_t first; /* rule of this mask: where a better one was found already, there is no need to look */
} mask_t;

typedef struct hits {
    uint64_t flows, packets, bytes, told; /* told: packets when they were last published */
    uint64_t *counter;                    /* in the statistics, of packets; NULL where there are too many rules */
    uint32_t line;                        /* 0: the default */
    action_t action;
} hits_t;

typedef struct firewall {
    smos_engine_t *engine;
    const smos_api_t *api;
    uint64_t epoch; /* of these rules, not 0: a flow with another one was not judged by them */
    entry_t *table; /* open addressing, a power of two of places, at most half of them taken */
    uint32_t places, entries;
    mask_t *masks; /* by their first rule */
    uint32_t mask_count;
    hits_t *rules; /* in their order; the last is the default */
    uint32_t rule_count;
    bool states; /* some rule asks whether the flow's beginning was seen */
    uint64_t *passed, *dropped, *reset;
} firewall_t;

/* The rule that a flow meets. */
static uint32_t find(const firewall_t *fw, const facts_t *key)
{
    uint32_t best = fw->rule_count; /* the default */
    for (uint32_t m = 0; m < fw->mask_count && fw->masks[m].first < best; m++) {
        facts_t looked_for = masked(key, &fw->masks[m].bits);
        for (uint32_t at = hash(&looked_for, m) & (fw->places - 1);; at = (at + 1) & (fw->places - 1)) {
            const entry_t *e = &fw->table[at];
            if (e->rule == NO_RULE) break;
            if (e->mask != m || memcmp(&e->key, &looked_for, sizeof looked_for)) continue;
            if (e->rule < best) best = e->rule;
            break;
        }
    }
    return best;
}

/* ---- packets ---- */

typedef struct flow {
    uint64_t epoch; /* 0: not judged yet */
    uint32_t rule;
} flow_t;

static facts_t key_of(const smos_tuple_t *t)
{
    facts_t key = {.sport = t->sport, .dport = t->dport, .proto = t->proto, .version = t->version};
    memcpy(key.src, t->src, 16);
    memcpy(key.dst, t->dst, 16);
    return key;
}

static void count(hits_t *h, const smos_packet_t *packet)
{
    h->packets++;
    h->bytes += packet->ip_len;
    if (h->counter) ++*h->counter;
}

static __attribute__((noinline)) void judge(firewall_t *fw, flow_t *f, const smos_call_t *call)
{
    facts_t key = key_of(call->tuple);
    smos_flow_info_t info;
    if (fw->states && fw->api->flow_info(fw->engine, call->flow, &info) == 0) key.midstream = info.midstream;
    f->rule = find(fw, &key);
    f->epoch = fw->epoch;
    fw->rules[f->rule].flows++;
}

/* RFC 8200, 4: steps over what stands between the quoted IPv6 header and the transport's. Returns where that begins; NULL: it is not there. */
static const uint8_t *over_extensions(const uint8_t *at, const uint8_t *end, uint8_t *proto)
{
    while (*proto == 0 || *proto == 43 || *proto == 44 || *proto == 60) {
        if (at + 8 > end || (*proto == 44 && (at[2] || at[3] & 0xf8))) return NULL; /* a later fragment has no ports */
        uint32_t length = *proto == 44 ? 8 : (at[1] + 1u) * 8;
        if (length > (uint32_t)(end - at)) return NULL;
        *proto = at[0];
        at += length;
    }
    return at;
}

/* The packet that an ICMP error quotes. False: this is no error, or not enough of it is there. */
static bool quoted(const smos_call_t *call, facts_t *key)
{
    const smos_packet_t *p = call->packet;
    const uint8_t *ip = p->payload, *end = ip + p->payload_captured, *ports = NULL;
    if (!p->l4 || !ip) return false;
    uint8_t type = p->l4[0];
    *key = (facts_t){.version = call->tuple->version};
    if (key->version == 4) {
        bool error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12; /* RFC 1122, 3.2.2 */
        if (!error || p->payload_captured < 20 || ip[0] >> 4 != 4) return false;
        key->src[10] = key->src[11] = key->dst[10] = key->dst[11] = 0xff;
        memcpy(key->src + 12, ip + 12, 4);
        memcpy(key->dst + 12, ip + 16, 4);
        key->proto = ip[9];
        uint32_t header = (ip[0] & 15) * 4u;
        bool later = ip[6] & 0x1f || ip[7];
        if (!later && header >= 20 && header <= p->payload_captured) ports = ip + header;
    } else {
        if (type >= 128 || p->payload_captured < 40 || ip[0] >> 4 != 6) return false; /* RFC 4443, 2.1 */
        memcpy(key->src, ip + 8, 16);
        memcpy(key->dst, ip + 24, 16);
        key->proto = ip[6];
        ports = over_extensions(ip + 40, end, &key->proto);
    }
    if (!has_ports(key->proto)) return true;
    if (!ports || end - ports < 4) return false;
    key->sport = (uint16_t)(ports[0] << 8 | ports[1]);
    key->dport = (uint16_t)(ports[2] << 8 | ports[3]);
    return true;
}

/* An error about what may pass in either direction may pass. */
static uint32_t find_quoted(const firewall_t *fw, const facts_t *key)
{
    uint32_t there = find(fw, key);
    if (fw->rules[there].action == PASS) return there;
    facts_t back = *key;
    memcpy(back.src, key->dst, 16);
    memcpy(back.dst, key->src, 16);
    back.sport = key->dport;
    back.dport = key->sport;
    uint32_t answer = find(fw, &back);
    return fw->rules[answer].action == PASS ? answer : there;
}

static void on_packet(void *self, const smos_call_t *call)
{
    firewall_t *fw = self;
    flow_t *f = call->state;
    facts_t key;
    if (f->epoch != fw->epoch) judge(fw, f, call);
    uint32_t rule = f->rule;
    uint8_t proto = call->tuple->proto;
    if ((proto == ICMP4 || proto == ICMP6) && quoted(call, &key)) rule = find_quoted(fw, &key);
    hits_t *h = &fw->rules[rule];
    count(h, call->packet);
    if (h->action == PASS) {
        ++*fw->passed;
    } else if (h->action == RESET && proto == TCP) {
        ++*fw->reset;
        fw->api->reset(fw->engine, call->flow);
    } else {
        ++*fw->dropped;
        fw->api->drop(fw->engine);
    }
}

/* A packet of no flow: each is judged by itself. */
static void on_orphan(void *self, const smos_call_t *call)
{
    firewall_t *fw = self;
    facts_t key = key_of(call->tuple);
    key.midstream = 1;
    hits_t *h = &fw->rules[find(fw, &key)];
    count(h, call->packet);
    if (h->action == PASS) {
        ++*fw->passed;
        return;
    }
    ++*fw->dropped;
    fw->api->drop(fw->engine);
}

/* Publishes the rules that were met since the last time: [[line, flows, packets, bytes], ...]; line 0 is the default. */
static void report(void *self, const smos_call_t *call)
{
    (void)call;
    firewall_t *fw = self;
    char text[60000];
    size_t used = 0;
    for (uint32_t i = 0; i <= fw->rule_count; i++) {
        hits_t *h = &fw->rules[i];
        if (h->packets != h->told) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s[%u, %llu, %llu, %llu]", used ? ", " : "[", h->line, (unsigned long long)h->flows,
                                     (unsigned long long)h->packets, (unsigned long long)h->bytes);
            h->told = h->packets;
        }
        if (used && (i == fw->rule_count || used > sizeof text - 200)) {
            text[used++] = ']';
            fw->api->emit(fw->engine, "hits", text, used);
            used = 0;
        }
    }
}

/* ---- reading rules ---- */

typedef struct reader {
    firewall_t *fw;
    char *word[64]; /* of the rule that is read */
    int words, at;
    uint32_t line;
    char *error;
    size_t error_size;
} reader_t;

typedef struct end {
    uint8_t address[MAX_LIST][16];
    uint8_t bits[MAX_LIST]; /* of the address, 0 to 128 */
    uint8_t version[MAX_LIST];
    uint16_t port[MAX_LIST], port_mask[MAX_LIST];
    int addresses, ports; /* 0: any */
} end_t;

static int wrong(reader_t *r, const char *what, const char *word)
{
    snprintf(r->error, r->error_size, "rules, line %u: %s%s%.60s%s", r->line, what, word ? " '" : "", word ? word : "", word ? "'" : "");
    return -EINVAL;
}

static const char *next(reader_t *r) { return r->at < r->words ? r->word[r->at] : ""; }

static bool takes(reader_t *r, const char *word)
{
    if (strcmp(next(r), word)) return false;
    r->at++;
    return true;
}

static bool number(const char *text, long most, long *out)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    *out = strtol(text, &end, 10);
    return !*end && *out <= most;
}

static int read_addresses(reader_t *r, end_t *e)
{
    if (takes(r, "any")) return 0;
    if (r->at == r->words) return wrong(r, "an address is missing after from or to", NULL);
    char *save, *list = r->word[r->at++];
    for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (e->addresses == MAX_LIST) return wrong(r, "too many addresses", NULL);
        uint8_t *a = e->address[e->addresses];
        char text[64];
        snprintf(text, sizeof text, "%s", word);
        char *slash = strchr(text, '/');
        if (slash) *slash++ = 0;
        long most = 128, length;
        if (inet_pton(AF_INET, text, a + 12) == 1) {
            most = 32;
            memset(a, 0, 10);
            a[10] = a[11] = 0xff;
        } else if (inet_pton(AF_INET6, text, a) != 1) {
            return wrong(r, "is no address:", word);
        }
        length = most;
        if (slash && !number(slash, most, &length)) return wrong(r, "has no good prefix length:", word);
        e->version[e->addresses] = most == 32 ? 4 : 6;
        e->bits[e->addresses++] = (uint8_t)(128 - most + length);
    }
    return e->addresses ? 0 : wrong(r, "an address is missing after from or to", NULL);
}

/* A range of ports as prefixes: 1024-65535 are six, 80 is one. */
static int read_ports(reader_t *r, end_t *e)
{
    if (r->at == r->words) return wrong(r, "a number is missing after port", NULL);
    char *save, *list = r->word[r->at++];
    for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        char text[32];
        long low, high;
        snprintf(text, sizeof text, "%s", word);
        char *dash = strchr(text, '-');
        if (dash) *dash++ = 0;
        if (!number(text, 65535, &low) || !number(dash ? dash : text, 65535, &high) || low > high) return wrong(r, "is no port, nor a range of ports:", word);
        for (long size; low <= high; low += size) {
            for (size = 1; low % (size * 2) == 0 && low + size * 2 - 1 <= high && size < 65536; size *= 2) continue;
            if (e->ports == MAX_LIST) return wrong(r, "too many ports", NULL);
            e->port[e->ports] = (uint16_t)low;
            e->port_mask[e->ports++] = (uint16_t)~(size - 1);
        }
    }
    return e->ports ? 0 : wrong(r, "a number is missing after port", NULL);
}

static int read_end(reader_t *r, end_t *e)
{
    int status = read_addresses(r, e);
    return !status && takes(r, "port") ? read_ports(r, e) : status;
}

static uint32_t mask_number(firewall_t *fw, const facts_t *bits, uint32_t rule)
{
    for (uint32_t m = 0; m < fw->mask_count; m++)
        if (!memcmp(&fw->masks[m].bits, bits, sizeof *bits)) return m;
    if (!(fw->mask_count & (fw->mask_count - 1))) {
        mask_t *more = realloc(fw->masks, (fw->mask_count ? fw->mask_count * 2 : 1) * sizeof *more);
        if (!more) return NO_RULE;
        fw->masks = more;
    }
    fw->masks[fw->mask_count] = (mask_t){*bits, rule};
    return fw->mask_count++;
}

static bool grow(firewall_t *fw)
{
    uint32_t places = fw->places ? fw->places * 2 : 64;
    entry_t *table = malloc(places * sizeof *table);
    if (!table) return false;
    for (uint32_t i = 0; i < places; i++) table[i].rule = NO_RULE;
    for (uint32_t i = 0; i < fw->places; i++) {
        if (fw->table[i].rule == NO_RULE) continue;
        uint32_t at = hash(&fw->table[i].key, fw->table[i].mask) & (places - 1);
        while (table[at].rule != NO_RULE) at = (at + 1) & (places - 1);
        table[at] = fw->table[i];
    }
    free(fw->table);
    fw->table = table;
    fw->places = places;
    return true;
}

/* The first rule with a key keeps it. */
static int add(reader_t *r, const facts_t *key, const facts_t *bits)
{
    firewall_t *fw = r->fw;
    uint32_t rule = fw->rule_count - 1, m = mask_number(fw, bits, rule);
    if (m == NO_RULE || (fw->entries * 2 >= fw->places && !grow(fw))) return wrong(r, "there is not enough memory", NULL);
    facts_t stored = masked(key, bits);
    for (uint32_t at = hash(&stored, m) & (fw->places - 1);; at = (at + 1) & (fw->places - 1)) {
        entry_t *e = &fw->table[at];
        if (e->rule != NO_RULE && (e->mask != m || memcmp(&e->key, &stored, sizeof stored))) continue;
        if (e->rule != NO_RULE) return 0;
        if (++fw->entries > MAX_ENTRIES) return wrong(r, "the rules up to here make more than 1,048,576 entries: fewer lists and port ranges are needed", NULL);
        *e = (entry_t){stored, m, rule};
        return 0;
    }
}

static void set_address(uint8_t address[16], uint8_t mask[16], const end_t *e, int i)
{
    memcpy(address, e->address[i], 16);
    for (int k = 0; k < 16; k++) mask[k] = (uint8_t)(e->bits[i] >= 8 * (k + 1) ? 0xff : e->bits[i] <= 8 * k ? 0 : 0xff00 >> (e->bits[i] - 8 * k));
}

/* Every combination of an address and ports of each end, but those of different versions of IP. */
static int add_all(reader_t *r, const end_t *from, const end_t *to, facts_t key, facts_t bits)
{
    for (int a = 0; a < (from->addresses ? from->addresses : 1); a++)
        for (int b = 0; b < (to->addresses ? to->addresses : 1); b++)
            for (int p = 0; p < (from->ports ? from->ports : 1); p++)
                for (int q = 0; q < (to->ports ? to->ports : 1); q++) {
                    if (from->addresses && to->addresses && from->version[a] != to->version[b]) continue;
                    if (from->addresses) set_address(key.src, bits.src, from, a);
                    if (to->addresses) set_address(key.dst, bits.dst, to, b);
                    if (from->addresses || to->addresses) key.version = from->addresses ? from->version[a] : to->version[b], bits.version = 0xff;
                    if (from->ports) key.sport = from->port[p], bits.sport = from->port_mask[p];
                    if (to->ports) key.dport = to->port[q], bits.dport = to->port_mask[q];
                    int status = add(r, &key, &bits);
                    if (status) return status;
                }
    return 0;
}

static int read_protocol(reader_t *r, int protocols[2])
{
    static const struct { const char *name; int number[2]; } KNOWN[] = {{"tcp", {TCP, -1}}, {"udp", {UDP, -1}}, {"icmp", {ICMP4, ICMP6}}, {"any", {-1, -1}}};
    long value;
    protocols[0] = protocols[1] = -1;
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (takes(r, KNOWN[i].name)) return memcpy(protocols, KNOWN[i].number, sizeof KNOWN[i].number), 0;
    if (number(next(r), 255, &value)) protocols[0] = (int)value, r->at++;
    return 0;
}

static int read_action(reader_t *r, action_t *out)
{
    for (int i = 0; i < 3; i++)
        if (takes(r, ACTIONS[i])) return *out = (action_t)i, 0;
    return wrong(r, "a rule begins with pass, drop or reset, not with", next(r));
}

static int read_rule(reader_t *r)
{
    firewall_t *fw = r->fw;
    end_t from = {.addresses = 0}, to = {.addresses = 0};
    facts_t key = {.proto = 0}, bits = {.proto = 0};
    action_t action;
    int protocols[2], status = read_action(r, &action);
    if (!status) status = read_protocol(r, protocols);
    if (!status && takes(r, "from")) status = read_end(r, &from);
    if (!status && takes(r, "to")) status = read_end(r, &to);
    if (status) return status;
    if (!strcmp(next(r), "port")) return wrong(r, "whose port? Write 'from any port N' or 'to any port N'", NULL);
    bool either = takes(r, "either");
    if (takes(r, "new") || takes(r, "midstream")) {
        fw->states = true;
        bits.midstream = 1;
        key.midstream = r->word[r->at - 1][0] == 'm';
    }
    if (r->at < r->words) return wrong(r, "cannot be understood from here on:", next(r));
    if ((from.ports || to.ports) && !has_ports(protocols[0])) return wrong(r, "ports are for a rule of tcp or udp", NULL);
    if (fw->rule_count == MAX_RULES) return wrong(r, "more than 65,535 rules", NULL);
    if (!(fw->rule_count & (fw->rule_count - 1))) {
        hits_t *more = realloc(fw->rules, (2 * fw->rule_count + 2) * sizeof *more); /* one more than a power of two: the default's place */
        if (!more) return wrong(r, "there is not enough memory", NULL);
        fw->rules = more;
    }
    fw->rules[fw->rule_count++] = (hits_t){.line = r->line, .action = action};
    for (int i = 0; i < 2 && !status; i++) {
        if (i && protocols[i] < 0) break;
        if (protocols[i] >= 0) key.proto = (uint8_t)protocols[i], bits.proto = 0xff;
        status = add_all(r, &from, &to, key, bits);
        if (!status && either) status = add_all(r, &to, &from, key, bits);
    }
    return status;
}

static int read_rules(reader_t *r, char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n;#");
        char end = text[length], *save;
        text[length] = 0;
        r->words = r->at = 0;
        for (char *word = strtok_r(text, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
            if (r->words == 64) return wrong(r, "too many words", NULL);
            r->word[r->words++] = word;
        }
        int status = r->words ? read_rule(r) : 0;
        if (status) return status;
        text += length + (end != 0);
        if (end == '#') {
            text += strcspn(text, "\n");
            end = *text;
            text += end != 0;
        }
        r->line += end == '\n';
    }
    return 0;
}

/* ---- the module ---- */

static void fini(void *self)
{
    firewall_t *fw = self;
    free(fw->table);
    free(fw->masks);
    free(fw->rules);
    free(fw);
}

/* The same rules have the same epoch: flows need not be judged again. */
static uint64_t epoch_of(const char *rules, action_t otherwise)
{
    uint64_t h = 0xcbf29ce484222325u + (uint64_t)otherwise;
    for (; *rules; rules++) h = (h ^ (uint8_t)*rules) * 0x100000001b3u; /* FNV-1a */
    return h | 1;
}

static int finish(firewall_t *fw, action_t otherwise)
{
    const smos_api_t *api = fw->api;
    if (!fw->rules && !(fw->rules = malloc(sizeof *fw->rules))) return -ENOMEM;
    fw->rules[fw->rule_count] = (hits_t){.action = otherwise};
    for (uint32_t i = 0; i < fw->rule_count && i < COUNTED; i++) {
        char name[32];
        snprintf(name, sizeof name, "line_%u", fw->rules[i].line);
        fw->rules[i].counter = api->counter(fw->engine, name);
    }
    fw->rules[fw->rule_count].counter = api->counter(fw->engine, "default");
    fw->passed = api->counter(fw->engine, "packets_passed");
    fw->dropped = api->counter(fw->engine, "packets_dropped");
    fw->reset = api->counter(fw->engine, "packets_reset");
    return fw->passed && fw->dropped && fw->reset ? 0 : -ENOSPC;
}

static int init(smos_engine_t *engine, const smos_api_t *api, void **self, char *error, size_t error_size)
{
    const char *rules = api->param(engine, NULL, "rules"), *word = api->param(engine, NULL, "default");
    double seconds = atof(api->param(engine, NULL, "report"));
    firewall_t *fw = calloc(1, sizeof *fw);
    char *copy = strdup(rules);
    action_t otherwise = PASS;
    int status = fw && copy ? 0 : -ENOMEM;
    while (otherwise <= RESET && strcmp(word, ACTIONS[otherwise])) otherwise++;
    if (!status) {
        *fw = (firewall_t){.engine = engine, .api = api};
        reader_t reader = {.fw = fw, .line = 1, .error = error, .error_size = error_size};
        if (otherwise > RESET) status = (snprintf(error, error_size, "default: give pass, drop or reset, not '%.40s'", word), -EINVAL);
        else if (!(seconds >= 0 && seconds <= 86400)) status = (snprintf(error, error_size, "report: give 0 to 86400 seconds"), -EINVAL);
        else status = read_rules(&reader, copy);
    }
    if (!status) {
        fw->epoch = epoch_of(rules, otherwise);
        status = finish(fw, otherwise);
        if (!status) status = api->set_option(engine, 0, 0, SMOS_BOTH, SMOS_OPT_DATAGRAMS, 1); /* or the parts of what is denied would pass one by one */
        if (!status && seconds > 0) status = api->set_timer(engine, 0, (int64_t)(seconds * 1e9), (int64_t)(seconds * 1e9), report, NULL, NULL);
        if (status) snprintf(error, error_size, "%s", strerror(-status));
    }
    free(copy);
    if (status && fw) fini(fw);
    if (!status) *self = fw;
    return status;
}

static const smos_param_t params[] = {
    {"rules", "str", "", "the rules: one a line or between semicolons; @FILE reads them from a file"},
    {"default", "str", "pass", "what happens to flows that fit no rule: pass, drop or reset"},
    {"report", "float", "10", "seconds of packet time between two events of the topic hits; 0: none"},
    {NULL, NULL, NULL, NULL},
};
static const smos_registration_t registrations[] = {
    {.event = SMOS_PKT_IN, .hook = SMOS_SENDER, .side = SMOS_BOTH, .handler = on_packet},
    {.event = SMOS_ORPHAN, .side = SMOS_BOTH, .handler = on_orphan},
    {.event = SMOS_EVENT_COUNT},
};
SMOS_MODULE = {
    SMOS_MODULE_HEADER, .name = "firewall", .state_size = sizeof(flow_t), .layout = 1, .fail_closed = 1, .params = params, .registrations = registrations, .init = init, .fini = fini,
};
