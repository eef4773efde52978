#include "event/outbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD 5
#define MAX_TOPIC 255
#define MAX_COPY 64 /* of the bytes that differ */
#define MAX_LINE 4096 /* bytes of a log line; the rest is cut */


int smos__outbox_init(smos__outbox_t *o, uint32_t bytes, uint32_t worker)
{
    memset(o, 0, sizeof *o);
    o->packer.data = malloc(bytes);
    o->taken = malloc(bytes);
    if (!o->packer.data || !o->taken) return smos__outbox_free(o), -ENOMEM;
    o->packer.size = bytes;
    o->packer.used = HEAD;
    o->worker = worker;
    return 0;
}


void smos__outbox_free(smos__outbox_t *o)
{
    free(o->packer.data);
    free(o->taken);
    o->packer.data = o->taken = NULL;
}


uint32_t smos__outbox_take(smos__outbox_t *o, const uint8_t **data)
{
    if (!o->events) return 0;
    uint32_t used = o->packer.used;
    o->packer.used = 0;
    smos__pack_head(&o->packer, 0xdd, o->events, 4);
    uint8_t *full = o->packer.data;
    o->packer.data = o->taken;
    o->taken = full;
    o->packer.used = HEAD;
    o->events = 0;
    *data = full;
    return used;
}


static uint32_t begin(smos__outbox_t *o, uint32_t pairs, const char *topic, int64_t time_ns)
{
    uint32_t mark = o->packer.used;
    smos__pack_map(&o->packer, pairs + 3);
    smos__pack_str(&o->packer, "topic");
    smos__pack_unsafe_text(&o->packer, topic, (uint32_t)strlen(topic), MAX_TOPIC);
    smos__pack_str(&o->packer, "time");
    smos__pack_int(&o->packer, time_ns);
    smos__pack_str(&o->packer, "worker");
    smos__pack_uint(&o->packer, o->worker);
    return mark;
}


static int end(smos__outbox_t *o, uint32_t mark)
{
    if (o->packer.full) { /* an event goes in whole or not at all */
        o->packer.full = false;
        o->packer.used = mark;
        o->lost++;
        return -ENOBUFS;
    }
    o->events++;
    o->published++;
    return 0;
}


static void pack_address(smos__packer_t *p, const char *key, const uint8_t address[16], int version)
{
    char text[INET6_ADDRSTRLEN];
    inet_ntop(version == 4 ? AF_INET : AF_INET6, version == 4 ? address + 12 : address, text, sizeof text);
    smos__pack_str(p, key);
    smos__pack_str(p, text);
}


int smos__outbox_anomaly(smos__outbox_t *o, int64_t time_ns, const char *anomaly, smos_flow_t flow, const smos_tuple_t *t, const smos__conflict_t *conflict)
{
    uint32_t mark = begin(o, (t ? 7 : 1) + (conflict ? 3 : 0), "anomaly", time_ns);
    smos__packer_t *p = &o->packer;
    smos__pack_str(p, "anomaly");
    smos__pack_str(p, anomaly);
    if (t) {
        smos__pack_str(p, "flow");
        smos__pack_uint(p, flow);
        smos__pack_str(p, "proto");
        smos__pack_uint(p, t->proto);
        pack_address(p, "client", t->src, t->version);
        smos__pack_str(p, "client_port");
        smos__pack_uint(p, t->sport);
        pack_address(p, "server", t->dst, t->version);
        smos__pack_str(p, "server_port");
        smos__pack_uint(p, t->dport);
    }
    if (conflict) {
        uint32_t length = conflict->length < MAX_COPY ? conflict->length : MAX_COPY;
        smos__pack_str(p, "offset");
        smos__pack_uint(p, conflict->offset);
        smos__pack_str(p, "before");
        smos__pack_bin(p, conflict->copies, length);
        smos__pack_str(p, "now");
        smos__pack_bin(p, conflict->copies + conflict->length, length);
    }
    return end(o, mark);
}


int smos__outbox_module(smos__outbox_t *o, int64_t time_ns, const char *module, const char *topic, smos_flow_t flow, const void *data, uint32_t length)
{
    char full[160];
    snprintf(full, sizeof full, "module.%s.%s", module, topic);
    uint32_t mark = begin(o, 2, full, time_ns);
    smos__pack_str(&o->packer, "flow");
    if (flow)
        smos__pack_uint(&o->packer, flow);
    else
        smos__pack_nil(&o->packer);
    smos__pack_str(&o->packer, "data");
    smos__pack_bin(&o->packer, data, length);
    return end(o, mark);
}


int smos__outbox_log(smos__outbox_t *o, int64_t time_ns, const char *module, int level, const char *text)
{
    uint32_t mark = begin(o, 3, "log", time_ns);
    smos__pack_str(&o->packer, "module");
    smos__pack_str(&o->packer, module);
    smos__pack_str(&o->packer, "level");
    smos__pack_int(&o->packer, level);
    smos__pack_str(&o->packer, "text");
    smos__pack_unsafe_text(&o->packer, text, (uint32_t)strnlen(text, MAX_LINE + 4), MAX_LINE);
    return end(o, mark);
}
