/* See fragment.h. RFC 791 3.1, RFC 8200 4.5. */
#include "wire/fragment.h"

#include <stddef.h>

#define MAX_EXTENSIONS 16

enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, AUTHENTICATION = 51, DESTINATION = 60, MOBILITY = 135, HIP = 139, SHIM6 = 140 };


static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }


static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}


static smos__fragment_result_t finish(smos__fragment_t *f, const uint8_t *ip, uint32_t captured, uint32_t ip_len, uint32_t data_at)
{
    if (data_at > ip_len) return SMOS__FRAGMENT_BAD;
    if (data_at > captured) return SMOS__FRAGMENT_CUT;
    f->length = ip_len - data_at;
    f->captured = captured - data_at < f->length ? captured - data_at : f->length;
    f->data = ip + data_at;
    f->header = ip;
    return SMOS__FRAGMENT_OK;
}


static smos__fragment_result_t parse4(const uint8_t *ip, uint32_t captured, uint32_t ip_len, smos__fragment_t *f)
{
    if (captured < 20) return SMOS__FRAGMENT_CUT;
    f->header_length = (ip[0] & 15u) * 4;
    if (f->header_length < 20) return SMOS__FRAGMENT_BAD;
    f->protocol = ip[9];
    f->id = be16(ip + 4);
    uint32_t field = be16(ip + 6);
    f->df = field & 0x4000;
    f->more = field & 0x2000;
    f->offset = (field & 0x1fff) * 8;
    return finish(f, ip, captured, ip_len, f->header_length);
}


static bool is_extension(uint8_t protocol)
{
    return protocol == HOP_BY_HOP || protocol == ROUTING || protocol == AUTHENTICATION || protocol == DESTINATION || protocol == MOBILITY ||
           protocol == HIP || protocol == SHIM6;
}


static smos__fragment_result_t parse6(const uint8_t *ip, uint32_t captured, uint32_t ip_len, smos__fragment_t *f)
{
    uint32_t at = 40, next_at = 6;
    if (captured < at) return SMOS__FRAGMENT_CUT;
    for (int i = 0; ip[next_at] != FRAGMENT; i++) {
        if (i == MAX_EXTENSIONS || !is_extension(ip[next_at])) return SMOS__FRAGMENT_BAD;
        if (captured - at < 2) return SMOS__FRAGMENT_CUT;
        uint32_t length = ip[next_at] == AUTHENTICATION ? (ip[at + 1] + 2u) * 4 : (ip[at + 1] + 1u) * 8;
        next_at = at;
        at += length;
        if (at > captured) return at > ip_len ? SMOS__FRAGMENT_BAD : SMOS__FRAGMENT_CUT;
    }
    if (captured - at < 8) return SMOS__FRAGMENT_CUT;
    f->header_length = at;
    f->next_at = next_at;
    f->protocol = ip[at];
    uint32_t field = be16(ip + at + 2);
    f->more = field & 1;
    f->offset = field & 0xfff8;
    f->id = be32(ip + at + 4);
    return finish(f, ip, captured, ip_len, at + 8);
}


smos__fragment_result_t smos__fragment_parse(const uint8_t *ip, uint32_t captured, uint32_t ip_len, smos__fragment_t *out)
{
    *out = (smos__fragment_t){ .data = NULL };
    if (captured > ip_len) captured = ip_len;
    if (captured < 1) return SMOS__FRAGMENT_CUT;
    out->version = ip[0] >> 4;
    if (out->version == 4) return parse4(ip, captured, ip_len, out);
    if (out->version == 6) return parse6(ip, captured, ip_len, out);
    return SMOS__FRAGMENT_BAD;
}


bool smos__datagram_fits(int version, uint32_t header_length, uint32_t data_length)
{
    return (version == 4 ? header_length : header_length - 40) + data_length <= SMOS__DATAGRAM_MAX;
}


static uint32_t header_sum(const uint8_t *p, uint32_t length)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i += 2) sum += be16(p + i);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}


void smos__datagram_header(uint8_t *header, uint32_t header_length, uint32_t data_length, uint8_t protocol, uint32_t next_at)
{
    if (header[0] >> 4 == 4) {
        put16(header + 2, header_length + data_length);
        put16(header + 6, be16(header + 6) & 0xc000);
        put16(header + 10, 0);
        put16(header + 10, ~header_sum(header, header_length) & 0xffff);
    } else {
        put16(header + 4, header_length - 40 + data_length);
        header[next_at] = protocol;
    }
}
