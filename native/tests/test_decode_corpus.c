/* Every frame of the captures in SHARDMOS_CORPUS (or ../shared/corpus/dev beside the checkout), cut at every length, at the end of a
 * heap block of that size: nothing outside it is read (run under ASan), and what comes out holds together. At most
 * FRAMES frames of a capture and CUTS lengths of a frame, so that the time is bounded. */
#include <dirent.h>
#include <sys/stat.h>

#include "captures.h"
#include "decoded_sane.h"

#define FRAMES 24
#define CUTS 200 /* from 0 on; after that every 97th, and the last */
#define MOST_BYTES (256 << 10) /* larger captures are left out */

static long captures, frames, decodings;

static void decode_cut(const smos__frame_t *whole, uint32_t length)
{
    static smos__decoded_t decoded;
    uint8_t *bytes = malloc(length ? length : 1);
    CHECK(bytes != NULL);
    memcpy(bytes, whole->data, length);
    smos__frame_t frame = *whole;
    for (int as_wire = 0; as_wire < 2; as_wire++) { /* cut by a snap length; as short on the wire */
        frame.data = bytes;
        frame.caplen = length;
        if (as_wire) frame.len = length;
        smos__decode(&frame, NULL, &decoded);
        decoded_sane(&frame, &decoded);
        decodings++;
    }
    free(bytes);
}

static void capture(const char *path)
{
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = open_with(path, SMOS__READER_AUTO, error);
    if (port == NULL) return; /* test_capture_corpus judges that */
    smos__frame_t burst[SMOS__BURST];
    int left = FRAMES, got;
    captures++;
    while (left > 0 && (got = port->receive(port, burst, left < SMOS__BURST ? left : SMOS__BURST)) > 0) {
        for (int i = 0; i < got; i++) {
            uint32_t n = burst[i].caplen;
            for (uint32_t cut = 0; cut < n; cut += cut < CUTS ? 1 : 97) decode_cut(&burst[i], cut);
            decode_cut(&burst[i], n);
            frames++;
        }
        left -= got;
    }
    port->close(port);
}

static void walk_folder(const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    if (dir == NULL || depth > 8) {
        if (dir) closedir(dir);
        return;
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[4096];
        struct stat st;
        if (e->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", folder, e->d_name) >= (int)sizeof path || stat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode)) walk_folder(path, depth + 1);
        else if ((strstr(e->d_name, ".pcap") || strstr(e->d_name, ".cap")) && !strstr(e->d_name, ".json") && st.st_size <= MOST_BYTES) capture(path);
    }
    closedir(dir);
}

int main(void)
{
    const char *folder = getenv("SHARDMOS_CORPUS");
    const char *const places[] = { folder, "../shared/corpus/dev", "../../shared/corpus/dev", "../../../shared/corpus/dev" };
    for (int i = folder ? 0 : 1; i < (folder ? 1 : 4) && captures == 0; i++) walk_folder(places[i], 0);
    if (captures == 0) {
        printf("SKIPPED: no captures; set SHARDMOS_CORPUS to their folder\n");
        return 0;
    }
    printf("ok %ld captures, %ld frames, %ld decodings\n", captures, frames, decodings);
    return 0;
}
