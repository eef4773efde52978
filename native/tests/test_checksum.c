/* The Internet checksum: RFC 1071's own example, and against the plainest way to compute it. */
#include "check.h"
#include "wire/walk.h"

static uint32_t plain(const uint8_t *p, uint32_t n, uint32_t sum)
{
    uint64_t s = sum;
    for (uint32_t i = 0; i < n; i++) s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    return (uint32_t)s;
}

static void test_rfc_1071(void)
{
    static const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 }; /* section 3 */
    CHECK_EQ(smos__checksum(data, 8, 0), 0xddf2);
}

static void test_every_length_and_offset(void)
{
    uint8_t data[1200];
    uint32_t x = 1;
    for (uint32_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    for (uint32_t offset = 0; offset < 9; offset++)
        for (uint32_t n = 0; n + offset <= 1190; n++) CHECK_EQ(smos__checksum(data + offset, n, n * 77 % 65536), plain(data + offset, n, n * 77 % 65536));
}

static void test_carries(void)
{
    static uint8_t ones[65535];
    memset(ones, 0xff, sizeof ones);
    for (uint32_t n = 65400; n <= 65535; n++) CHECK_EQ(smos__checksum(ones, n, 0xffff), plain(ones, n, 0xffff));
    CHECK_EQ(smos__checksum(ones, 0, 0), 0);
}

static void test_pseudo_header(void)
{
    smos_tuple_t t = { .version = 4 };
    smos__walk_t walk = { 0 };
    uint8_t segment[21], flat[80];
    for (int i = 0; i < 21; i++) segment[i] = (uint8_t)(i * 37 + 200);
    for (int i = 0; i < 16; i++) t.src[i] = (uint8_t)(240 + i), t.dst[i] = (uint8_t)(7 * i);
    const uint8_t tail4[] = { 0, 6, 0, 21 }, tail6[] = { 0, 0, 0, 21, 0, 0, 0, 6 };
    memcpy(flat, t.src + 12, 4);
    memcpy(flat + 4, t.dst + 12, 4);
    memcpy(flat + 8, tail4, 4);
    memcpy(flat + 12, segment, 21);
    CHECK_EQ(smos__transport_sum(&walk, &t, segment, 21, 6), plain(flat, 33, 0));
    t.version = 6;
    memcpy(flat, t.src, 16);
    memcpy(flat + 16, t.dst, 16);
    memcpy(flat + 32, tail6, 8);
    memcpy(flat + 40, segment, 21);
    CHECK_EQ(smos__transport_sum(&walk, &t, segment, 21, 6), plain(flat, 61, 0));
}

int main(void)
{
    RUN(test_rfc_1071);
    RUN(test_every_length_and_offset);
    RUN(test_carries);
    RUN(test_pseudo_header);
    return 0;
}
