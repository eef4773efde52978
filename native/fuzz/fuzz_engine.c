/* Whole captures through a shard. The first bytes choose the configuration; the rest is a list of small packet descriptions (so that a mutation
 * still makes a packet that a connection takes), with raw frames in between. A box listens to everything and calls every function of the API. After
 * the run: sums hold, offsets of NEW_DATA and GAP join, no memory of ours is left in use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shardmos/engine.h"
#include "tcp/assembler.h"
#include "wire/decode.h"
#include "wire/defrag.h"

#define MAX_FRAMES 400

static smos_shard_t *shard;
static unsigned dice;
static struct { smos_flow_t flow; uint64_t next[2]; } tracked[64];

static void be16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static void be32(uint8_t *p, uint32_t v) { be16(p, v >> 16), be16(p + 2, v & 0xffff); }

#define HOLDS(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static void on_event(void *self, const smos_call_t *call)
{
    const smos_api_t *api = smos_shard_api();
    smos_engine_t *engine = smos_shard_engine(shard);
    smos_flow_info_t info;
    unsigned luck = dice = dice * 1103515245u + 12345u;
    (void)self;
    if (call->event != SMOS_ORPHAN) {
        HOLDS(api->flow_info(engine, call->flow, &info) == 0);
        HOLDS(call->state != NULL);
        ((uint8_t *)call->state)[luck % 16]++;
    }
    if (call->event == SMOS_CONN_START && call->hook == SMOS_SENDER)
        for (int i = 0; i < 64; i++)
            if (!tracked[i].flow) {
                tracked[i].flow = call->flow;
                tracked[i].next[0] = tracked[i].next[1] = 0;
                break;
            }
    if (call->event == SMOS_NEW_DATA || call->event == SMOS_GAP)
        for (int i = 0; i < 64; i++)
            if (tracked[i].flow == call->flow) {
                HOLDS(call->offset >= tracked[i].next[call->side]); /* nothing twice, nothing out of order */
                tracked[i].next[call->side] = call->offset + call->length;
            }
    if (call->event == SMOS_NEW_DATA) {
        HOLDS(call->length > 0 && call->data != NULL);
        volatile uint8_t sum = 0;
        for (uint64_t i = 0; i < call->length; i++) sum ^= call->data[i];
    }
    if (call->event == SMOS_CONN_END && call->side == SMOS_SERVER)
        for (int i = 0; i < 64; i++)
            if (tracked[i].flow == call->flow) tracked[i].flow = 0;
    switch (luck >> 16 & 63) {
    case 0: api->drop(engine); break;
    case 1: api->reset(engine, call->flow); break;
    case 2: api->stop(engine, call->flow, (int)(luck >> 24) % 3); break;
    case 3: api->emit(engine, "fuzz", "x", 1); break;
    case 4: api->flow_info(engine, luck * 77777ull, &info); break;
    case 5: api->reset(engine, call->flow ^ (1ull << 40)); break;
    case 6: api->log(engine, 1, "line"); break;
    default: break;
    }
}

static uint32_t write_capture(int fd, const uint8_t *data, size_t size)
{
    static const uint32_t ISN[2] = {0xfffffff0u, 5};
    uint8_t frame[2400] = {0}, head[24] = {0};
    uint32_t seq[4][2], frames = 0, time_us = 0, linktype = 1;
    memcpy(head, "\xd4\xc3\xb2\xa1\x02\x00\x04\x00", 8);
    head[16] = 0xff, head[17] = 0xff;
    memcpy(head + 20, &linktype, 4);
    if (write(fd, head, 24) != 24) return 0;
    for (int i = 0; i < 4; i++) seq[i][0] = ISN[0], seq[i][1] = ISN[1];
    while (size >= 8 && frames < MAX_FRAMES) {
        const uint8_t *d = data;
        uint32_t length;
        data += 8, size -= 8;
        int pair = d[0] & 3, from = d[0] >> 2 & 1;
        time_us += d[1] & 0x80 ? (uint32_t)(d[1] & 0x7f) * 3000000u : d[1] * 100u;
        if (d[0] >> 5 == 7) { /* raw bytes */
            length = d[2] < size ? d[2] : (uint32_t)size;
            memcpy(frame, data, length);
            data += length, size -= length;
        } else if (d[0] >> 5 == 6 && frames) { /* an ICMP error about the packet before it */
            uint8_t quoted[28], *ip = frame + 14;
            length = 70;
            memcpy(quoted, ip, 28);
            memset(ip, 0, 28);
            ip[0] = 0x45, ip[3] = 56, ip[8] = 64, ip[9] = 1;
            memcpy(ip + 12, "\x0a\x00\x00\xfe", 4);
            memcpy(ip + 16, quoted + 12, 4);
            ip[20] = d[2] & 15, ip[21] = d[3] & 7;
            memcpy(ip + 28, quoted, 28);
            be16(ip + 10, ~smos__checksum(ip, 20, 0) & 0xffff);
            be16(ip + 22, ~smos__checksum(ip + 20, 36, 0) & 0xffff);
        } else {
            uint32_t payload = (uint32_t)(d[2] & 0x40 ? (d[2] & 0x3f) * 24 : d[2] & 0x3f);
            memset(frame, 0, 74);
            be16(frame + 12, 0x0800);
            uint8_t *ip = frame + 14, *tcp = ip + 20;
            uint32_t options = d[3] & 0x40 ? 12 : 0;
            length = 54 + options + payload;
            ip[0] = 0x45;
            be16(ip + 2, length - 14);
            be16(ip + 4, d[7]);
            be16(ip + 6, d[0] & 0x10 ? d[6] & 0x203f : 0); /* sometimes a fragment */
            ip[8] = 64, ip[9] = d[0] & 8 ? 17 : 6;
            be32(ip + 12, 0x0a000001u + (from ? 1 : 0));
            be32(ip + 16, 0x0a000001u + (from ? 0 : 1));
            be16(tcp, from ? 80 : 4000 + pair);
            be16(tcp + 2, from ? 4000 + pair : 80);
            uint32_t at = seq[pair][from] + (uint32_t)(int32_t)(int8_t)d[4] * (d[3] & 0x80 ? 1000u : 1u);
            be32(tcp + 4, at);
            be32(tcp + 8, seq[pair][!from] + (uint32_t)(int32_t)(int8_t)d[5]);
            tcp[12] = (uint8_t)((20 + options) / 4 << 4);
            tcp[13] = d[3] & 0x3f;
            be16(tcp + 14, d[6] * 256u);
            be16(tcp + 18, d[7]);
            if (options && d[7] & 0x80) { /* SACK, in a SYN permission for it */
                memcpy(tcp + 20, d[3] & 2 ? "\x02\x04\x00\x64\x04\x02\x01\x01\x01\x01\x01\x01" : "\x01\x01\x05\x0a\x00\x00\x00\x00\x00\x00\x00\x00", 12);
                if (!(d[3] & 2)) be32(tcp + 24, seq[pair][!from] + d[5]), be32(tcp + 28, seq[pair][!from] + d[5] + (d[7] & 0x7fu) * 16);
            } else if (options) {
                memcpy(tcp + 20, "\x01\x01\x08\x0a", 4);
                be32(tcp + 24, d[7] * 1000u + time_us / 1000);
            }
            for (uint32_t i = 0; i < payload; i++) tcp[20 + options + i] = (uint8_t)(at + i + (d[7] == 9));
            if (ip[9] == 17) be16(tcp + 4, 8 + payload);
            if (!d[4]) seq[pair][from] += payload + (d[3] & 3 ? 1 : 0);
            be16(ip + 10, 0);
            be16(ip + 10, ~smos__checksum(ip, 20, 0) & 0xffff);
            if (ip[9] == 6 && d[7] != 7) {
                be16(tcp + 16, 0);
                be16(tcp + 16, ~smos__checksum(tcp, length - 34, smos__checksum(ip + 12, 8, 6 + length - 34)) & 0xffff);
            }
        }
        uint32_t caplen = d[7] == 11 ? length / 2 : length, seconds = 1000 + time_us / 1000000, micros = time_us % 1000000;
        uint32_t record[4] = {seconds, micros, caplen, length};
        if (write(fd, record, 16) != 16 || write(fd, frame, caplen) != (ssize_t)caplen) return frames;
        frames++;
    }
    return frames;
}

static uint64_t counter(const char *name)
{
    const smos_stats_header_t *h = smos_shard_stats(shard);
    const char *n = (const char *)h + h->names_offset;
    const uint64_t *v = (const uint64_t *)((const char *)h + h->counters_offset);
    for (uint32_t i = 0; i < h->counters; i++, n += strlen(n) + 1)
        if (!strcmp(n, name)) return v[i];
    HOLDS(!"a counter of that name");
    return 0;
}

static void drain(uint32_t bits)
{
    const smos_flow_info_t *records;
    const uint8_t *events;
    if (bits & SMOS_RUN_RECORDS) smos_shard_take_records(shard, &records);
    if (bits & SMOS_RUN_EVENTS) smos_shard_take_events(shard, &events);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static smos_registration_t all[SMOS_EVENT_COUNT + 1];
    char error[SMOS_ERROR_SIZE], path[64];
    if (size < 8) return 0;
    for (int i = 0; i < SMOS_EVENT_COUNT; i++) {
        bool hooked = i == SMOS_PKT_IN || i == SMOS_CONN_START || i == SMOS_REXMIT || i == SMOS_STATE_CHANGE || i == SMOS_CONN_SETUP;
        all[i] = (smos_registration_t){.event = (uint8_t)i, .hook = hooked ? SMOS_SENDER | SMOS_RECEIVER : 0, .side = SMOS_BOTH, .handler = on_event};
    }
    all[SMOS_EVENT_COUNT].event = SMOS_EVENT_COUNT;
    smos_config_t c;
    smos_config_default(&c);
    c.max_flows = data[0] & 1 ? 3 : 64;
    c.buffer_bytes = data[0] & 2 ? 8192 : 1 << 20;
    c.flow_buffer = data[0] & 4 ? 600 : 65536;
    c.flow_segments = data[0] & 8 ? 3 : 64;
    c.depth = data[0] & 16 ? 700 : 0;
    c.defrag_bytes = 1 << 18;
    c.midstream = data[0] >> 5 & 1;
    c.checksums = data[0] >> 6 & 1;
    c.key = data[0] >> 7 & 1;
    c.overlap_policy = data[1] % 15;
    c.urgent_policy = data[1] / 16 % 3;
    c.detail = data[2] & 7;
    c.records = data[2] >> 3 & 1;
    c.live = data[2] >> 4 & 1;
    c.publish = data[2] >> 4;
    c.gap_segments = data[3] & 7;
    c.gap_bytes = data[3] & 8 ? 300 : 0;
    c.workers = 1 + (data[3] >> 4 & 1);
    c.flow_full = data[7] % 3;
    c.worker_full = data[7] / 3 % 3;
    c.table_full = data[7] / 9 % 2;
    c.acked_gaps = data[7] / 18 % 3;
    c.adaptive = data[7] / 54 * 25;
    if (data[6] & 8) {
        c.overlap_prefixes[0] = (smos_prefix_policy_t){.address = {[10] = 0xff, 0xff, 10, 0, 0, 1}, .bits = 128, .version = 4, .policy = SMOS__OVERLAP_LAST};
        c.defrag_prefixes[0] = (smos_prefix_policy_t){.address = {[10] = 0xff, 0xff, 10, 0, 0, 0}, .bits = 127, .version = 4, .policy = SMOS__DEFRAG_BSD};
        c.overlap_prefix_count = c.defrag_prefix_count = 1;
    }
    c.hash_key[0] = 1;
    dice = data[4] | data[5] << 8;
    int listen = data[6] & 1;
    memset(tracked, 0, sizeof tracked);
    int fd = memfd_create("capture", MFD_CLOEXEC);
    uint32_t frames = write_capture(fd, data + 8, size - 8);
    shard = smos_shard_create(&c, error);
    HOLDS(shard != NULL);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *paths[] = {path};
    HOLDS(smos_shard_open_captures(shard, paths, 1, NULL, error) == 0);
    smos_box_t *old;
    if (listen) {
        const smos_module_t manifest = {SMOS_MODULE_HEADER, .name = "fuzz", .state_size = 16, .registrations = all};
        smos_box_t *box = smos_box_create(shard, &manifest, "1", NULL, NULL, error);
        HOLDS(box && smos_shard_commit(shard, box, &old) == 0);
    }
    uint32_t bits;
    do drain(bits = smos_shard_run(shard, 1000000000));
    while (!(bits & (SMOS_RUN_END | SMOS_RUN_FAILED)));
    if (listen && data[6] & 2) {
        HOLDS(smos_shard_remove(shard, "fuzz", &old) == 0 && smos_box_idle(old));
        smos_box_free(old);
    }
    do drain(bits = smos_shard_finish(shard, SMOS_END_CAPTURE, data[6] & 4 ? 2 : 0));
    while (!(bits & SMOS_RUN_END));
    uint64_t counted = counter("packets");
    HOLDS(c.workers == 2 ? counted <= frames : counted == frames);
    HOLDS(counted == counter("packets_flow") + counter("packets_orphan") + counter("packets_fragment") + counter("drop_not_ip") + counter("drop_malformed") +
                         counter("drop_truncated") + counter("drop_linktype") + counter("drop_filtered") + counter("drop_no_memory"));
    HOLDS(counter("flows_now") == 0 && counter("buffered_bytes_now") == 0);
    HOLDS(counter("flows_made") == counter("end_fin") + counter("end_rst") + counter("end_idle") + counter("end_evicted") + counter("end_capture_end"));
    smos_shard_destroy(shard);
    close(fd);
    return 0;
}
