/* round_trip echo ADDRESS PORT | round_trip ask ADDRESS PORT COUNT PAUSE_US: datagrams of 64 bytes there and back, one at a time, with a pause
 * between. `ask` prints one JSON line: the round trips' 50th and 99th percentile and mean in nanoseconds, and how many did not come back. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char data[64] = "";
    setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &(int){1}, sizeof(int)); /* a bare loop over AF_XDP does not complete checksums */
    if (!strcmp(argv[1], "echo")) {
        if (bind(fd, (struct sockaddr *)&address, sizeof address)) return perror("round_trip"), 1;
        for (;;) {
            socklen_t size = sizeof address;
            ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&address, &size);
            if (got > 0) (void)!sendto(fd, data, (size_t)got, 0, (struct sockaddr *)&address, size);
        }
    }
    if (argc != 6 || connect(fd, (struct sockaddr *)&address, sizeof address)) return 2;
    struct timeval patience = {.tv_usec = 500000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int count = atoi(argv[4]), lost = 0, got = 0, first = count / 10;
    int64_t *took = calloc((size_t)count + 1, sizeof *took), sum = 0;
    if (!took) return 1;
    for (int i = 0; i < count + first; i++) {
        int64_t sent = now(), id;
        memcpy(data, &i, sizeof i);
        if (send(fd, data, sizeof data, 0) < 0) return perror("round_trip"), 1;
        do
            id = recv(fd, data, sizeof data, 0) < 0 ? -1 : *(int *)data;
        while (id >= 0 && id != i);
        if (id < 0) lost++;
        else if (i >= first) sum += took[got++] = now() - sent; /* the first tenth warms up */
        if (atoi(argv[5])) usleep((useconds_t)atoi(argv[5]));
    }
    if (!got) return fprintf(stderr, "round_trip: nothing came back\n"), 1;
    qsort(took, (size_t)got, sizeof *took, by_size);
    printf("{\"p50\": %lld, \"p99\": %lld, \"mean\": %lld, \"lost\": %d}\n", (long long)took[got / 2], (long long)took[(int64_t)got * 99 / 100], (long long)(sum / got), lost);
    return 0;
}
