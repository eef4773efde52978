/* packet_bare BLOCK_BYTES BLOCKS FRAME_BYTES SOCKET_FD [SOCKET_FD]: the least that can be done with packet sockets. One, with a TPACKET_V3 ring: counts
 * frames and their bytes, and gives them back. Two, with TPACKET_V2 rings: forwards with sendmmsg. Ends at the end of its standard input. */
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST 64

typedef struct end {
    int fd;
    uint8_t *ring;
    uint32_t at;
} end_t;

static uint32_t block_bytes, blocks, frame_bytes;
static uint64_t packets, bytes, touched;

static bool count(end_t *e)
{
    struct tpacket_block_desc *block = (struct tpacket_block_desc *)(e->ring + (size_t)e->at * block_bytes);
    if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) return false;
    const struct tpacket3_hdr *h = (struct tpacket3_hdr *)((uint8_t *)block + block->hdr.bh1.offset_to_first_pkt);
    for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
        packets++;
        bytes += h->tp_len;
        touched += ((const uint8_t *)h)[h->tp_mac + 12];
        h = (const struct tpacket3_hdr *)((const uint8_t *)h + h->tp_next_offset);
    }
    __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    e->at = (e->at + 1) % blocks;
    return true;
}

static bool forward(end_t *in, end_t *out)
{
    static struct mmsghdr message[BURST];
    static struct iovec part[BURST];
    struct tpacket2_hdr *slot[BURST];
    uint32_t per_block = block_bytes / frame_bytes, n = 0;
    for (; n < BURST; n++) {
        struct tpacket2_hdr *h = (struct tpacket2_hdr *)(in->ring + (size_t)(in->at / per_block) * block_bytes + (size_t)(in->at % per_block) * frame_bytes);
        if (!(__atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) break;
        uint32_t header = sizeof(struct virtio_net_hdr);
        part[n] = (struct iovec){(uint8_t *)h + h->tp_mac - header, h->tp_snaplen + header};
        message[n].msg_hdr = (struct msghdr){.msg_iov = &part[n], .msg_iovlen = 1};
        slot[n] = h;
        in->at = (in->at + 1) % (per_block * blocks);
    }
    if (!n) return false;
    packets += n;
    for (uint32_t done = 0; done < n;) {
        int sent = sendmmsg(out->fd, message + done, n - done, MSG_DONTWAIT);
        done += sent > 0 ? (uint32_t)sent : 1; /* what the device will not have is lost */
    }
    for (uint32_t i = 0; i < n; i++) __atomic_store_n(&slot[i]->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6) return 2;
    block_bytes = (uint32_t)atoi(argv[1]), blocks = (uint32_t)atoi(argv[2]), frame_bytes = (uint32_t)atoi(argv[3]);
    end_t end[2];
    int ends = argc - 4;
    struct pollfd wait[3] = {{.fd = 0, .events = POLLIN}};
    for (int i = 0; i < ends; i++) {
        end[i] = (end_t){.fd = atoi(argv[4 + i])};
        end[i].ring = mmap(NULL, (size_t)block_bytes * blocks, PROT_READ | PROT_WRITE, MAP_SHARED, end[i].fd, 0);
        if (end[i].ring == MAP_FAILED) return perror("packet_bare"), 1;
        wait[1 + i] = (struct pollfd){.fd = end[i].fd, .events = POLLIN};
    }
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (uint32_t turn = 0;; turn++) {
        bool some = ends == 2 ? forward(&end[0], &end[1]) | forward(&end[1], &end[0]) : count(&end[0]);
        if (!some) poll(wait, 1 + (nfds_t)ends, 1000);
        char c;
        if ((turn % 1024 == 0 || !some) && !read(0, &c, 1)) break;
    }
    printf("{\"packets\": %llu, \"bytes\": %llu, \"touched\": %llu}\n", (unsigned long long)packets, (unsigned long long)bytes, (unsigned long long)touched);
    return 0;
}
