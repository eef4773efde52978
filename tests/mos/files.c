/* Files of a program's: logs that are rotated in a folder that it makes and goes to, a file that it maps, names in its messages, large files. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <mos_api.h>

static long *mapped;

static void counted(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    FILE *log = fopen("packets.log", "a");
    struct stat what;
    char old[32];
    if (!log) err(1, "packets.log");
    fprintf(log, "%ld\n", ++*mapped);
    fclose(log);
    if (stat("packets.log", &what)) err(1, "stat");
    if (what.st_size < 8) return;
    snprintf(old, sizeof(old), "old.%ld", *mapped);
    if (rename("packets.log", old)) err(1, "%s", old);
}

int main(int argc, char **argv)
{
    char before[4096], after[4096];
    mctx_t mctx;
    int sock, file;
    if (!getcwd(before, sizeof(before)) || getcwd(after, 1)) errx(1, "getcwd");
    if (mkdir("log", 0755) || chdir("log")) err(1, "log");
    getcwd(after, sizeof(after));
    if (strncmp(after, before, strlen(before)) || strcmp(after + strlen(before), "/log")) errx(1, "in %s", after);
    if (!chdir("nothing") || !chdir("../frames.pcap")) errx(1, "chdir");
    if ((file = open("map", O_RDWR | O_CREAT | O_EXCL, 0600)) < 0 || ftruncate(file, sizeof(*mapped))) err(1, "map");
    mapped = mmap(NULL, sizeof(*mapped), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    warnx("%s", program_invocation_short_name);
    mctx = mtcp_create_context(0);
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, counted);
    mtcp_app_join(mctx);
    if (lseek(file, 0, SEEK_END) != sizeof(*mapped) || access("map", R_OK) || unlink("map") || !access("map", F_OK)) err(1, "map");
    if (chdir("..") || !rmdir("log")) errx(1, "back");
    printf("%ld packets\n", *mapped);
    return 0;
}
