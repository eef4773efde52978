/* TCP options byte by byte: what is taken from them, and what is wrong with them. */
#include "check.h"
#include "wire/walk.h"

static smos__decoded_t decoded;

static smos__layer_t parse(const void *bytes, uint32_t n, uint8_t tcp_flags)
{
    smos__layer_t l;
    memset(&l, 0, sizeof l);
    l.tcp_flags = tcp_flags;
    smos__walk_t w = { .out = &decoded, .layer = &l };
    smos__tcp_options(&w, &l, bytes, n);
    return l;
}

static int has(const smos__layer_t *l, smos__anomaly_t anomaly)
{
    for (int i = 0; i < l->anomaly_count; i++)
        if (l->anomalies[i] == anomaly) return 1;
    return 0;
}

#define PARSE(text, flags) parse(text, sizeof text - 1, flags)

static void test_values(void)
{
    smos__layer_t l = PARSE("\x02\x04\x05\xb4\x04\x02\x08\x0a\x00\x01\x02\x03\x0a\x0b\x0c\x0d\x01\x03\x03\x07", SMOS__SYN);
    CHECK_EQ(l.flags, SMOS__HAS_MSS | SMOS__SACK_PERMITTED | SMOS__HAS_TIMESTAMP | SMOS__HAS_WSCALE);
    CHECK_EQ(l.mss, 1460);
    CHECK_EQ(l.tsval, 0x00010203);
    CHECK_EQ(l.tsecr, 0x0a0b0c0d);
    CHECK_EQ(l.wscale, 7);
    CHECK_EQ(l.anomaly_count, 0);
}

static void test_sack_blocks(void)
{
    const char *text = "\x01\x01\x05\x12" "aaaabbbbccccdddd";
    smos__layer_t l = parse(text, 20, SMOS__ACK);
    CHECK_EQ(l.sack_blocks, 2);
    CHECK(l.sack == (const uint8_t *)text + 4);
    CHECK_EQ(l.anomaly_count, 0);
    l = PARSE("\x05\x0b" "aaaabbbbc", SMOS__ACK);
    CHECK_EQ(l.sack_blocks, 0);
    CHECK(has(&l, SMOS__ANOMALY_TCP_OPT_INVALID_LEN));
}

static void test_fast_open(void)
{
    CHECK_EQ(PARSE("\x22\x02", SMOS__SYN).flags, SMOS__HAS_TFO);
    CHECK_EQ(PARSE("\x22\x0a" "cookie00", SMOS__SYN).flags, SMOS__HAS_TFO);
    CHECK_EQ(PARSE("\x22\x05" "abc", SMOS__SYN).flags, SMOS__BAD_OPTIONS);
    CHECK_EQ(PARSE("\xfe\x04\xf9\x89", SMOS__SYN).flags, SMOS__HAS_TFO);
    CHECK_EQ(PARSE("\xfe\x04\xf9\x8a", SMOS__SYN).flags, 0);
}

static void test_end_stops(void)
{
    smos__layer_t l = PARSE("\x01\x00\x02\x01\x99", SMOS__SYN);
    CHECK_EQ(l.flags, 0);
    CHECK_EQ(l.anomaly_count, 0);
}

static void test_lengths(void)
{
    smos__layer_t l = PARSE("\x02\x04\x05\xb4\x08\x00", SMOS__SYN); /* length 0 would loop for ever */
    CHECK_EQ(l.mss, 1460);
    CHECK(l.flags & SMOS__BAD_OPTIONS && has(&l, SMOS__ANOMALY_TCP_INVALID_HLEN));
    l = PARSE("\x08\x0a\x00\x00\x00\x00\x00\x00\x00", SMOS__ACK); /* beyond the header */
    CHECK_EQ(l.flags, SMOS__BAD_OPTIONS);
    l = PARSE("\x08", SMOS__ACK);
    CHECK_EQ(l.flags, SMOS__BAD_OPTIONS);
    l = PARSE("\x02\x03\x05\x03\x03\x07", SMOS__SYN); /* a wrong length, but it says where the next begins */
    CHECK_EQ(l.flags, SMOS__BAD_OPTIONS | SMOS__HAS_WSCALE);
    CHECK(has(&l, SMOS__ANOMALY_TCP_OPT_INVALID_LEN));
    l = PARSE("\xfd\x02\x1e\x0a\x00\x00\x00\x00\x00\x00\x00\x00", SMOS__ACK); /* unknown ones are skipped */
    CHECK_EQ(l.flags, 0);
    CHECK_EQ(l.anomaly_count, 0);
}

static void test_oddities(void)
{
    smos__layer_t l = PARSE("\x03\x03\x0e", SMOS__SYN);
    CHECK_EQ(l.wscale, 14);
    CHECK_EQ(l.anomaly_count, 0);
    l = PARSE("\x03\x03\x0f", SMOS__SYN); /* RFC 7323 2.3: used as 14 */
    CHECK_EQ(l.wscale, 14);
    CHECK(has(&l, SMOS__ANOMALY_TCP_WSCALE_TOO_LARGE));
    l = PARSE("\x02\x04\x05\xb4", SMOS__ACK);
    CHECK(has(&l, SMOS__ANOMALY_TCP_OPT_ON_DATA));
    l = PARSE("\x04\x02\x04\x02", SMOS__SYN);
    CHECK(has(&l, SMOS__ANOMALY_TCP_OPT_DUPLICATE));
    l = PARSE("\x1e\x04zz\x1e\x04zz", SMOS__ACK); /* MPTCP stands several times by design */
    CHECK_EQ(l.anomaly_count, 0);
}

int main(void)
{
    RUN(test_values);
    RUN(test_sack_blocks);
    RUN(test_fast_open);
    RUN(test_end_stops);
    RUN(test_lengths);
    RUN(test_oddities);
    return 0;
}
