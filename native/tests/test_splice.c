/* Edited streams: whatever segments bytes come in, and come in again, the receiver's are the edited text, once and in order. */
#include "check.h"
#include "edit/splice.h"
#include "tcp/sequence.h"

#define ISN 0xfffffff0u /* numbers wrap within the first bytes */

typedef struct sides {
    smos__splice_t splice;
    uint8_t sent[4096], got[8192], want[8192]; /* original, as received, and what the edits make of it */
    uint32_t sent_length, want_length;
    uint32_t got_to; /* contiguous, edited numbers */
    uint64_t seed;
} sides_t;

static uint32_t pick(sides_t *s, uint32_t below)
{
    s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
    return below ? (uint32_t)(s->seed >> 33) % below : 0;
}

static void receive(sides_t *s, uint32_t seq, const uint8_t *data, uint32_t length)
{
    if (smos__seq_gt(seq, s->got_to)) return; /* out of order: dropped, comes again */
    uint32_t old = s->got_to - seq;
    if (old >= length) return;
    memcpy(s->got + (s->got_to - ISN), data + old, length - old);
    s->got_to += length - old;
}

/* The sender's segment [from, from + length); perhaps lost behind the middlebox. */
static void send(sides_t *s, uint32_t from, uint32_t length, bool lost)
{
    uint8_t out[8192];
    uint32_t edited;
    int64_t n = smos__splice_segment(&s->splice, ISN + from, s->sent + from, length, false, out, sizeof out, &edited);
    CHECK(n >= 0);
    if (!lost) receive(s, edited, out, (uint32_t)n);
}

/* A middlebox edits the segment that the sender sends for the first time: its edited form becomes `text` in part. */
static void edit_new_segment(sides_t *s, uint32_t from, uint32_t length, bool lost)
{
    uint8_t out[8192];
    uint32_t edited;
    int64_t n = smos__splice_segment(&s->splice, ISN + from, s->sent + from, length, false, out, sizeof out, &edited);
    CHECK(n >= 0);
    CHECK_EQ(edited, ISN + s->want_length);
    for (uint32_t edits = pick(s, 3); edits; edits--) {
        uint32_t at = pick(s, (uint32_t)n + 1), removed = pick(s, 3) ? 0 : pick(s, (uint32_t)n - at + 1), added = pick(s, 6);
        uint8_t text[8];
        for (uint32_t i = 0; i < added; i++) text[i] = (uint8_t)('A' + pick(s, 26));
        if (!n) break; /* pure acknowledgements are not edited */
        if (removed == (uint32_t)n && !added) continue;
        if (smos__splice_add(&s->splice, edited + at, removed, text, added, at == (uint32_t)n) < 0) continue;
        memmove(out + at + added, out + at + removed, (size_t)n - at - removed);
        memcpy(out + at, text, added);
        n += (int64_t)added - removed;
        if (!n) break;
    }
    memcpy(s->want + s->want_length, out, (size_t)n);
    s->want_length += (uint32_t)n;
    if (!lost) receive(s, edited, out, (uint32_t)n);
}

static void one_conversation(uint64_t seed)
{
    sides_t *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->seed = seed;
    s->got_to = ISN;
    for (uint32_t i = 0; i < sizeof s->sent; i++) s->sent[i] = (uint8_t)('a' + i % 26);
    uint32_t acked = 0; /* original, as the sender learns it */
    while (s->sent_length < 1500) {
        uint32_t length = 1 + pick(s, 60);
        edit_new_segment(s, s->sent_length, length, pick(s, 4) == 0);
        s->sent_length += length;
        for (uint32_t again = pick(s, 4); again; again--) { /* retransmissions, cut anew */
            uint32_t from = acked + pick(s, s->sent_length - acked), most = s->sent_length - from;
            send(s, from, 1 + pick(s, most), pick(s, 3) == 0);
        }
        uint32_t told = smos__splice_ack(&s->splice, s->got_to) - ISN;
        CHECK(told <= s->sent_length);
        CHECK((int32_t)(told - acked) >= 0); /* an acknowledgement never goes back */
        if (pick(s, 2)) {
            acked = told;
            smos__splice_acked(&s->splice, s->got_to);
            CHECK_EQ(smos__splice_ack(&s->splice, s->got_to) - ISN, told);
        }
    }
    for (int round = 0; s->got_to - ISN < s->want_length; round++) { /* to the end, from what is acknowledged on */
        CHECK(round < 4000);
        acked = smos__splice_ack(&s->splice, s->got_to) - ISN;
        if (acked == s->sent_length) break;
        send(s, acked, 1 + pick(s, s->sent_length - acked), pick(s, 3) == 0);
    }
    CHECK_EQ(s->got_to - ISN, s->want_length);
    CHECK(memcmp(s->got, s->want, s->want_length) == 0);
    CHECK_EQ(smos__splice_ack(&s->splice, s->got_to), ISN + s->sent_length);
    CHECK_EQ(smos__splice_next(&s->splice, ISN + s->sent_length), s->got_to);
    smos__splice_acked(&s->splice, s->got_to);
    smos__splice_clear(&s->splice);
    free(s);
}

static void test_random_edits_cuts_and_losses(void)
{
    for (uint64_t seed = 1; seed <= 4000; seed++) one_conversation(seed);
}

static void test_a_text_put_before_the_next_byte(void)
{
    smos__splice_t s = {0};
    uint8_t out[64];
    uint32_t edited;
    CHECK_EQ(smos__splice_add(&s, 1000, 0, (const uint8_t *)"HELLO", 5, false), 0); /* injected: the sender's next byte is 1000 */
    CHECK_EQ(smos__splice_next(&s, 1000), 1005);
    CHECK_EQ(smos__splice_ack(&s, 1000), 1000);
    CHECK_EQ(smos__splice_ack(&s, 1004), 1000);
    CHECK_EQ(smos__splice_ack(&s, 1005), 1000);
    CHECK_EQ(smos__splice_segment(&s, 1000, (const uint8_t *)"xyz", 3, false, out, sizeof out, &edited), 8); /* not known to have arrived: it comes along */
    CHECK_EQ(edited, 1000);
    CHECK(!memcmp(out, "HELLOxyz", 8));
    CHECK_EQ(smos__splice_segment(&s, 1000, NULL, 0, true, out, sizeof out, &edited), 5); /* a FIN waits for it, too */
    CHECK_EQ(edited, 1000);
    smos__splice_acked(&s, 1005);
    CHECK_EQ(smos__splice_segment(&s, 1000, (const uint8_t *)"xyz", 3, false, out, sizeof out, &edited), 3);
    CHECK_EQ(edited, 1005);
    CHECK_EQ(smos__splice_segment(&s, 1000, NULL, 0, false, out, sizeof out, &edited), 0);
    CHECK_EQ(edited, 1005);
    smos__splice_clear(&s);
}

static void test_bounds(void)
{
    smos__splice_t s = {0};
    uint8_t out[8];
    uint32_t edited;
    static uint8_t text[SMOS__SPLICE_TEXT + 1];
    CHECK_EQ(smos__splice_add(&s, 5, 0, text, SMOS__SPLICE_TEXT + 1, false), -28 /* ENOSPC */);
    for (uint32_t i = 0; i < SMOS__SPLICE_EDITS; i++) CHECK_EQ(smos__splice_add(&s, 10 + 3 * i, 0, text, 1, false), 0);
    CHECK_EQ(smos__splice_add(&s, 9000, 0, text, 1, false), -28);
    CHECK_EQ(smos__splice_segment(&s, 0, text, 100, false, out, sizeof out, &edited), -1);
    smos__splice_clear(&s);
}

int main(void)
{
    RUN(test_a_text_put_before_the_next_byte);
    RUN(test_bounds);
    RUN(test_random_edits_cuts_and_losses);
    return 0;
}
