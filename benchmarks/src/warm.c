/* warm MEBIBYTES: touches that much memory and ends. In a virtual machine the host gives memory out when it is first touched, which may cost more than
 * a millisecond a MiB; who runs next gets what was given already, and pays only its own kernel's clearing. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t bytes = argc == 2 ? (size_t)strtoul(argv[1], NULL, 10) << 20 : 0;
    if (!bytes) {
        fputs("usage: warm MEBIBYTES\n", stderr);
        return 2;
    }
    volatile char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("warm");
        return 1;
    }
    madvise((void *)(size_t)memory, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    return 0;
}
