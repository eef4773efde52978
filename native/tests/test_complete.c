/* Checksums that a sending host left to its device; the expected sums are another program's. */
#include "check.h"
#include "frames.h"
#include "wire/complete.h"

/* Ethernet, IPv4 10.0.0.1 > 10.0.0.2, UDP 5000 > 53, "hello". Sum of the pseudo-header: 0a00+0001+0a00+0002+0011+000d = 1421. */
#define UDP4 "020000000002 020000000001 0800 4500002100010000401166c9 0a000001 0a000002 1388 0035 000d "
#define HELLO " 68656c6c6f"
#define UDP6 "020000000002 020000000001 86dd 60000000000d1140 fd070000000000000000000000000001 fd070000000000000000000000000002 1388 0035 000d "

static uint8_t frame[256], whole[256];

static void is_completed(const char *bare, const char *expected)
{
    uint32_t n = bytes_of(bare, frame);
    CHECK_EQ(bytes_of(expected, whole), n);
    CHECK(smos__complete_checksum(frame, n));
    CHECK(!memcmp(frame, whole, n));
    CHECK(!smos__complete_checksum(frame, n)); /* once */
}

static void stays(const char *hex, uint32_t cut)
{
    uint32_t n = bytes_of(hex, frame);
    memcpy(whole, frame, n);
    CHECK(!smos__complete_checksum(frame, n - cut));
    CHECK(!memcmp(frame, whole, n));
}

static void test_a_bare_sum_is_completed(void)
{
    is_completed(UDP4 "1421" HELLO, UDP4 "9442" HELLO);
    is_completed(UDP6 "fa30" HELLO, UDP6 "ae32" HELLO);
}

static void test_behind_tags_and_before_padding(void)
{
    const char *tagged = "020000000002 020000000001 8100 0005 0800 4500002100010000401166c9 0a000001 0a000002 1388 0035 000d ";
    char bare[512], expected[512];
    snprintf(bare, sizeof bare, "%s 1421 %s 0000000000", tagged, HELLO);
    snprintf(expected, sizeof expected, "%s 9442 %s 0000000000", tagged, HELLO);
    is_completed(bare, expected);
    const char *twice = "020000000002 020000000001 88a8 0064 8100 0005 0800 4500002100010000401166c9 0a000001 0a000002 1388 0035 000d ";
    snprintf(bare, sizeof bare, "%s 1421 %s", twice, HELLO);
    snprintf(expected, sizeof expected, "%s 9442 %s", twice, HELLO);
    is_completed(bare, expected);
}

static void test_a_tcp_segment(void)
{
    /* 10.0.0.1:5000 > 10.0.0.2:80, SYN, seq 1: pseudo-header 0a00+0001+0a00+0002+0006+0014 = 141d */
    const char *head = "020000000002 020000000001 0800 4500002800010000400666cd 0a000001 0a000002 1388 0050 00000001 00000000 5002 ffff ";
    char bare[512], expected[512];
    snprintf(bare, sizeof bare, "%s 141d 0000", head);
    snprintf(expected, sizeof expected, "%s 8807 0000", head);
    is_completed(bare, expected);
}

static void test_everything_else_stays(void)
{
    stays(UDP4 "9442" HELLO, 0);                /* whole */
    stays(UDP4 "0000" HELLO, 0);                /* none */
    stays(UDP4 "1234" HELLO, 0);                /* wrong */
    for (uint32_t cut = 1; cut < 47; cut++) stays(UDP4 "1421" HELLO, cut);
    stays("020000000002 020000000001 0800 4500002100012000401166c9 0a000001 0a000002 1388 0035 000d 1421" HELLO, 0); /* a fragment */
    stays("020000000002 020000000001 0806 4500002100010000401166c9 0a000001 0a000002 1388 0035 000d 1421" HELLO, 0); /* ARP */
    stays("020000000002 020000000001 0800 4400002100010000401166c9 0a000001 0a000002 1388 0035 000d 1421" HELLO, 0); /* a header of 16 */
}

int main(void)
{
    RUN(test_a_bare_sum_is_completed);
    RUN(test_behind_tags_and_before_padding);
    RUN(test_a_tcp_segment);
    RUN(test_everything_else_stays);
    return 0;
}
