/* pcapng, read on our own: libpcap refuses a file whose interfaces have different link types or whose sections differ in byte order.
 * Layout: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html */
#include "port/capture.h"

#include <stdlib.h>
#include <string.h>

#include "wire/decode.h"

enum {
    SECTION = 0x0a0d0d0a, INTERFACE = 1, OLD_PACKET = 2, SIMPLE_PACKET = 3, ENHANCED_PACKET = 6,
    ORDER_MARK = 0x1a2b3c4d
};
enum { OPTION_END = 0, OPTION_TSRESOL = 9, OPTION_TSOFFSET = 14 };

#define MAX_BLOCK (16u << 20) /* as libpcap and Wireshark have it */
#define MAX_INTERFACES 65536u

typedef struct packet {
    uint32_t interface, caplen, len;
    uint64_t ticks;
    const uint8_t *data;
    const uint8_t *limit; /* of the block's body */
    int timed;
} packet_t;

static int damaged(smos__capture_t *c, const char *what)
{
    return smos__capture_fail(c, "is damaged after packet %llu: %s", (unsigned long long)c->packets, what);
}

/* Options are a list of 16-bit code, 16-bit length, value padded to 4 bytes. */
static int read_options(smos__capture_t *c, smos__interface_t *interface, const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 4) {
        uint16_t code = smos__u16(c, p), length = smos__u16(c, p + 2);
        uint32_t padded = (length + 3u) & ~3u;
        p += 4;
        if (code == OPTION_END) return 0;
        if ((size_t)(end - p) < padded) return damaged(c, "an interface option is longer than its block");
        if (code == OPTION_TSRESOL && length == 1) {
            uint8_t power = p[0] & 0x7f;
            interface->binary = p[0] >> 7;
            if (power > (interface->binary ? 63 : 19)) return damaged(c, "the time resolution of an interface is beyond 64 bits");
            interface->ticks = 1;
            for (uint8_t i = 0; i < power; i++) interface->ticks *= interface->binary ? 2 : 10;
        }
        if (code == OPTION_TSOFFSET && length == 8) {
            uint64_t first = smos__u32(c, p), second = smos__u32(c, p + 4);
            int big = c->swapped ? __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ : __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
            interface->offset_s = (int64_t)(big ? first << 32 | second : second << 32 | first);
        }
        p += padded;
    }
    return 0;
}

static int add_interface(smos__capture_t *c, const uint8_t *body, const uint8_t *end)
{
    if (end - body < 8) return damaged(c, "an interface description is too short");
    if (c->interface_count == c->interface_room) {
        uint32_t room = c->interface_room ? c->interface_room * 2 : 8;
        if (room > MAX_INTERFACES) return damaged(c, "more than 65536 interfaces");
        smos__interface_t *larger = realloc(c->interfaces, room * sizeof *larger);
        if (larger == NULL) return smos__capture_fail(c, "cannot be read: out of memory");
        c->interfaces = larger;
        c->interface_room = room;
    }
    smos__interface_t interface = { .ticks = 1000000, .linktype = smos__capture_linktype(smos__u16(c, body)), .snaplen = smos__u32(c, body + 4) };
    int result = read_options(c, &interface, body + 8, end);
    if (result == 0) c->interfaces[c->interface_count++] = interface;
    return result;
}

/* Scales by whole seconds and rest, so that no resolution loses nanoseconds or overflows on the way; beyond int64 it is clamped. */
static int64_t nanoseconds(const smos__interface_t *interface, uint64_t ticks)
{
    uint64_t seconds = ticks / interface->ticks, rest = ticks % interface->ticks;
    __int128 ns = ((__int128)seconds + interface->offset_s) * 1000000000 + (__int128)rest * 1000000000 / interface->ticks;
    return ns > INT64_MAX ? INT64_MAX : ns < INT64_MIN ? INT64_MIN : (int64_t)ns;
}

/* A packet block's body. 1 a packet, else what damaged() gave. */
static int read_packet(smos__capture_t *c, uint32_t type, const uint8_t *body, const uint8_t *end, packet_t *packet)
{
    size_t fixed = type == SIMPLE_PACKET ? 4 : 20;
    if ((size_t)(end - body) < fixed) return damaged(c, "a packet block is too short");
    packet->data = body + fixed;
    packet->limit = end;
    packet->timed = type != SIMPLE_PACKET;
    if (type == SIMPLE_PACKET) {
        packet->interface = 0;
        packet->len = packet->caplen = smos__u32(c, body);
    } else {
        packet->interface = type == OLD_PACKET ? smos__u16(c, body) : smos__u32(c, body);
        packet->ticks = (uint64_t)smos__u32(c, body + 4) << 32 | smos__u32(c, body + 8);
        packet->caplen = smos__u32(c, body + 12);
        packet->len = smos__u32(c, body + 16);
    }
    if (packet->interface >= c->interface_count) return damaged(c, "a packet of an interface that is not described");
    uint32_t snaplen = c->interfaces[packet->interface].snaplen;
    if (type == SIMPLE_PACKET) { /* its captured length is not written down: what snap length and block allow */
        size_t room = (size_t)(end - packet->data);
        if (snaplen != 0 && packet->caplen > snaplen) packet->caplen = snaplen;
        if (packet->caplen > room) return damaged(c, "a packet is longer than its block");
    }
    if (packet->caplen > SMOS__MAX_CAPLEN || packet->caplen > (size_t)(end - packet->data)) return damaged(c, "a packet is longer than its block");
    return 1;
}

/* A section header tells the byte order of all that follows, its own length included. */
static int begin_section(smos__capture_t *c, const uint8_t *block)
{
    uint32_t order;
    memcpy(&order, block + 8, sizeof order);
    if (order != ORDER_MARK && order != __builtin_bswap32(ORDER_MARK)) return damaged(c, "a section without a byte order");
    c->swapped = order != ORDER_MARK;
    uint16_t major = smos__u16(c, block + 12);
    if (major != 1) return smos__capture_fail(c, "has pcapng version %u.%u, which is not supported", major, smos__u16(c, block + 14));
    c->interface_count = 0;
    return 0;
}

/* The next block whole at source->at. SMOS__SOURCE_OK with its type and length, SMOS__SOURCE_*, or SMOS__SOURCE_FAILED with c->failed set. */
static int next_block(smos__capture_t *c, uint32_t *type, uint32_t *length)
{
    smos__source_t *s = c->source;
    int got = smos__source_need(s, 12);
    if (got != SMOS__SOURCE_OK) return got;
    uint32_t section;
    memcpy(&section, s->at, sizeof section);
    if (section == SECTION) { /* the same in both orders */
        if ((got = smos__source_need(s, 28)) != SMOS__SOURCE_OK) return got;
        if (begin_section(c, s->at) != 0) return SMOS__SOURCE_FAILED;
    }
    *type = smos__u32(c, s->at);
    *length = smos__u32(c, s->at + 4);
    if (*length < 12 || *length % 4 != 0 || *length > MAX_BLOCK || (*type == SECTION && *length < 28)) {
        damaged(c, "a block with an impossible length");
        return SMOS__SOURCE_FAILED;
    }
    if ((got = smos__source_need(s, *length)) != SMOS__SOURCE_OK) return got;
    if (smos__u32(c, s->at + *length - 4) != *length) {
        damaged(c, "a block whose two lengths differ");
        return SMOS__SOURCE_FAILED;
    }
    return SMOS__SOURCE_OK;
}

static int is_packet(uint32_t type)
{
    return type == ENHANCED_PACKET || type == SIMPLE_PACKET || type == OLD_PACKET;
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    smos__capture_t *c = (smos__capture_t *)port;
    if (c->failed) return SMOS__PORT_FAILED;
    smos__source_t *s = c->source;
    s->release(s);
    size_t walked = 0;
    int n = 0, got = SMOS__SOURCE_OK;
    while (n < max) {
        uint32_t type, length;
        if ((got = next_block(c, &type, &length)) != SMOS__SOURCE_OK) break;
        const uint8_t *body = s->at + 8, *end = s->at + length - 4;
        if (is_packet(type)) {
            packet_t packet = { 0 };
            if (read_packet(c, type, body, end, &packet) != 1) {
                got = SMOS__SOURCE_FAILED;
                break;
            }
            const smos__interface_t *interface = &c->interfaces[packet.interface];
            int64_t time_ns = packet.timed ? nanoseconds(interface, packet.ticks) : c->packets ? c->last_ns : 0;
            smos__capture_deliver(c, &burst[n++], packet.data, packet.caplen, packet.len, time_ns, interface->linktype);
        } else if (type == INTERFACE && add_interface(c, body, end) != 0) {
            got = SMOS__SOURCE_FAILED;
            break;
        }
        smos__source_take(s, length);
        walked += length;
        if (n == 0) s->release(s);
    }
    if (c->failed) { /* what came before is delivered, then the failure */
        if (s->shrunk) return SMOS__PORT_FAILED;
        c->port.stats.packets += (uint64_t)n;
        return n > 0 ? n : SMOS__PORT_FAILED;
    }
    smos__capture_look_ahead(c, walked);
    return smos__capture_settle(c, n, got);
}

/* Reads up to the first packet, to refuse at once a file in which nothing could be decoded. */
static int read_head(smos__capture_t *c)
{
    for (;;) {
        uint32_t type, length;
        int got = next_block(c, &type, &length);
        if (c->failed) return -1;
        if (got == SMOS__SOURCE_FAILED) return smos__capture_fail(c, "%s", c->source->problem), -1;
        if (got == SMOS__SOURCE_END && c->source->at != c->source->end && c->interface_count == 0) return smos__capture_fail(c, "is cut short in its file header"), -1;
        if (got != SMOS__SOURCE_OK || is_packet(type)) break;
        if (type == INTERFACE && add_interface(c, c->source->at + 8, c->source->at + length - 4) != 0) return -1;
        smos__source_take(c->source, length);
        c->source->release(c->source);
    }
    for (uint32_t i = 0; i < c->interface_count; i++)
        if (smos__linktype_supported(c->interfaces[i].linktype)) return 0;
    return c->interface_count == 0 ? 0 : smos__capture_check_linktype(c, c->interfaces[0].linktype);
}

int smos__pcapng_open(smos__capture_t *c)
{
    uint32_t magic;
    memcpy(&magic, c->source->at, sizeof magic);
    if (magic != SECTION) return 0;
    c->port.receive = receive;
    return read_head(c) == 0 ? 1 : -1;
}

void smos__pcapng_close(smos__capture_t *c)
{
    free(c->interfaces);
    c->interfaces = NULL;
}
