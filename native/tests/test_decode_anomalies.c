/* Each anomaly of the decoder: a frame that raises it, beside one that nearly does. */
#include "frames.h"

#define IP(head, total) head total " 12344000 40060000 0a000001 0a000002 "
#define UDP4(total) "4500" total " 12344000 40110000 0a000001 0a000002 "
#define ICMP4(total) "4500" total " 12344000 40010000 0a000001 0a000002 "
#define GRE4(total) "4500" total " 12344000 402f0000 0a000001 0a000002 "
#define T12(offset) "04d20050 00000064 000000c8 " offset "182000 00000000 "

static const struct {
    const char *name;
    uint32_t linktype;
    const char *raises, *nearly;
} rows[] = {
    { "ethernet_pkt_too_small", 1, "020000000002 020000000001 08", MACS "0806" },
    { "ethernet_bad_length", 1, MACS "0010 424203", MACS "0003 424203" },
    { "llc_pkt_too_small", 1, MACS "0003 aaaa03", MACS "0003 424203" },
    { "sll_pkt_too_small", 113, "0000 0001 0006 0200000000020000 08", "0000 0001 0006 0200000000020000 0806" },
    { "ppp_pkt_too_small", 9, "ff0300", "ff03c021" },
    { "pppoe_pkt_too_small", 1, MACS "8864 1100 0007 0000 00", MACS "8864 1100 0007 0002 c021" },
    { "pppoe_wrong_version", 1, MACS "8864 2100 0007 0002 c021", MACS "8864 1100 0007 0002 c021" },
    { "pppoe_length_too_large", 1, MACS "8864 1100 0007 0003 c021", MACS "8864 1100 0007 0002 c021" },
    { "chdlc_pkt_too_small", 104, "0f0008", "0f000806" },
    { "vlan_header_too_small", 1, MACS "8100 0001 08", MACS "8100 0001 0806" },
    { "vlan_too_many_layers", 1, MACS "8100 0001 8100 0002 8100 0003 0800" V4 TCP, MACS "8100 0001 8100 0002 0800" V4 TCP },
    { "mpls_header_too_small", 1, MACS "8847 000100", MACS "8847 00010140" V4 TCP },
    { "mpls_bad_label_implicit_null", 1, MACS "8847 00003140" V4 TCP, MACS "8847 00002140" V4 TCP },
    { "mpls_unknown_payload_type", 1, MACS "8847 00010140 70000000", MACS "8847 00010140" V4 TCP },
    { "ipv4_pkt_too_small", 1, MACS "0800 45000013 12344000 40060000 0a000001 0a0000", MACS "0800" V4 TCP },
    { "ipv4_wrong_ip_version", 1, MACS "0800" IP("5500", "0028") TCP, MACS "0800" V4 TCP },
    { "ipv4_hlen_too_small", 101, IP("4400", "0028") TCP, V4 TCP },
    { "ipv4_iplen_smaller_than_hlen", 101, IP("4500", "0013") TCP, IP("4500", "0014") },
    { "ipv4_trunc_pkt", 101, IP("4500", "0029") TCP, IP("4500", "0028") TCP },
    { "ipv4_opt_invalid", 101, IP("4600", "002c") "01010107" TCP, IP("4600", "002c") "01010100" TCP },
    { "ipv4_opt_invalid_len", 101, IP("4600", "002c") "07050000" TCP, IP("4600", "002c") "07040400" TCP },
    { "ipv4_opt_duplicate", 101, IP("4700", "0030") "94040000 94040000" TCP, IP("4700", "0030") "94040000 07040400" TCP },
    { "ipv4_opt_unknown", 101, IP("4600", "002c") "5d040000" TCP, IP("4600", "002c") "94040000" TCP },
    { "ipv4_source_route", 101, IP("4700", "0030") "89070404 05060700" TCP, IP("4700", "0030") "07070404 05060700" TCP },
    { "ipv4_reserved_flag", 101, "45000028 1234c000 40060000 0a000001 0a000002" TCP, V4 TCP },
    { "ipv6_pkt_too_small", 1, MACS "86dd 60000000 00000640", MACS "86dd" V6("0014", "06") TCP },
    { "ipv6_wrong_ip_version", 1, MACS "86dd 50000000 001406 40" A6 TCP, MACS "86dd" V6("0014", "06") TCP },
    { "ipv6_trunc_pkt", 101, V6("0015", "06") TCP, V6("0014", "06") TCP },
    { "ipv6_trunc_exthdr", 101, V6("0008", "3c") "06010104 00000000", V6("001c", "3c") "06000104 00000000" TCP },
    { "ipv6_exthdr_duplicate", 101, V6("0024", "2b") "2b000200 00000000 06000200 00000000" TCP, V6("001c", "2b") "06000200 00000000" TCP },
    { "ipv6_hopopts_not_first", 101, V6("0024", "3c") "00000104 00000000 06000104 00000000" TCP, V6("0024", "00") "3c000104 00000000 06000104 00000000" TCP },
    { "ipv6_rh_type_0", 101, V6("001c", "2b") "06000000 00000000" TCP, V6("001c", "2b") "06000200 00000000" TCP },
    { "ipv6_exthdr_invalid_optlen", 101, V6("001c", "3c") "06000105 00000000" TCP, V6("001c", "3c") "06000104 00000000" TCP },
    { "ipv6_atomic_fragment", 101, V6("001c", "2c") "06000000 00000001" TCP, V6("001c", "2c") "06000008 00000001" TCP },
    { "ipv6_exthdr_fh_non_zero_res_field", 101, V6("001c", "2c") "06010000 00000001" TCP, V6("001c", "2c") "06000000 00000001" TCP },
    { "ipv6_exthdr_ah_res_not_null", 101, V6("002c", "33") "06040001 00000001 00000001 000000000000000000000000" TCP,
      V6("002c", "33") "06040000 00000001 00000001 000000000000000000000000" TCP },
    { "fragment_truncated", 101, "45000029 12342000 40060000 0a000001 0a000002" TCP, "45000028 12342000 40060000 0a000001 0a000002" TCP },
    { "tcp_pkt_too_small", 101, IP("4500", "0027") "04d20050 00000064 000000c8 50182000 000000", V4 TCP },
    { "tcp_hlen_too_small", 101, V4 T12("40"), V4 T12("50") },
    { "tcp_invalid_optlen", 101, V4 T12("60"), IP("4500", "002c") T12("60") "01010101" },
    { "tcp_opt_invalid_len", 101, IP("4500", "002c") T12("60") "08030000", IP("4500", "002c") T12("60") "fd040000" },
    { "tcp_opt_duplicate", 101, IP("4500", "002c") T12("60") "04020402", IP("4500", "002c") T12("60") "04020101" },
    { "tcp_opt_without_syn", 101, IP("4500", "002c") T12("60") "020405b4", IP("4500", "002c") "04d20050 00000064 000000c8 60022000 00000000 020405b4" },
    { "tcp_wscale_too_large", 101, IP("4500", "002c") T12("60") "03030f00", IP("4500", "002c") T12("60") "03030e00" },
    { "udp_pkt_too_small", 101, UDP4("001b") "04d20035 000800", UDP4("001c") "04d20035 00080000" },
    { "udp_len_invalid", 101, UDP4("001c") "04d20035 00070000", UDP4("001c") "04d20035 00080000" },
    { "udp_len_invalid", 101, UDP4("001c") "04d20035 00090000", UDP4("001c") "04d20035 00080000" },
    { "udp_hlen_invalid", 101, UDP4("001d") "04d20035 00080000 61", UDP4("001d") "04d20035 00090000 61" },
    { "udp_v6_zero_checksum", 101, V6("0008", "11") "04d20035 00080000", V6("0008", "11") "04d20035 00081234" },
    { "sctp_pkt_too_small", 101, "4500001f 12344000 40840000 0a000001 0a000002 04d20050 00000001 000000", "45000020 12344000 40840000 0a000001 0a000002 04d20050 00000001 00000000" },
    { "icmpv4_pkt_too_small", 101, ICMP4("0017") "080000", ICMP4("001c") "08000000 00010001" },
    { "icmpv4_unknown_type", 101, ICMP4("001c") "01000000 00010001", ICMP4("001c") "08000000 00010001" },
    { "icmpv4_ipv4_trunc_pkt", 101, ICMP4("0037") "03010000 00000000" "45000054 12344000 40060000 0a000001 0a000002 04d20050 000000",
      ICMP4("0038") "03010000 00000000" "45000054 12344000 40060000 0a000001 0a000002 04d20050 00000064" },
    { "icmpv6_pkt_too_small", 101, V6("0003", "3a") "800000", V6("0008", "3a") "80000000 00010001" },
    { "icmpv6_unknown_type", 101, V6("0008", "3a") "06000000 00010001", V6("0008", "3a") "80000000 00010001" },
    { "icmpv6_ipv6_trunc_pkt", 101, V6("0037", "3a") "01040000 00000000" V6("0064", "11") "04d20035 001000",
      V6("0038", "3a") "01040000 00000000" V6("0064", "11") "04d20035 00100000" },
    { "icmp_wrong_family", 101, V6("0008", "01") "08000000 00010001", V6("0008", "3a") "80000000 00010001" },
    { "gre_pkt_too_small", 101, GRE4("001b") "20000800 000000", GRE4("0040") "00000800" V4 TCP },
    { "gre_wrong_version", 101, GRE4("0040") "00020800" V4 TCP, GRE4("0040") "00000800" V4 TCP },
    { "gre_version0_recur", 101, GRE4("0040") "01000800" V4 TCP, GRE4("0040") "00000800" V4 TCP },
    { "gre_version1_no_key", 101, GRE4("001c") "0001880b 00000000", GRE4("0020") "2001880b 00000000 00000000" },
    { "erspan_header_too_small", 101, GRE4("0023") "100088be 00000001 10000000 000000", GRE4("0032") "100088be 00000001 10000000 00000000" MACS "0806" },
    { "erspan_unsupported_version", 101, GRE4("0032") "100088be 00000001 30000000 00000000" MACS "0806", GRE4("0032") "100088be 00000001 10000000 00000000" MACS "0806" },
    { "vxlan_unknown_payload_type", 101, UDP4("0032") "d00012b5 001e0000 00000000 00002f00" MACS "0806", UDP4("0032") "d00012b5 001e0000 08000000 00002f00" MACS "0806" },
    { "geneve_unknown_payload_type", 101, UDP4("0032") "d00017c1 001e0000 40006558 00003000" MACS "0806", UDP4("0032") "d00017c1 001e0000 00006558 00003000" MACS "0806" },
    { "gtp_invalid_header", 101, UDP4("0028") "08680868 00140000 34ff0004 00000032 00000085", UDP4("0028") "08680868 00140000 30ff0004 00000032 45000014" },
    { "nsh_header_too_small", 1, MACS "894f 00030101 00000100", MACS "894f 00020101 00000100" V4 TCP },
    { "link_truncated", 108, "000000", "00000002" },
};

/* Those that only a checksum raises: the same frame with the right sum, and with one that is off by one. */
static uint32_t checksum_of(const char *frame)
{
    decode_with(101, frame, 0, 0);
    return d.layers ? l->flags & (SMOS__BAD_CHECKSUM | SMOS__UNCHECKED) : SMOS__BAD_CHECKSUM;
}

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        decode(rows[i].linktype, rows[i].raises);
        if (!raised(rows[i].name)) fprintf(stderr, "%s is not raised by %s\n", rows[i].name, rows[i].raises);
        CHECK(raised(rows[i].name));
        decode(rows[i].linktype, rows[i].nearly);
        if (raised(rows[i].name)) fprintf(stderr, "%s is raised by %s\n", rows[i].name, rows[i].nearly);
        CHECK(!raised(rows[i].name));
    }
}

static void test_checksum_rows(void)
{
    static const char *const right[] = { /* sums by a separate program after RFC 1071 */
        "4500002012344000401114970a0000010a00000204d20035000c220461626366",
        "4500001f12344000400114a80a0000010a0000020800309b00010001616266",
        "60000000000b3a4020010db800000000000000000000000120010db800000000000000000000000280005ce000010001616266",
        "60000000000c114020010db800000000000000000000000120010db800000000000000000000000204d20035000cda9161626366",
    };
    static const char *const names[] = { "udp_bad_checksum", "icmpv4_bad_checksum", "icmpv6_bad_checksum", "udp_bad_checksum" };
    char wrong[512];
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(checksum_of(right[i]), 0);
        snprintf(wrong, sizeof wrong, "%s", right[i]);
        wrong[strlen(wrong) - 1] ^= 1; /* 0 to 1, 6 to 7 and so on: the last bit of the payload */
        CHECK_EQ(checksum_of(wrong), SMOS__BAD_CHECKSUM);
        CHECK(raised(names[i]));
    }
}

static void test_names(void)
{
    CHECK_STR(smos__anomaly_name(0), "none");
    CHECK_STR(smos__anomaly_name(SMOS__ANOMALY_COUNT), "unknown");
    for (uint32_t a = 0; a < SMOS__ANOMALY_COUNT; a++)
        for (uint32_t b = 0; b < a; b++) CHECK(strcmp(smos__anomaly_name(a), smos__anomaly_name(b)) != 0);
}

int main(void)
{
    RUN(test_rows);
    RUN(test_checksum_rows);
    RUN(test_names);
    free(block);
    return 0;
}
