/* Whatever a module says, the batch stays valid msgpack with valid UTF-8 in its strings. */
#include <stdlib.h>

#include "check.h"
#include "event/outbox.h"

static smos__outbox_t box;
static const uint8_t *batch;
static uint32_t size;

/* The string that follows the key in the batch. */
static uint32_t value_of(const char *key, char *out)
{
    uint32_t n = (uint32_t)strlen(key);
    for (uint32_t i = 0; i + n + 6 < size; i++) {
        if (memcmp(batch + i, key, n) != 0 || batch[i - 1] != n || batch[i + n] != 0xda) continue;
        uint32_t length = (uint32_t)(batch[i + n + 1] << 8 | batch[i + n + 2]);
        CHECK(i + n + 3 + length <= size);
        memcpy(out, batch + i + n + 3, length);
        out[length] = '\0';
        return length;
    }
    CHECK(!"the key is there");
    return 0;
}

static void logged(const char *text, const char *expected)
{
    static char out[70000];
    CHECK_EQ(smos__outbox_log(&box, 1, "m", 1, text), 0);
    size = smos__outbox_take(&box, &batch);
    value_of("text", out);
    CHECK_STR(out, expected);
}

static void test_text_becomes_utf_8(void)
{
    logged("plain", "plain");
    logged("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
    logged("caf\xe9!", "caf\xef\xbf\xbd!");                                       /* Latin-1 */
    logged("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");                               /* longer than needed */
    logged("\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    logged("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");               /* a surrogate */
    logged("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* beyond U+10FFFF */
    logged("end \xe2\x82", "end \xef\xbf\xbd\xef\xbf\xbd");                       /* cut short */
    logged("\x80\xbf\xff", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_a_long_line_is_cut_between_characters(void)
{
    static char text[6000], out[70000];
    memset(text, 'x', 4095);
    memcpy(text + 4095, "\xe2\x82\xac more", 9);
    CHECK_EQ(smos__outbox_log(&box, 1, "m", 1, text), 0);
    size = smos__outbox_take(&box, &batch);
    CHECK_EQ(value_of("text", out), 4095);
    memset(text, 'x', 4093); /* the last character just fits */
    memcpy(text + 4093, "\xe2\x82\xacz", 5);
    CHECK_EQ(smos__outbox_log(&box, 1, "m", 1, text), 0);
    size = smos__outbox_take(&box, &batch);
    CHECK_EQ(value_of("text", out), 4096);
    memset(text, 0xff, 5999); /* replacing makes it longer */
    CHECK_EQ(smos__outbox_log(&box, 1, "m", 1, text), 0);
    size = smos__outbox_take(&box, &batch);
    CHECK_EQ(value_of("text", out), 4095);
    CHECK_EQ(4095 % 3, 0);
}

static void test_a_topic_too(void)
{
    static char out[70000];
    CHECK_EQ(smos__outbox_module(&box, 1, "m", "a\xff", 0, "\xff", 1), 0);
    size = smos__outbox_take(&box, &batch);
    value_of("topic", out);
    CHECK_STR(out, "module.m.a\xef\xbf\xbd");
}

/* What does not fit goes in whole or not at all. */
static void test_full(void)
{
    smos__outbox_t small;
    CHECK_EQ(smos__outbox_init(&small, 200, 0), 0);
    int taken = 0;
    while (!smos__outbox_log(&small, 1, "m", 1, "\xff\xff\xff")) taken++;
    CHECK(taken > 0);
    CHECK_EQ(small.lost, 1);
    CHECK_EQ(small.events, (uint32_t)taken);
    uint32_t used = small.packer.used;
    CHECK(smos__outbox_log(&small, 1, "m", 1, "\xff\xff\xff") < 0);
    CHECK_EQ(small.packer.used, used);
    smos__outbox_free(&small);
}

int main(void)
{
    CHECK_EQ(smos__outbox_init(&box, 1 << 20, 3), 0);
    RUN(test_text_becomes_utf_8);
    RUN(test_a_long_line_is_cut_between_characters);
    RUN(test_a_topic_too);
    RUN(test_full);
    smos__outbox_free(&box);
    return 0;
}
