/* Our own readers against libpcap, over every capture at hand: the same frames, times, lengths and link types. Captures are found
 * through SHARDMOS_CORPUS, or where a checkout beside the corpus has them; without them this is skipped and says so. */
#include <dirent.h>
#include <sys/stat.h>

#include "captures.h"

static int captures, equal, refused_by_libpcap, link_types, cut, packets;

static int same_time(int64_t ours, int64_t reference)
{
    /* libpcap takes the seconds and the fraction of a pcap file as signed */
    int64_t seconds = (1ll << 32) * 1000000000, micro = (1ll << 32) * 1000, nano = 1ll << 32, d = ours - reference;
    return d == 0 || d == seconds || d == micro || d == nano || d == seconds + micro || d == seconds + nano;
}

static void expect_same(const content_t *ours, const content_t *reference, const char *path)
{
    for (int i = 0; i < reference->count; i++) {
        const smos__frame_t *x = i < ours->count ? &ours->frames[i] : NULL, *y = &reference->frames[i];
        int same = x != NULL && x->caplen == y->caplen && x->len == y->len && x->linktype == y->linktype && same_time(x->time_ns, y->time_ns)
                && memcmp(x->data, y->data, x->caplen) == 0;
        if (same) continue;
        fprintf(stderr, "%s: frame %d differs: libpcap %u/%u link %u time %lld", path, i + 1, y->caplen, y->len, y->linktype, (long long)y->time_ns);
        if (x != NULL) fprintf(stderr, "; ours %u/%u link %u time %lld", x->caplen, x->len, x->linktype, (long long)x->time_ns);
        fprintf(stderr, "; ours ended with %s\n", ours->error);
        CHECK(same);
    }
}

/* The same file through a pipe: the stream reader. */
static content_t read_streamed(const char *path)
{
    char command[4096], error[SMOS__PORT_ERROR] = "";
    CHECK(strchr(path, '\'') == NULL);
    snprintf(command, sizeof command, "exec cat '%s'", path);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    int saved = dup(0);
    dup2(fileno(pipe), 0);
    smos__port_t *port = open_with("-", SMOS__READER_AUTO, error);
    dup2(saved, 0);
    close(saved);
    if (port == NULL) fprintf(stderr, "%s: %s\n", path, error);
    CHECK(port != NULL);
    content_t c = drain_bursts(port, 17);
    pclose(pipe);
    return c;
}

static void compare(const char *path)
{
    char error[SMOS__PORT_ERROR] = "", reference_error[SMOS__PORT_ERROR] = "";
    captures++;
    smos__port_t *port = open_with(path, SMOS__READER_AUTO, error);
    smos__port_t *by_libpcap = open_with(path, SMOS__READER_PCAP, reference_error);
    if (port == NULL) {
        /* only for its link type, or where libpcap sees no capture either */
        if (strstr(error, "link type") != NULL) link_types++;
        else if (by_libpcap != NULL) fprintf(stderr, "%s\n", error);
        CHECK(strstr(error, "link type") != NULL || by_libpcap == NULL);
        if (by_libpcap != NULL) by_libpcap->close(by_libpcap);
        return;
    }
    content_t ours = drain(port);
    packets += ours.count;
    content_t streamed = read_streamed(path);
    CHECK_EQ(streamed.count, ours.count);
    CHECK_EQ(streamed.result, ours.result);
    expect_same(&streamed, &ours, path);
    discard(&streamed);
    if (by_libpcap == NULL) {
        refused_by_libpcap++;
        if (getenv("SMOS_TEST_VERBOSE") != NULL) fprintf(stderr, "libpcap refuses: %s\n", reference_error);
    } else {
        content_t reference = drain(by_libpcap);
        expect_same(&ours, &reference, path);
        if (reference.result == SMOS__PORT_END) {
            if (ours.result != SMOS__PORT_END) fprintf(stderr, "%s (libpcap read %d, we %d)\n", ours.error, reference.count, ours.count);
            CHECK_EQ(ours.count, reference.count);
            CHECK_EQ(ours.result, SMOS__PORT_END);
            equal++;
        } else {
            cut++;
            if (getenv("SMOS_TEST_VERBOSE") != NULL) fprintf(stderr, "libpcap fails after %d of our %d: %s; ours: %s\n", reference.count, ours.count, reference.error, ours.error);
        }
        discard(&reference);
    }
    discard(&ours);
}

static int is_capture(const char *name)
{
    static const char *const ends[] = { ".pcap", ".pcapng", ".cap", ".trace", ".dmp", ".dump", ".ntar", ".tcpdump", ".pcap.gz", ".pcap.zst", ".pcapng.gz" };
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (length > strlen(ends[i]) && strcmp(name + length - strlen(ends[i]), ends[i]) == 0) return 1;
    return 0;
}

static void walk(const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    if (dir == NULL || depth > 16) return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        char path[2048];
        struct stat st;
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path || lstat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode)) walk(path, depth + 1);
        else if (S_ISREG(st.st_mode) && is_capture(entry->d_name)) compare(path);
    }
    closedir(dir);
}

int main(void)
{
    const char *corpus = getenv("SHARDMOS_CORPUS");
    for (const char *const *guess = (const char *const[]){ "../shared/corpus/dev", "../../shared/corpus/dev", "../../../shared/corpus/dev", NULL }; corpus == NULL && *guess != NULL; guess++)
        if (access(*guess, R_OK) == 0) corpus = *guess;
    if (corpus == NULL) {
        printf("skipped: SHARDMOS_CORPUS names no folder of captures\n");
        return 0;
    }
    walk(corpus, 0);
    printf("%d captures, %d packets: %d equal to libpcap; %d of an unsupported link type, %d read by us alone, %d damaged or cut (equal up to there)\n", captures, packets,
           equal, link_types, refused_by_libpcap, cut);
    CHECK(captures > 0);
    CHECK(equal > captures / 2);
    return 0;
}
