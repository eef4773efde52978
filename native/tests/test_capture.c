/* Capture files: every format and form gives the frames that were written, damage is one line, and nothing before it is lost. */
#include <fcntl.h>
#include <pcap/pcap.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "captures.h"

#define MICRO 0xa1b2c3d4u
#define NANO 0xa1b23c4du
#define MODIFIED 0xa1b2cd34u

static void expect_frame(const content_t *c, int index, int64_t time_ns, uint32_t caplen, uint32_t len, uint8_t fill)
{
    CHECK(index < c->count);
    const smos__frame_t *f = &c->frames[index];
    CHECK_EQ(f->time_ns, time_ns);
    CHECK_EQ(f->caplen, caplen);
    CHECK_EQ(f->len, len);
    for (uint32_t i = 0; i < caplen; i++) CHECK_EQ(f->data[i], fill);
}

static void test_pcap_of_each_byte_order_and_resolution(void)
{
    for (int form = 0; form < 4; form++) {
        bytes_t b = { .big = form & 1 };
        int nano = form >> 1;
        pcap_header(&b, nano ? NANO : MICRO, 65535, 1);
        pcap_record(&b, 1000000000, 123456, 60, 60, 0x11);
        pcap_record(&b, 4000000000u, 7, 100, 1500, 0x22); /* after 2038 */
        pcap_record(&b, 1000000001, 0, 0, 40, 0);
        content_t c = read_all(save(&b), SMOS__READER_AUTO);
        CHECK_EQ(c.result, SMOS__PORT_END);
        CHECK_EQ(c.count, 3);
        expect_frame(&c, 0, 1000000000ll * 1000000000 + 123456 * (nano ? 1 : 1000), 60, 60, 0x11);
        expect_frame(&c, 1, 4000000000ll * 1000000000 + 7 * (nano ? 1 : 1000), 100, 1500, 0x22);
        expect_frame(&c, 2, 1000000001ll * 1000000000, 0, 40, 0);
        CHECK_EQ(c.stats.bytes, 60 + 1500 + 40);
        CHECK_EQ(c.stats.time_backward, 1);
        discard(&c);
    }
}

static void test_longer_record_headers(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MODIFIED, 65535, 1);
    for (int i = 0; i < 3; i++) {
        put32(&b, 100);
        put32(&b, 5);
        put32(&b, 20);
        put32(&b, 30);
        put_fill(&b, 0xee, 8);
        put_fill(&b, (uint8_t)i, 20);
    }
    content_t c = read_all(save(&b), SMOS__READER_AUTO);
    CHECK_EQ(c.count, 3);
    for (int i = 0; i < 3; i++) expect_frame(&c, i, 100ll * 1000000000 + 5000, 20, 30, (uint8_t)i);
    discard(&c);
}

/* libpcap cuts what is beyond the snap length of the header, and takes over-long records for damage. */
static void test_lengths_that_lie(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 50, 1);
    pcap_record(&b, 1, 0, 80, 80, 0x33);
    pcap_record(&b, 2, 0, 20, 10, 0x44); /* more captured than there was */
    pcap_record(&b, 3, 0, 262145, 262145, 0x55);
    const char *path = save(&b);
    content_t c = read_all(path, SMOS__READER_AUTO);
    CHECK_EQ(c.count, 2);
    expect_frame(&c, 0, 1000000000, 50, 80, 0x33);
    expect_frame(&c, 1, 2000000000, 20, 20, 0x44);
    CHECK_EQ(c.result, SMOS__PORT_FAILED);
    CHECK(strstr(c.error, "is damaged: packet 3 claims 262145 captured bytes") != NULL);
    CHECK(strstr(c.error, path) != NULL);
    discard(&c);
}

static void test_largest_packets(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 0, 1);
    for (int i = 0; i < 12; i++) pcap_record(&b, (uint32_t)i, 0, 262144, 262144, (uint8_t)i);
    const char *path = save(&b);
    content_t c = read_all(path, SMOS__READER_AUTO);
    CHECK_EQ(c.count, 12);
    for (int i = 0; i < 12; i++) expect_frame(&c, i, i * 1000000000ll, 262144, 262144, (uint8_t)i);
    discard(&c);
}

static void test_cut_in_a_packet(void)
{
    for (int big = 0; big < 2; big++)
        for (size_t cut = 1; cut < 76; cut++) {
            bytes_t b = { .big = big };
            pcap_header(&b, MICRO, 65535, 1);
            for (int i = 0; i < 3; i++) pcap_record(&b, 10, 0, 60, 60, (uint8_t)i);
            b.length -= cut;
            content_t c = read_all(save(&b), SMOS__READER_AUTO);
            CHECK_EQ(c.count, 2);
            CHECK_EQ(c.result, SMOS__PORT_FAILED);
            CHECK(strstr(c.error, "is cut short in packet 3") != NULL);
            discard(&c);
        }
}

static void expect_refused(const char *path, const char *words)
{
    char error[SMOS__PORT_ERROR] = "";
    smos__port_t *port = open_with(path, SMOS__READER_AUTO, error);
    CHECK(port == NULL);
    if (strstr(error, words) == NULL) fprintf(stderr, "got: %s\nwanted: %s\n", error, words);
    CHECK(strstr(error, words) != NULL);
    CHECK(strchr(error, '\n') == NULL);
}

static void test_what_is_no_capture_is_refused_in_one_line(void)
{
    bytes_t b = { 0 };
    expect_refused("/nonexistent/x.pcap", "/nonexistent/x.pcap cannot be opened: No such file or directory");
    expect_refused("/", "/ is a directory");
    expect_refused("/dev/null", "is empty");
    expect_refused(save(&b), "is empty");
    put_fill(&b, 'x', 3);
    expect_refused(save(&b), "is neither pcap nor pcapng");
    put_fill(&b, 'x', 3000);
    expect_refused(save(&b), "is neither pcap nor pcapng");
    for (size_t length = 4; length < 24; length++) {
        pcap_header(&b, MICRO, 1, 1);
        b.length = length;
        expect_refused(save(&b), "is cut short in its file header");
    }
    for (size_t length = 4; length < 28; length += 4) {
        ng_section(&b);
        b.length = length;
        expect_refused(save(&b), "is cut short in its file header");
    }
    pcap_header(&b, MICRO, 65535, 189);
    expect_refused(save(&b), "link type 189 (USB_LINUX), which is not supported");
    ng_section(&b);
    ng_interface(&b, 189, 0, -1, 0);
    ng_packet(&b, 0, 5, 20, 20, 1);
    expect_refused(save(&b), "link type 189 (USB_LINUX), which is not supported");
    if (geteuid() != 0) {
        pcap_header(&b, MICRO, 65535, 1);
        const char *path = save(&b);
        CHECK_EQ(chmod(path, 0), 0);
        expect_refused(path, "cannot be opened: Permission denied");
    }
    char name[600];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    name[590] = '\n';
    expect_refused(name, "...nnn");
}

static void test_a_capture_without_packets_ends(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 65535, 1);
    content_t c = read_all(save(&b), SMOS__READER_AUTO);
    CHECK_EQ(c.count, 0);
    CHECK_EQ(c.result, SMOS__PORT_END);
    ng_section(&b);
    c = read_all(save(&b), SMOS__READER_AUTO);
    CHECK_EQ(c.count, 0);
    CHECK_EQ(c.result, SMOS__PORT_END);
}

/* Interfaces of different link type, resolution, offset; two sections of different byte order; all kinds of packet blocks. */
static void make_pcapng(bytes_t *b, int big)
{
    b->big = big;
    ng_section(b);
    ng_interface(b, 1, 0, -1, 0);
    ng_interface(b, 101, 96, 9, 0);
    ng_interface(b, 105, 0, 0x80 | 20, 1000);
    ng_packet(b, 0, 1500000ull * 1000000 + 7, 60, 60, 1);
    ng_packet(b, 1, 1500001ull * 1000000000 + 9, 33, 1400, 2);
    bytes_t unknown = { .big = big };
    put_fill(&unknown, 9, 40);
    ng_block(b, 0x0bad, &unknown);
    ng_packet(b, 2, (5ull << 20) + (1 << 19), 61, 61, 3);
    bytes_t simple = { .big = big };
    put32(&simple, 50);
    put_fill(&simple, 4, 50);
    ng_block(b, 3, &simple);
    bytes_t old = { .big = big };
    put16(&old, 0);
    put16(&old, 0xffff);
    put32(&old, 0);
    put32(&old, 77);
    put32(&old, 13);
    put32(&old, 14);
    put_fill(&old, 5, 13);
    ng_block(b, 2, &old);
    b->big = !big;
    ng_section(b);
    ng_interface(b, 228, 0, 3, -2);
    ng_packet(b, 0, 12345, 20, 20, 6);
    free(unknown.data);
    free(simple.data);
    free(old.data);
}

static void expect_pcapng(const content_t *c)
{
    static const uint16_t linktypes[] = { 1, 101, 105, 1, 1, 228 };
    CHECK_EQ(c->result, SMOS__PORT_END);
    CHECK_EQ(c->count, 6);
    expect_frame(c, 0, 1500000ll * 1000000000 + 7000, 60, 60, 1);
    expect_frame(c, 1, 1500001ll * 1000000000 + 9, 33, 1400, 2);
    expect_frame(c, 2, 1005ll * 1000000000 + 500000000, 61, 61, 3);
    expect_frame(c, 3, 1005ll * 1000000000 + 500000000, 50, 50, 4);
    expect_frame(c, 4, 77000, 13, 14, 5);
    expect_frame(c, 5, 10345000000ll, 20, 20, 6);
    for (int i = 0; i < 6; i++) CHECK_EQ(c->frames[i].linktype, linktypes[i]);
}

static void test_pcapng_of_mixed_interfaces_and_sections(void)
{
    for (int big = 0; big < 2; big++) {
        bytes_t b = { 0 };
        make_pcapng(&b, big);
        content_t c = read_all(save(&b), SMOS__READER_AUTO);
        expect_pcapng(&c);
        discard(&c);
    }
}

static void test_pcapng_damage(void)
{
    static const struct { uint32_t type, length, trailer; const char *words; } blocks[] = {
        { 6, 8, 8, "impossible length" },
        { 6, 33, 33, "impossible length" },
        { 6, 0xfffffff0u, 0, "impossible length" },
        { 6, 32, 28, "two lengths differ" },
        { 6, 16, 16, "too short" },
        { 1, 12, 12, "too short" },
    };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        bytes_t b = { 0 };
        ng_section(&b);
        ng_interface(&b, 1, 0, -1, 0);
        ng_packet(&b, 0, 1, 40, 40, 1);
        put32(&b, blocks[i].type);
        put32(&b, blocks[i].length);
        if (blocks[i].length < 1000 && blocks[i].length > 12) put_fill(&b, 0, (blocks[i].length & ~3u) - 12);
        put32(&b, blocks[i].trailer);
        put_fill(&b, 0, 64);
        content_t c = read_all(save(&b), SMOS__READER_AUTO);
        CHECK_EQ(c.count, 1);
        CHECK_EQ(c.result, SMOS__PORT_FAILED);
        CHECK(strstr(c.error, "is damaged after packet 1: ") != NULL);
        CHECK(strstr(c.error, blocks[i].words) != NULL);
        discard(&c);
    }
    bytes_t b = { 0 };
    ng_section(&b);
    ng_interface(&b, 1, 0, -1, 0);
    ng_packet(&b, 1, 1, 40, 40, 1);
    content_t c = read_all(save(&b), SMOS__READER_AUTO);
    CHECK(strstr(c.error, "interface that is not described") != NULL);
    discard(&c);
}

static bytes_t many_packets(int count, uint32_t seed)
{
    bytes_t b = { 0 };
    pcap_header(&b, NANO, 65535, 1);
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525 + 1013904223;
        pcap_record(&b, 1000 + (uint32_t)i, seed >> 8, seed >> 22, 2000, (uint8_t)(seed >> 16));
    }
    return b;
}

static bytes_t copy_of(const bytes_t *b)
{
    bytes_t copy = { .big = b->big };
    put(&copy, b->data, b->length);
    return copy;
}

static void expect_equal(const content_t *a, const content_t *b, const char *what)
{
    if (a->count != b->count) fprintf(stderr, "%s: %d frames against %d\n", what, a->count, b->count);
    CHECK_EQ(a->count, b->count);
    for (int i = 0; i < a->count; i++) {
        const smos__frame_t *x = &a->frames[i], *y = &b->frames[i];
        int same = x->caplen == y->caplen && x->len == y->len && x->linktype == y->linktype && x->time_ns == y->time_ns && memcmp(x->data, y->data, x->caplen) == 0;
        if (!same)
            fprintf(stderr, "%s: frame %d: %u/%u link %u time %lld against %u/%u link %u time %lld\n", what, i + 1, x->caplen, x->len, x->linktype,
                    (long long)x->time_ns, y->caplen, y->len, y->linktype, (long long)y->time_ns);
        CHECK(same);
    }
}

static bytes_t gzipped(const uint8_t *data, size_t length)
{
    bytes_t out = { 0 };
    uint8_t *room = malloc(length + 10000);
    z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)length, .next_out = room, .avail_out = (uInt)length + 10000 };
    CHECK_EQ(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, 0), Z_OK);
    CHECK_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
    put(&out, room, z.total_out);
    deflateEnd(&z);
    free(room);
    return out;
}

static bytes_t zstded(const uint8_t *data, size_t length)
{
    bytes_t out = { 0 };
    size_t room = ZSTD_compressBound(length);
    uint8_t *to = malloc(room);
    size_t made = ZSTD_compress(to, room, data, length, 3);
    CHECK(!ZSTD_isError(made));
    put(&out, to, made);
    free(to);
    return out;
}

/* 6 MB, so that buffers slide and fill many times; in one member, in three, and followed by padding. */
static void test_gzip_and_zstd_give_what_the_plain_file_gives(void)
{
    bytes_t plain = many_packets(12000, 1), copy = copy_of(&plain);
    content_t expected = read_all(save(&copy), SMOS__READER_AUTO);
    CHECK_EQ(expected.count, 12000);
    for (int form = 0; form < 6; form++) {
        bytes_t (*pack)(const uint8_t *, size_t) = form < 3 ? gzipped : zstded;
        bytes_t packed = { 0 };
        size_t cuts[4] = { 0, form % 3 ? 1 : plain.length, form % 3 ? 700001 : plain.length, plain.length };
        for (int i = 0; i < 3; i++) {
            if (cuts[i] == cuts[i + 1]) continue;
            bytes_t part = pack(plain.data + cuts[i], cuts[i + 1] - cuts[i]);
            put(&packed, part.data, part.length);
            free(part.data);
        }
        if (form == 2) put_fill(&packed, 0, 700);
        if (form == 5) {
            bytes_t skippable = { 0 };
            put32(&skippable, 0x184d2a53);
            put32(&skippable, 5);
            put_fill(&skippable, 1, 5);
            put(&skippable, packed.data, packed.length);
            free(packed.data);
            packed = skippable;
        }
        content_t c = read_all(save(&packed), SMOS__READER_AUTO);
        CHECK_EQ(c.result, SMOS__PORT_END);
        expect_equal(&c, &expected, form < 3 ? "gzip" : "zstd");
        discard(&c);
    }
    discard(&expected);
    free(plain.data);
}

static void test_damaged_compression(void)
{
    bytes_t plain = many_packets(3000, 2);
    for (int form = 0; form < 4; form++) {
        bytes_t packed = (form < 2 ? gzipped : zstded)(plain.data, plain.length);
        if (form & 1) packed.length /= 2;
        else memset(packed.data + packed.length / 2, 0xff, 64);
        content_t c = read_all(save(&packed), SMOS__READER_AUTO);
        CHECK_EQ(c.result, SMOS__PORT_FAILED);
        CHECK(c.count < 3000);
        char words[64];
        /* flipped bytes may unpack into nonsense before the unpacker notices */
        snprintf(words, sizeof words, form & 1 ? "is cut short in its %s data" : "damaged", form < 2 ? "gzip" : "zstd");
        CHECK(strstr(c.error, words) != NULL);
        discard(&c);
    }
    bytes_t broken = gzipped(plain.data, plain.length);
    broken.data[12] = 0xff; /* a block type that is none */
    broken.data[10] = 0xff;
    expect_refused(save(&broken), "holds damaged gzip data: invalid block type");
    bytes_t text = gzipped((const uint8_t *)"just some text", 14);
    expect_refused(save(&text), "is neither pcap nor pcapng");
    free(plain.data);
}

/* From a pipe, written in pieces with pauses: the same frames, and 0 rather than a wait while there is nothing. */
static void test_standard_input_in_pieces(void)
{
    for (int form = 0; form < 3; form++) {
        bytes_t plain = { 0 };
        if (form == 2) make_pcapng(&plain, 1);
        else plain = many_packets(400, 3);
        bytes_t copy = copy_of(&plain);
        content_t expected = read_all(save(&copy), SMOS__READER_AUTO);
        bytes_t sent = form == 1 ? gzipped(plain.data, plain.length) : copy_of(&plain);
        int ends[2];
        CHECK_EQ(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            size_t at = 0, piece = 1;
            while (at < sent.length) {
                size_t n = sent.length - at < piece ? sent.length - at : piece;
                if (write(ends[1], sent.data + at, n) != (ssize_t)n) _exit(1);
                at += n;
                piece = piece * 3 % 7919 + 1;
                if (at < 3000) usleep(200);
            }
            _exit(0);
        }
        close(ends[1]);
        int saved = dup(0);
        dup2(ends[0], 0);
        close(ends[0]);
        char error[SMOS__PORT_ERROR];
        smos__port_t *port = open_with("-", SMOS__READER_AUTO, error);
        CHECK(port != NULL);
        CHECK(port->fd >= 0);
        dup2(saved, 0);
        close(saved);
        content_t c = drain_bursts(port, 7);
        CHECK_EQ(c.result, SMOS__PORT_END);
        expect_equal(&c, &expected, "standard input");
        discard(&c);
        discard(&expected);
        free(plain.data);
        free(sent.data);
    }
}

static void test_only_plain_files_are_mapped(void)
{
    bytes_t plain = many_packets(3, 4), packed = gzipped(plain.data, plain.length);
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = open_with(save(&plain), SMOS__READER_MAPPED, error);
    CHECK(port != NULL);
    port->close(port);
    CHECK(open_with(save(&packed), SMOS__READER_MAPPED, error) == NULL);
    CHECK(strstr(error, "cannot be mapped") != NULL);
}

/* A file that shrinks between two windows ends in an error. */
static void test_a_file_that_becomes_shorter(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 0, 1);
    for (int i = 0; i < 60; i++) pcap_record(&b, 1, 0, 262144, 262144, 1);
    const char *path = save(&b);
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = open_with(path, SMOS__READER_MAPPED, error);
    smos__frame_t frame;
    CHECK(port != NULL);
    CHECK_EQ(port->receive(port, &frame, 1), 1);
    CHECK_EQ(truncate(path, 8 << 20), 0);
    int got, count = 1;
    while ((got = port->receive(port, &frame, 1)) == 1) count++;
    CHECK_EQ(got, SMOS__PORT_FAILED);
    CHECK(strstr(port->error, "became shorter while it was read") != NULL);
    CHECK(count > 20 && count < 40);
    port->close(port);
}

/* And one that shrinks within the window under the hand, below the frames of the burst too. */
static void test_a_file_that_becomes_shorter_within_a_window(void)
{
    for (int ng = 0; ng < 2; ng++)
        for (off_t left = 65536; left <= 1 << 20; left *= 2) {
            bytes_t b = { 0 };
            if (ng) {
                ng_section(&b);
                ng_interface(&b, 1, 262144, -1, 0);
            } else {
                pcap_header(&b, MICRO, 0, 1);
            }
            for (int i = 0; i < 1000; i++) ng ? ng_packet(&b, 0, 1, 1500, 1500, 1) : pcap_record(&b, 1, 0, 1500, 1500, 1);
            const char *path = save(&b);
            char error[SMOS__PORT_ERROR];
            smos__port_t *port = open_with(path, SMOS__READER_MAPPED, error);
            smos__frame_t frame[8];
            CHECK(port != NULL);
            CHECK_EQ(port->receive(port, frame, 8), 8);
            CHECK_EQ(truncate(path, left), 0);
            int got, count = 8;
            volatile uint32_t sum = 0;
            while ((got = port->receive(port, frame, 8)) > 0) {
                count += got;
                for (int i = 0; i < got; i++)
                    for (uint32_t k = 0; k < frame[i].caplen; k++) sum += frame[i].data[k];
            }
            (void)sum;
            CHECK_EQ(got, SMOS__PORT_FAILED);
            CHECK(strstr(port->error, "became shorter while it was read") != NULL);
            CHECK(count >= left / 1600 - 8 && count <= left / 1500 + 8);
            port->close(port);
        }
}

int main(void)
{
    RUN(test_pcap_of_each_byte_order_and_resolution);
    RUN(test_longer_record_headers);
    RUN(test_lengths_that_lie);
    RUN(test_largest_packets);
    RUN(test_cut_in_a_packet);
    RUN(test_what_is_no_capture_is_refused_in_one_line);
    RUN(test_a_capture_without_packets_ends);
    RUN(test_pcapng_of_mixed_interfaces_and_sections);
    RUN(test_pcapng_damage);
    RUN(test_gzip_and_zstd_give_what_the_plain_file_gives);
    RUN(test_damaged_compression);
    RUN(test_standard_input_in_pieces);
    RUN(test_only_plain_files_are_mapped);
    RUN(test_a_file_that_becomes_shorter);
    RUN(test_a_file_that_becomes_shorter_within_a_window);
    return 0;
}
