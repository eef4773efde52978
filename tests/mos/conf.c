/* What a configuration file says. */
#include <stdio.h>
#include <mos_api.h>
#include <mtcp_util.h>

int main(int argc, char **argv)
{
    struct mtcp_conf c;
    int i;
    char text[] = " one  two ", *words[3];
    if (mtcp_init(argv[1])) return 1;
    mtcp_getconf(&c);
    printf("%d %d %d %d %d %d", c.num_cores, c.max_concurrency, c.rcvbuf_size, c.sndbuf_size, c.tcp_timewait, c.tcp_timeout);
    for (i = 0; c.num_app && i < c.app_argc[0]; i++) printf(" %s", c.app_argv[0][i]);
    printf("\n");
    c.num_cores = 8;
    c.tcp_timeout = -1;
    mtcp_setconf(&c);
    mtcp_getconf(&c);
    printf("%d %d\n", c.num_cores, c.tcp_timeout);
    if (!StrToArgs(text, &i, words, 3)) printf("%d %s %s\n", i, words[0], words[1]);
    printf("%08x %016llx %s %d\n", XXH32("abc", 3, 0), XXH64("abc", 3, 0), EventToString(MOS_EPOLLIN), GetRSSCPUCore(1, 2, 3, 4, 1));
    return 0;
}
