/* Zeek's conn_state, history and byte counts: first what the Zeek manual says of each state and letter, then connections of
 * Zeek's own test captures, summarised by hand, with the rows that Zeek's baselines give for them. */
#include "check.h"
#include "tcp/zeek.h"
#include "wire/packet.h"

typedef struct flow {
    smos__zeek_t z;
    char history[SMOS_HISTORY_MAX];
    uint64_t missed;
} flow_t;

static const uint32_t isn[2] = {1000, UINT32_MAX - 9};

/* One packet: "> SA 0 1 20 w": sender, flags (S F R A, - none), sequence and acknowledgement number relative to each side's ISN, payload
 * bytes, w for a zero window. Beside these: "> g LENGTH" a gap in the client's bytes,
 * "> h LENGTH" bytes of the client that were cut by the snap length, "> c" a bad checksum. */
static void packet(flow_t *f, const char *text)
{
    char direction, flags[8], window[4] = "";
    long long seq = 0, ack = 0;
    unsigned length = 0;
    int fields = sscanf(text, " %c %7s %lld %lld %u %3s", &direction, flags, &seq, &ack, &length, window);
    int from = direction == '>' ? SMOS_CLIENT : SMOS_SERVER;
    CHECK(fields >= 2);
    if (flags[0] == 'g') {
        if (smos__zeek_gap(&f->z, f->history, from))
            f->missed += (uint64_t)seq;
        return;
    }
    if (flags[0] == 'h') {
        if (smos__zeek_hole(&f->z, from))
            f->missed += (uint64_t)seq;
        return;
    }
    if (flags[0] == 'c') {
        smos__zeek_bad_checksum(&f->z, f->history, from);
        return;
    }
    smos__zeek_segment_t s = {.from = (uint8_t)from, .payload_len = length, .window = window[0] == 'w' ? 0 : 1024};
    for (const char *p = flags; *p; p++)
        s.flags |= *p == 'S' ? SMOS__SYN : *p == 'F' ? SMOS__FIN : *p == 'R' ? SMOS__RST : *p == 'A' ? SMOS__ACK : 0;
    s.seq = isn[from] + (uint32_t)seq;
    s.ack = s.flags & SMOS__ACK ? isn[!from] + (uint32_t)ack : 0;
    smos__zeek_segment(&f->z, f->history, &s);
}

static void run(flow_t *f, bool flipped, const char *packets)
{
    f->missed = 0;
    smos__zeek_init(&f->z, f->history, flipped);
    char text[2048], *rest = NULL;
    snprintf(text, sizeof text, "%s", packets);
    for (char *p = strtok_r(text, ";", &rest); p; p = strtok_r(NULL, ";", &rest))
        packet(f, p);
}

typedef struct row {
    const char *packets;
    const char *conn_state, *history;
    long long client_bytes, server_bytes, missed;
    bool flipped;
} row_t;

static void check_rows(const row_t *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        flow_t f;
        run(&f, rows[i].flipped, rows[i].packets);
        CHECK_STR(f.history, rows[i].history);
        CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 6), rows[i].conn_state);
        CHECK_EQ(smos__zeek_span(&f.z, SMOS_CLIENT), rows[i].client_bytes);
        CHECK_EQ(smos__zeek_span(&f.z, SMOS_SERVER), rows[i].server_bytes);
        CHECK_EQ(f.missed, rows[i].missed);
    }
}
#define ROWS(...) \
    do { \
        static const row_t rows[] = {__VA_ARGS__}; \
        check_rows(rows, sizeof rows / sizeof *rows); \
    } while (0)

#define OPEN "> S 0 0 0;< SA 0 1 0;> A 1 1 0;"

static void test_each_conn_state(void)
{
    ROWS({"> S 0 0 0", "S0", "S", 0, 0, 0, false},
         {"> S 0 0 0;> S 0 0 0;> S 0 0 0", "S0", "S", 0, 0, 0, false},
         {OPEN, "S1", "ShA", 0, 0, 0, false},
         {OPEN "> A 1 1 10;< A 1 11 20;> A 11 21 0;> FA 11 21 0;< A 21 12 0;< FA 21 12 0;> A 12 22 0", "SF", "ShADdFaf", 10, 20, 0, false},
         {"> S 0 0 0;< RA 0 1 0", "REJ", "Sr", 0, 0, 0, false},
         {OPEN "> FA 1 1 0", "S2", "ShAF", 0, 0, 0, false},
         {OPEN "< FA 1 1 0", "S3", "ShAf", 0, 0, 0, false},
         {OPEN "> R 1 0 0", "RSTO", "ShAR", 0, 0, 0, false},
         {OPEN "< A 1 1 5;< R 6 0 0", "RSTR", "ShAdr", 0, 5, 0, false},
         {"> S 0 0 0;> R 1 0 0", "RSTOS0", "SR", 0, 0, 0, false},
         {"< SA 0 1 0;< R 1 0 0", "RSTRH", "^hr", 0, 0, 0, true},
         {"> S 0 0 0;> F 1 0 0", "SH", "SF", 0, 0, 0, false},
         {"< SA 0 1 0;< FA 1 1 0", "SHR", "^hf", 0, 0, 0, true},
         {"> A 1 1 10;< A 1 11 20", "OTH", "Dd", 10, 20, 0, false},
         {"> R 1 0 0", "OTH", "R", 0, 0, 0, false});
}

static void test_both_reset(void)
{
    /* Reject if neither side sent a byte; else the responder's reset decides. */
    ROWS({"> S 0 0 0;> R 1 0 0;< RA 0 1 0", "REJ", "SRr", 0, 0, 0, false},
         {OPEN "> A 1 1 10;> R 11 0 0;< R 1 0 0", "RSTR", "ShADRr", 10, 0, 0, false});
}

static void test_fin_crossing_a_reset_is_an_ordinary_end(void)
{
    ROWS({OPEN "> FA 1 1 0;> R 2 0 0;< FA 1 2 0", "SF", "ShAFRf", 0, 0, 0, false},
         {OPEN "> FA 1 1 0;< FA 1 2 0;> R 2 0 0", "SF", "ShAFfR", 0, 0, 0, false});
}

static void test_letters_once_per_direction(void)
{
    ROWS({OPEN "> A 1 1 5;> A 6 1 5;< A 1 11 0;< A 1 11 0;< A 1 11 3;< A 4 11 3", "S1", "ShADad", 10, 6, 0, false});
}

static void test_payload_in_a_control_packet_gives_no_d(void)
{
    ROWS({OPEN "> FA 1 1 4", "S2", "ShAF", 4, 0, 0, false},
         /* the data of a first SYN is t at once: Zeek has then already counted the segment as sent */
         {"> S 0 0 7;< SA 0 8 0;> A 8 1 0;> FA 8 1 4", "S2", "SThAF", 11, 0, 0, false});
}

static void test_control_letters_repeat_with_another_sequence_number(void)
{
    ROWS({OPEN "< R 1 0 0;< R 1 0 0;< R 2 0 0;< R 2 0 0", "RSTR", "ShArr", 0, 0, 0, false},
         {OPEN "> FA 1 1 0;> FA 1 1 0;> FA 3 1 0", "S2", "ShAFF", 2, 0, 0, false});
}

static void test_inconsistent_flags(void)
{
    ROWS({"> SF 0 0 0;> SF 0 0 0;> SR 0 0 0", "OTH", "Q", 0, 0, 0, false},
         {OPEN "> FR 1 1 0;> FR 1 1 0", "RSTO", "ShAI", 0, 0, 0, false});
}

static void test_retransmissions_by_powers_of_ten(void)
{
    flow_t f;
    run(&f, false, OPEN "> A 1 1 10;> A 1 1 10");
    CHECK_STR(f.history, "ShADT");
    for (int i = 2; i <= 9; i++)
        packet(&f, "> A 1 1 10");
    CHECK_STR(f.history, "ShADT");
    packet(&f, "> A 1 1 10");
    CHECK_STR(f.history, "ShADTT");
    for (int i = 11; i <= 10000; i++)
        packet(&f, "> A 1 1 10");
    CHECK_STR(f.history, "ShADTTTTT");
    for (int i = 0; i < 70000; i++) /* the counter stops, it does not begin anew */
        packet(&f, "> A 1 1 10");
    CHECK_STR(f.history, "ShADTTTTT");
    CHECK_EQ(smos__zeek_span(&f.z, SMOS_CLIENT), 10);
}

static void test_what_counts_as_a_retransmission(void)
{
    ROWS({OPEN "> A 1 1 10;> A 5 1 10", "S1", "ShAD", 14, 0, 0, false},      /* new bytes at its end: no */
         {OPEN "> A 1 1 10;> A 10 1 1", "S1", "ShADT", 10, 0, 0, false},     /* keepalive with a byte: yes */
         {OPEN "> A 1 1 10;> A 10 1 0", "S1", "ShAD", 10, 0, 0, false},      /* without: no */
         {OPEN "> A 11 1 10;> A 1 1 10", "S1", "ShADT", 20, 0, 0, false});   /* reordered: yes, as Zeek has it */
}

static void test_zero_windows(void)
{
    ROWS({OPEN "> A 1 1 10;< A 1 11 0 w;< A 1 11 0 w;< A 1 11 0", "S1", "ShADaw", 10, 0, 0, false},
         {OPEN "< R 1 0 0 w", "RSTR", "ShAr", 0, 0, 0, false},
         {OPEN "> FA 1 1 0;< A 1 2 0 w", "S2", "ShAFa", 0, 0, 0, false},
         {OPEN "> FA 1 1 0;> A 2 1 0 w", "S2", "ShAFW", 0, 0, 0, false});
    flow_t f;
    run(&f, false, OPEN);
    for (int i = 0; i < 100; i++)
        packet(&f, "< A 1 1 0 w");
    CHECK_STR(f.history, "ShAawww");
}

static void test_gaps_only_between_established_ends(void)
{
    ROWS({OPEN "> A 101 1 50;< A 1 151 0;> g 100", "S1", "ShADaG", 150, 0, 100, false},
         {"> A 1 1 10;< A 1 111 0;> g 100", "OTH", "Da", 110, 0, 0, false},
         {OPEN "> A 1 1 10;< FA 1 1 0;> A 11 2 0;< g 30", "S3", "ShADfg", 10, 0, 30, false},
         {OPEN "> R 1 0 0;< A 1 111 0;> g 110", "RSTO", "ShARa", 110, 0, 0, false});
}

static void test_bytes_cut_by_the_snap_length(void)
{
    /* one gap for each acknowledgement that covers some, as in the baseline of tcp/retransmit-fast009 */
    ROWS({OPEN "> A 1 1 100;> h 100;< A 1 101 0;< A 1 101 50;< h 50;< A 51 101 50;< h 50;> A 101 101 0;< A 51 101 50;> R 101 0 0", "RSTO", "ShADaGdgtR", 100,
          100, 200, false},
         {OPEN "> A 1 1 100;> h 100", "S1", "ShAD", 100, 0, 100, false});
}

static void test_bad_checksums_count_for_nothing_else(void)
{
    ROWS({OPEN "> c;< c;> c", "S1", "ShACc", 0, 0, 0, false});
}

static void test_midstream_base(void)
{
    ROWS({"> A 5000 700 10;< A 700 5010 20;> A 5010 720 0", "OTH", "DdA", 10, 20, 0, false},
         {"> A 5000 700 10", "OTH", "D", 10, 0, 0, false},
         {"> A 5000 700 10;> A 5010 900 10", "OTH", "D", 20, 0, 0, false});
}

static void test_far_reset_does_not_move_the_end(void)
{
    ROWS({OPEN "> A 1 1 10;> R 50000011 0 0", "RSTO", "ShADR", 10, 0, 0, false},
         {OPEN "> A 1 1 10;> R 111 0 0", "RSTO", "ShADR", 110, 0, 0, false},
         {OPEN "> A 1 1 10;> R 11 0 6", "RSTO", "ShADRT", 10, 0, 0, false}); /* its payload is no stream, yet counted as repeated */
}

static void test_more_than_4_gib(void)
{
    flow_t f;
    run(&f, false, OPEN);
    char text[64];
    long long at = 1;
    for (int i = 0; i < 9; i++, at += 1000000000) {
        snprintf(text, sizeof text, "< A %lld 1 1000000000", at);
        packet(&f, text);
    }
    snprintf(text, sizeof text, "< FA %lld 1 0", at);
    packet(&f, text);
    CHECK_EQ(smos__zeek_span(&f.z, SMOS_SERVER), 9000000000);
    CHECK_STR(f.history, "ShAdf");
}

static void test_zero_acknowledgement_far_away_is_ignored(void)
{
    flow_t f;
    run(&f, false, OPEN "> A 1 1 10");
    smos__zeek_segment_t s = {.seq = isn[1] + 1, .ack = 0, .flags = SMOS__ACK, .from = SMOS_SERVER, .window = 1};
    smos__zeek_segment(&f.z, f.history, &s);
    CHECK_EQ(smos__zeek_span(&f.z, SMOS_CLIENT), 10);
}

static void test_history_stays_within_its_bound(void)
{
    flow_t f;
    run(&f, false, OPEN);
    for (int i = 1; i < 200; i++) {
        char text[32];
        snprintf(text, sizeof text, "< R %d 0 0", i);
        packet(&f, text);
    }
    CHECK_EQ(strlen(f.history), SMOS_HISTORY_MAX - 1);
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 6), "RSTR");
}

static void test_datagrams(void)
{
    flow_t f;
    run(&f, false, "");
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 17), "OTH");
    smos__zeek_datagram(&f.z, f.history, SMOS_CLIENT);
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 17), "S0");
    smos__zeek_datagram(&f.z, f.history, SMOS_SERVER);
    smos__zeek_datagram(&f.z, f.history, SMOS_CLIENT);
    smos__zeek_bad_checksum(&f.z, f.history, SMOS_SERVER);
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 17), "SF");
    CHECK_STR(f.history, "Ddc");
    run(&f, true, "");
    smos__zeek_datagram(&f.z, f.history, SMOS_SERVER);
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 17), "SHR");
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 1), "OTH");
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 58), "OTH");
    CHECK_STR(smos__zeek_conn_state(&f.z, f.history, 132), "");
}

static void test_rows_of_zeeks_baselines(void)
{
    ROWS(/* ssh.client-side-half-duplex: only the client's packets */
         {"> S 0 0 0;> A 1 1 0;> A 1 21 22;> A 23 900 0;> FA 23 900 0", "SH", "SADF", 22, 0, 0, false},
         /* ssh.server-side-half-duplex: only the server's */
         {"< SA 0 1 0;< A 1 1 21;< A 22 1000 0;< FA 22 1000 0", "SHR", "^hdaf", 0, 21, 0, true},
         /* tcp/missing-syn: the SYN was not captured */
         {"< SA 0 1 0;> A 1 1 0;> A 1 1 100;< A 1 101 200;< A 201 101 0;> FA 101 201 0;< FA 201 102 0", "SF", "^hADdaFf", 100, 200, 0, true},
         /* ftp/cwd-navigation: bytes lost both ways in an open connection */
         {OPEN "< A 1 1 10;> A 1 11 10;< A 11 11 0;> A 20 11 5;< A 21 25 0;> g 9;> A 25 30 0;< g 10", "S1", "ShAdDaGg", 24, 29, 19, false});
}

int main(void)
{
    RUN(test_each_conn_state);
    RUN(test_both_reset);
    RUN(test_fin_crossing_a_reset_is_an_ordinary_end);
    RUN(test_letters_once_per_direction);
    RUN(test_payload_in_a_control_packet_gives_no_d);
    RUN(test_control_letters_repeat_with_another_sequence_number);
    RUN(test_inconsistent_flags);
    RUN(test_retransmissions_by_powers_of_ten);
    RUN(test_what_counts_as_a_retransmission);
    RUN(test_zero_windows);
    RUN(test_gaps_only_between_established_ends);
    RUN(test_bytes_cut_by_the_snap_length);
    RUN(test_bad_checksums_count_for_nothing_else);
    RUN(test_midstream_base);
    RUN(test_far_reset_does_not_move_the_end);
    RUN(test_more_than_4_gib);
    RUN(test_zero_acknowledgement_far_away_is_ignored);
    RUN(test_history_stays_within_its_bound);
    RUN(test_datagrams);
    RUN(test_rows_of_zeeks_baselines);
    return 0;
}
