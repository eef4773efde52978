#include <pthread.h>

#include "check.h"
#include "port/filter.h"

/* 10.1.2.3:1234 -> 10.9.8.7:80, SYN */
static const uint8_t tcp4[] = { 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 9, 8, 7, 4, 210, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0 };
/* fe80::1 -> ff02::1, UDP 5353 -> 53 */
static const uint8_t udp6[] = { 0x60, 0, 0, 0, 0, 8, 17, 64, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x14, 0xe9, 0, 53, 0, 8, 0, 0 };

static int matches(const char *text, const uint8_t *ip, uint32_t captured)
{
    char error[256] = "";
    smos__filter_t *filter = smos__filter_compile(text, error, sizeof error);
    if (filter == NULL) fprintf(stderr, "%s: %s\n", text, error);
    CHECK(filter != NULL);
    int result = smos__filter_match(filter, ip, ip[0] >> 4 == 4 ? sizeof tcp4 : sizeof udp6, captured);
    smos__filter_free(filter);
    return result;
}

static void test_expressions_over_ip(void)
{
    static const struct { const char *text; int tcp, udp; } cases[] = {
        { "tcp", 1, 0 }, { "udp", 0, 1 }, { "ip", 1, 0 }, { "ip6", 0, 1 }, { "tcp port 80", 1, 0 }, { "port 53", 0, 1 }, { "src host 10.1.2.3", 1, 0 },
        { "dst host 10.1.2.3", 0, 0 }, { "net 10.9.0.0/16", 1, 0 }, { "not tcp", 0, 1 }, { "tcp[tcpflags] & tcp-syn != 0", 1, 0 }, { "host ff02::1", 0, 1 },
        { "portrange 1000-2000", 1, 0 }, { "len <= 40", 1, 0 }, { "tcp or udp", 1, 1 }, { "", 1, 1 }, { " \t", 1, 1 }, { NULL, 1, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_EQ(matches(cases[i].text, tcp4, sizeof tcp4), cases[i].tcp);
        CHECK_EQ(matches(cases[i].text, udp6, sizeof udp6), cases[i].udp);
    }
}

static void test_what_was_not_captured_does_not_match(void)
{
    CHECK_EQ(matches("tcp port 80", tcp4, sizeof tcp4), 1);
    CHECK_EQ(matches("tcp port 80", tcp4, 22), 0);
    for (uint32_t captured = 0; captured < 9; captured++) {
        uint8_t *exact = malloc(captured ? captured : 1); /* a read beyond it is found by the sanitizer */
        memcpy(exact, tcp4, captured);
        char error[256];
        smos__filter_t *filter = smos__filter_compile("tcp port 80", error, sizeof error);
        CHECK_EQ(smos__filter_match(filter, exact, sizeof tcp4, captured), 0);
        smos__filter_free(filter);
        free(exact);
    }
}

static void test_refusals_are_one_line_in_libpcaps_words(void)
{
    static const struct { const char *text, *words; } cases[] = {
        { "tcp port", "syntax error" }, { "tcp port 99999", "illegal port number" }, { "ether host 00:11:22:33:44:55", "ethernet addresses supported only on" },
        { "vlan 5", "no VLAN support" }, { "host 300.1.1.1", "" }, { "tcp\nfoo", "" }, { "inbound", "" }, { "(tcp", "syntax error" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[256] = "";
        smos__filter_t *filter = smos__filter_compile(cases[i].text, error, sizeof error);
        if (filter != NULL) fprintf(stderr, "accepted: %s\n", cases[i].text);
        CHECK(filter == NULL);
        if (strstr(error, cases[i].words) == NULL) fprintf(stderr, "%s: %s\n", cases[i].text, error);
        CHECK(error[0] != '\0' && strchr(error, '\n') == NULL && strstr(error, cases[i].words) != NULL);
    }
    size_t length = 70000;
    char *text = malloc(length + 1), error[16];
    memset(text, '(', length);
    text[length] = '\0';
    CHECK(smos__filter_compile(text, error, sizeof error) == NULL);
    text[60000] = '\0';
    CHECK(smos__filter_compile(text, error, sizeof error) == NULL);
    CHECK(strlen(error) < sizeof error);
    free(text);
}

static void *compile_many(void *arg)
{
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(matches(arg, tcp4, sizeof tcp4), 1);
        char error[128];
        CHECK(smos__filter_compile("tcp portt 80", error, sizeof error) == NULL);
    }
    return NULL;
}

static void test_several_threads(void)
{
    pthread_t threads[4];
    char *texts[] = { "tcp port 80", "host 10.1.2.3 and tcp", "net 10.0.0.0/8", "ip or udp" };
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, compile_many, texts[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

int main(void)
{
    RUN(test_expressions_over_ip);
    RUN(test_what_was_not_captured_does_not_match);
    RUN(test_refusals_are_one_line_in_libpcaps_words);
    RUN(test_several_threads);
    return 0;
}
