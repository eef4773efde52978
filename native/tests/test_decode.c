/* Decoding, frame by frame from bytes written by hand after the RFCs' layouts: what is found. */
#include "frames.h"

static void is_the_tcp(void)
{
    CHECK(l != NULL);
    CHECK_EQ(d.result, SMOS__WIRE_OK);
    CHECK_EQ(l->tuple.proto, 6);
    CHECK_EQ(l->tuple.sport, 1234);
    CHECK_EQ(l->tuple.dport, 80);
    CHECK_EQ(l->seq, 100);
    CHECK_EQ(l->ack, 200);
    CHECK_EQ(l->window, 8192);
    CHECK_EQ(l->tcp_flags, SMOS__PSH | SMOS__ACK);
    CHECK(l->flags & SMOS__L4_WHOLE);
}

#define WLAN(control, more) control "020000000001 020000000002 020000000003 0000" more
#define LLC "aaaa03 000000 0800"
#define ZEROS12 "000000000000000000000000"

static void test_links(void)
{
    static const struct {
        uint32_t linktype;
        const char *head;
    } links[] = {
        { 1, MACS "0800" }, { 1, MACS "8100 0064 0800" }, { 1, MACS "88a8 0064 8100 00c8 0800" },
        { 1, MACS "8847 00010140" }, { 1, MACS "8847 00010040 00020140" },
        { 1, MACS "8864 1100 0007 002a 0021" },
        { 1, MACS "0030 aaaa03 000000 0800" },                     /* 802.3, LLC, SNAP */
        { 1, MACS "002b 060603" },                                /* 802.3, LLC for IP */
        { 1, MACS "88e7 00000001 " MACS "0800" },                 /* 802.1ah */
        { 1, MACS "893f 000000000000 0800" },                     /* E-TAG */
        { 1, MACS "8926 00000000 0800" },                         /* VN-Tag */
        { 1, MACS "8903 0001 " MACS "0800" },                     /* FabricPath */
        { 0, "02000000" }, { 0, "00000002" }, { 108, "00000002" },
        { 101, "" }, { 12, "" }, { 14, "" }, { 228, "" },
        { 113, "0000 0001 0006 0200000000020000 0800" },
        { 276, "0800 0000 00000002 0001 00 06 0200000000020000" },
        { 9, "ff03 0021" }, { 9, "0021" }, { 9, "21" }, { 50, "ff03 0021" }, { 9, "0f00 0800" }, { 104, "0f00 0800" },
        { 10, "50 020000000002 020000000001 aaaa03 000000 0800" },
        { 6, "1040 020000000002 020000000001 aaaa03 000000 0800" },
        { 6, "1040 020000000002 820000000001 0630 0011 0022 aaaa03 000000 0800" }, /* source routed */
        { 8, "" }, { 7, "0102 f0" }, { 129, "01020000 f0" }, { 129, "01020000 d4 00 0001" }, { 129, "01020000 d4 ff ffff d4 00 0001" },
        { 239, "02000000 08000100 08000300 2c000900" },
        { 242, "0000000000000000000000000000000000000000 0000000000000000000000000000000000000000 08000000" },
        { 192, "00000800 65000000" },
        { 178, "4d474300 " MACS "0800" }, { 178, "4d474382 0004 01020304 00000002" },
        { 11, "aaaa03 000000 0800" },
        { 1, MACS "892f 0034 0001 0800" },                        /* HSR */
        { 1, MACS "88e5 00 00 00000001 0800" },                   /* MACsec, not encrypted */
        { 1, MACS "88e5 20 00 00000001 0000000000000000 0800" },  /* with the channel's name */
        { 1, MACS "22f3 0001 0001 0002 " MACS "0800" },           /* TRILL */
        { 1, MACS "22f3 0041 0001 0002 00000000" MACS "0800" },   /* with options */
        { 105, WLAN("0801 0000", "") LLC }, { 105, WLAN("8801 0000", "0000") LLC }, { 105, WLAN("0803 0000", "020000000004") LLC },
        { 127, "00000800 00000000" WLAN("0801 0000", "") LLC },
        { 127, "00001200 03000000 0000000000000000 20 00" WLAN("8801 0000", "0000 0000") LLC },    /* time, flags: padded after the header */
        { 127, "00000d00 020000a0 00000000 20" WLAN("8801 0000", "0000 0000") LLC },               /* two presence words */
        { 119, "44000000 0c000000 00000000" WLAN("0801 0000", "") LLC }, { 163, "80211001 0000000c 00000000" WLAN("0801 0000", "") LLC },
        { 192, "00000800 69000000" WLAN("0801 0000", "") LLC },
        { 107, "1841 03cc" }, { 107, "1841 0300 80 000000 0800" }, { 107, "1841 0300 80 0080c2 0007" MACS "0800" }, { 107, "1841 0800" },
        { 107, "18404041 03cc" }, { 206, "00 1841 03cc" },
        { 51, "1100 0007 002a 0021" }, { 166, "0003 0021" }, { 204, "01 ff03 0021" }, { 205, "01 0f00 0800" }, { 9, "ff03 003d c0000001 0021" },
        { 109, "02000000 00000000 00000000" },
        { 117, "3d020000" ZEROS12 ZEROS12 ZEROS12 ZEROS12 ZEROS12 },
        { 122, "0000020000000001 0000020000000002 aaaa03 000000 0800" }, { 123, "02000005 aaaa03 000000 0800" },
        { 138, "0200000000010000 0200000000020000 0800" },
        { 197, "0000000000000000 0204 004a 0000 0036 0000" MACS "0800" }, { 197, "0000000000000000 8204 004a 0000 0036 0000000000000000 0000" MACS "0800" },
        { 197, "0000000000000000 1604 003c 0000 0028" },
        { 226, "02020000 0000003c" ZEROS12 "00000000" },
        { 258, "0c000000 01000000 01000000" MACS "0800" }, { 149, "0c000000 01000000 01000000" MACS "0800" },
    };
    char frame[512];
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        snprintf(frame, sizeof frame, "%s%s%s", links[i].head, V4, TCP);
        decode(links[i].linktype, frame);
        if (d.result != SMOS__WIRE_OK) fprintf(stderr, "link type %u: %s\n", links[i].linktype, links[i].head);
        is_the_tcp();
        CHECK_EQ(d.layers, 1);
        CHECK_EQ(l->payload_len, 0);
        CHECK_EQ(d.anomaly_count + l->anomaly_count, 0);
        CHECK(smos__linktype_supported(links[i].linktype));
    }
    CHECK(!smos__linktype_supported(189));
    CHECK(!smos__linktype_supported(65537));
    for (const char *const *f = (const char *const[]){ "18000000", "0000001c", "1e000000", NULL }; *f; f++) { /* BSD's AF_INET6 */
        snprintf(frame, sizeof frame, "%s%s%s", *f, V6("0014", "06"), TCP);
        decode(0, frame);
        is_the_tcp();
        CHECK_EQ(l->tuple.version, 6);
    }
}

static void test_tuple(void)
{
    static const uint8_t src[16] = { [10] = 255, [11] = 255, 10, 0, 0, 1 }, dst[16] = { [10] = 255, [11] = 255, 10, 0, 0, 2 };
    decode(1, MACS "88a8 0064 8100 00c8 8100 0001 0800" V4 TCP);
    is_the_tcp();
    CHECK(!memcmp(l->tuple.src, src, 16) && !memcmp(l->tuple.dst, dst, 16));
    CHECK_EQ(l->vlan[0], 100);
    CHECK_EQ(l->vlan[1], 200);
    CHECK_EQ(l->tuple.vlan, 100);
    CHECK(raised("vlan_too_many_layers"));
    decode(1, MACS "88a8 0064 8100 00c8 0800" V4 TCP);
    CHECK(!raised("vlan_too_many_layers"));
}

static void test_lengths_that_lie(void)
{
    decode(1, MACS "0800" V4 TCP "0000 0000 0000"); /* Ethernet padding */
    is_the_tcp();
    CHECK_EQ(l->payload_len, 0);
    CHECK_EQ(l->ip_len, 40);
    decode(1, MACS "0800 45000000 12344000 40060000 0a000001 0a000002" TCP "61626364"); /* total length 0: offload */
    is_the_tcp();
    CHECK_EQ(l->payload_len, 4);
    decode(1, MACS "0800 450000f0 12344000 40060000 0a000001 0a000002" TCP "61626364");
    is_the_tcp();
    CHECK_EQ(l->payload_len, 4); /* clamped to the frame */
    CHECK(raised("ipv4_trunc_pkt"));
    decode(1, MACS "8864 1100 0007 002c 0021 450000f0 12344000 40060000 0a000001 0a000002" TCP "6162 6364");
    CHECK_EQ(l->payload_len, 2); /* clamped to PPPoE's length */
    decode_with(1, MACS "0800 4500002c 12344000 40060000 0a000001 0a000002" TCP "61626364", 3, 0); /* cut by the snap length */
    is_the_tcp();
    CHECK_EQ(l->payload_len, 4);
    CHECK_EQ(l->payload_captured, 1);
    CHECK((l->flags & (SMOS__TRUNCATED | SMOS__UNCHECKED)) == (SMOS__TRUNCATED | SMOS__UNCHECKED));
    decode(1, MACS "86dd" V6("0000", "06") TCP "616263"); /* BIG TCP */
    is_the_tcp();
    CHECK_EQ(l->payload_len, 3);
    decode(1, MACS "86dd" V6("0000", "00") "0600 c204 0000001e" TCP "61 62636465"); /* jumbo payload option of 30, and padding */
    is_the_tcp();
    CHECK_EQ(l->payload_len, 2);
    decode(1, MACS "0800" V4_UDP("0024", "0035 000c 0000") "61626364 65666768"); /* UDP shorter than IP */
    CHECK_EQ(l->payload_len, 4);
    decode(1, MACS "86dd" V6("000c", "11") "04d20035 0000 0000 61626364"); /* UDP in a jumbogram */
    CHECK_EQ(l->payload_len, 4);
    decode(101, "450000c8 12342000 40110000 0a000001 0a000002 04d20035 00b40000 6162"); /* a first fragment that lies: nothing will come of it */
    CHECK_EQ(d.result, SMOS__WIRE_OK);
    CHECK_EQ(l->tuple.dport, 53);
    CHECK(raised("fragment_truncated"));
}

static void test_checksums(void)
{
    /* whole and right (computed by a separate program after RFC 1071), then a byte is turned */
    const char *good = MACS "0800 4500002c 12344000 40061496 0a000001 0a000002 04d20050 00000064 000000c8 50182000 b0b10000 61626364";
    char bad[512];
    decode_with(1, good, 0, 0);
    is_the_tcp();
    CHECK(!(l->flags & (SMOS__BAD_CHECKSUM | SMOS__UNCHECKED)));
    snprintf(bad, sizeof bad, "%s", good);
    bad[strlen(bad) - 1] = '5';
    decode_with(1, bad, 0, 0);
    CHECK(l->flags & SMOS__BAD_CHECKSUM && raised("tcp_bad_checksum") && !raised("ipv4_bad_checksum"));
    decode_with(1, bad, 0, SMOS__FRAME_NO_CHECKSUM);
    CHECK((l->flags & (SMOS__BAD_CHECKSUM | SMOS__UNCHECKED)) == SMOS__UNCHECKED && l->anomaly_count == 0);
    snprintf(bad, sizeof bad, "%s", good);
    memcpy(strstr(bad, "40061496"), "41061496", 8);
    decode_with(1, bad, 0, 0);
    CHECK(raised("ipv4_bad_checksum") && !raised("tcp_bad_checksum"));
}

static void test_tunnels(void)
{
    static const struct {
        const char *frame;
        int layers, kind;
        uint32_t id;
    } rows[] = {
        { "4500003c 00000000 40040000 01010101 02020202" V4 TCP, 2, SMOS_TUNNEL_IPIP, 0 },
        { V6("0028", "04") V4 TCP, 2, SMOS_TUNNEL_IPIP, 0 },
        { "45000040 00000000 402f0000 01010101 02020202 00000800" V4 TCP, 2, SMOS_TUNNEL_GRE, 0 },
        { "4500004c 00000000 402f0000 01010101 02020202 b0000800 00000000 0000002a 00000001" V4 TCP, 2, SMOS_TUNNEL_GRE, 42 },
        { "45000052 00000000 402f0000 01010101 02020202 20006558 0000002b" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_GRE, 43 },
        { "45000050 00000000 402f0000 01010101 02020202 3081880b 002c0007 00000001 00000001 ff030021" V4 TCP, 2, SMOS_TUNNEL_GRE, 7 },
        { "45000064 00000000 402f0000 01010101 02020202 100088be 00000001 1000002d 00000000" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_ERSPAN, 45 },
        { "45000064 00000000 402f0000 01010101 02020202 000088be" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_ERSPAN, 0 },
        { "45000064 00000000 402f0000 01010101 02020202 100022eb 00000001 2000002e 00000000 00000000" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_ERSPAN, 46 },
        { "45000064 00000000 40110000 01010101 02020202 d00012b5 00500000 08000000 00002f00" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_VXLAN, 47 },
        { "45000064 00000000 40110000 01010101 02020202 d00017c1 00500000 01006558 00003000 01020304" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_GENEVE, 48 },
        { "45000064 00000000 40110000 01010101 02020202 08680868 00500000 30ff0028 00000031" V4 TCP, 2, SMOS_TUNNEL_GTPU, 49 },
        { "45000064 00000000 40110000 01010101 02020202 08680868 00500000 34ff0030 00000032 00000085 01000900" V4 TCP, 2, SMOS_TUNNEL_GTPU, 50 },
        { "45000064 00000000 40110000 01010101 02020202 0dd80dd8 00500000" V6("0014", "06") TCP, 2, SMOS_TUNNEL_TEREDO, 0 },
        { "45000064 00000000 40110000 01010101 02020202 0dd80dd8 00500000 00000102 03040506" V6("0014", "06") TCP, 2, SMOS_TUNNEL_TEREDO, 0 },
        { "45000064 00000000 40110000 01010101 02020202 06a506a5 00500000 0002 0003 0004 ff030021" V4 TCP, 2, SMOS_TUNNEL_L2TP, 3 << 16 | 4 },
        { "45000064 00000000 40110000 01010101 02020202 06a506a5 00500000 4a02 003e 0003 0004 00010001 0002 0000 0021" V4 TCP, 2, SMOS_TUNNEL_L2TP, 3 << 16 | 4 },
        { "45000064 00000000 40110000 01010101 02020202 d00010f5 00500000 0000000000000000" V4 TCP, 2, SMOS_TUNNEL_NONE, 0 },
        { "45000064 00000000 40110000 01010101 02020202 d0009090 00500000 01000001 0a0120 00 01" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_NONE, 0 },
        { "45000078 00000000 40110000 01010101 02020202 d00013d0 00640000 41521104 00000000" ZEROS12 ZEROS12 ZEROS12 V4 TCP, 2, SMOS_TUNNEL_NONE, 0 },
        { "45000064 00000000 40110000 01010101 02020202 d00012b6 00500000 0c000004 00002f00 00020101 00000100" V4 TCP, 2, SMOS_TUNNEL_VXLAN, 47 },
        /* GPE that names what it carries without the P bit, as Arkime's captures have it */
        { "45000064 00000000 40110000 01010101 02020202 d00012b6 00500000 08000001 00002f00" V4 TCP, 2, SMOS_TUNNEL_VXLAN, 47 },
        { "45000064 00000000 40110000 01010101 02020202 12b6d000 00500000 08000001 00002f00" V4 TCP, 2, SMOS_TUNNEL_VXLAN, 47 },
        { "45000064 00000000 40110000 01010101 02020202 d00012b6 00500000 08000000 00002f00" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_VXLAN, 47 },
        { "45000064 00000000 408f0000 01010101 02020202" MACS "0800" V4 TCP, 2, SMOS_TUNNEL_IPIP, 0 },
        { "45000050 00000000 40040000 01010101 02020202 4500003c 00000000 40040000 03030303 04040404" V4 TCP, 3, SMOS_TUNNEL_IPIP, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        decode(101, rows[i].frame);
        if (d.layers != rows[i].layers) fprintf(stderr, "%s\n", rows[i].frame);
        CHECK_EQ(d.layers, rows[i].layers);
        is_the_tcp();
        CHECK_EQ(l->tunnel_kind, rows[i].kind);
        CHECK_EQ(l->tunnel_id, rows[i].id);
        CHECK_EQ(d.layer[0].tunnel_kind, SMOS_TUNNEL_NONE);
        CHECK_EQ(d.layer[0].tunnel_id, 0);
        for (int k = 0; k < d.layers - 1; k++) CHECK(d.layer[k].ip < d.layer[k + 1].ip);
    }
    decode(101, "45000020 00000000 402f0000 01010101 02020202 2081880b 00000007 00000001"); /* PPTP: an acknowledgement alone */
    CHECK_EQ(d.result, SMOS__WIRE_OK);
    CHECK_EQ(d.layers, 1);
    CHECK_EQ(d.anomaly_count + l->anomaly_count, 0);
}

/* What only looks like a tunnel's header stays the payload of the outer packet. */
static void test_no_tunnels(void)
{
    static const char *const rows[] = {
        "45000064 00000000 40110000 01010101 02020202 06a506a5 00500000 c802 0014 0000 0000 0000 0000" V4 TCP, /* L2TP: a control message */
        "45000064 00000000 40110000 01010101 02020202 06a506a5 00500000 0003 0003 0004 ff030021" V4 TCP,      /* version 3 */
        "45000064 00000000 40110000 01010101 02020202 d00010f5 00500000 0000000000000000 30" V4 TCP,           /* LISP without IP */
        ("45000064 00000000 40110000 01010101 02020202 d0009090 00500000 01000001 0aff20 00 01" MACS),           /* TZSP: a tag beyond the end */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        decode(101, rows[i]);
        CHECK_EQ(d.result, SMOS__WIRE_OK);
        CHECK_EQ(d.layers, 1);
        CHECK_EQ(l->tuple.proto, 17);
    }
    static const struct { uint32_t linktype; const char *frame; } others[] = {
        { 105, WLAN("0841 0000", "") LLC V4 TCP },  /* encrypted */
        { 105, WLAN("8000 0000", "") LLC V4 TCP },  /* a beacon */
        { 105, WLAN("0008 0000", "") LLC V4 TCP },  /* association, sent again: no swapped data frame */
        { 105, WLAN("c801 0000", "0000") V4 TCP },  /* no data */
        { 1, MACS "88e5 0c 00 00000001 0800" V4 TCP }, /* encrypted */
        { 107, "1841 0308" V4 TCP }, { 9, "ff03 003d 80000001 0021" V4 TCP },
        { 258, "0c000000 01000000 02010000" MACS "0800" V4 TCP }, /* within itself */
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        decode(others[i].linktype, others[i].frame);
        CHECK_EQ(d.result, SMOS__WIRE_NOT_IP);
        CHECK_EQ(d.layers, 0);
    }
}

static void test_icmp(void)
{
    decode(101, "4500001c 00000000 40010000 0a000001 0a000002 08000000 12340001");
    CHECK_EQ(l->tuple.sport, 0x1234);
    CHECK_EQ(l->tuple.dport, 0x1234);
    decode(101, "45000038 00000000 40010000 0a000009 0a000001 03010000 00000000 45000054 12344000 40060000 0a000001 0a000002 04d20050 00000064");
    CHECK_EQ(d.layers, 1); /* what is quoted is no layer */
    CHECK_EQ(l->tuple.sport, 3 * 256 + 1);
    CHECK(l->flags & SMOS__ICMP_ERROR);
    CHECK_EQ(l->quoted.proto, 6);
    CHECK_EQ(l->quoted.sport, 1234);
    CHECK_EQ(l->quoted.dport, 80);
    CHECK_EQ(l->quoted_seq, 100);
    CHECK_EQ(l->quoted.src[15], 1);
    decode(101, V6("0038", "3a") "01040000 00000000" V6("0064", "11") "04d20035 00100000");
    CHECK(l->flags & SMOS__ICMP_ERROR);
    CHECK_EQ(l->quoted.proto, 17);
    CHECK_EQ(l->quoted.dport, 53);
}

static void test_routes(void)
{
    decode(101, "48000034 12344000 40060000 0a000001 0a000002 830b04 0b0b0b0b 0c0c0c0c 00" TCP); /* LSRR: still to go to 12.12.12.12 */
    is_the_tcp();
    CHECK_EQ(l->tuple.dst[12], 12);
    CHECK(raised("ipv4_source_route"));
    decode(101, "48000034 12344000 40060000 0a000001 0a000002 830b0c 0b0b0b0b 0c0c0c0c 00" TCP); /* used up */
    CHECK_EQ(l->tuple.dst[12], 10);
    decode(101, V6("002c", "2b") "06020001 00000000 fe800000000000000000000000000009" TCP);
    is_the_tcp();
    CHECK_EQ(l->tuple.dst[15], 2); /* the checksum is over the list's last address, the flow is the header's */
    CHECK(raised("ipv6_rh_type_0"));
    decode(101, V6("002c", "2b") "06020000 00000000 fe800000000000000000000000000009" TCP);
    CHECK_EQ(l->tuple.dst[15], 2);
    decode(101, V6("0024", "3c") "2c000104 00000000 06000000 00000007 " TCP); /* destination options, atomic fragment */
    is_the_tcp();
    CHECK(raised("ipv6_atomic_fragment"));
    decode(101, V6("002c", "33") "06040000 00000001 00000001 000000000000000000000000" TCP); /* AH */
    is_the_tcp();
}

static void test_results(void)
{
    decode(1, MACS "0806 0001 0800 0604 0001");
    CHECK_EQ(d.result, SMOS__WIRE_NOT_IP);
    decode(147, "00");
    CHECK_EQ(d.result, SMOS__WIRE_LINKTYPE);
    decode_with(1, MACS "0800" V4 TCP, 38, 0);
    CHECK_EQ(d.result, SMOS__WIRE_TRUNCATED);
    CHECK_EQ(d.anomaly_count, 0); /* a snap length is nobody's fault */
    decode(101, "4500001c 12342000 40060000 0a000001 0a000002 0000000000000000");
    CHECK_EQ(d.result, SMOS__WIRE_FRAGMENT);
    CHECK_EQ(d.fragments, 1);
    CHECK_EQ(d.layers, 0);
}

static void test_nesting(void)
{
    char frame[2048] = "";
    for (int i = 0; i < 6; i++) strcat(frame, "450000c8 00000000 40040000 01010101 02020202");
    decode(101, strcat(frame, V4 TCP));
    CHECK_EQ(d.layers, SMOS__MAX_LAYERS);
    CHECK(raised("nesting_too_deep"));
    strcpy(frame, MACS);
    for (int i = 0; i < 60; i++) strcat(frame, "8100 0001 ");
    decode(1, strcat(frame, "0800" V4 TCP));
    CHECK_EQ(d.layers, 0);
    CHECK(raised("nesting_too_deep"));
}

int main(void)
{
    RUN(test_links);
    RUN(test_tuple);
    RUN(test_lengths_that_lie);
    RUN(test_checksums);
    RUN(test_tunnels);
    RUN(test_no_tunnels);
    RUN(test_icmp);
    RUN(test_routes);
    RUN(test_results);
    RUN(test_nesting);
    free(block);
    return 0;
}
