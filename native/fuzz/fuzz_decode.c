/* Any bytes as frames of any link type: nothing outside them is read, and what comes out holds together. The input is a list of
 * frames: link type (one byte, an index), flags, length (two bytes), bytes; all go through one defragmenter. */
#include <stdlib.h>
#include <string.h>

#include "../tests/decoded_sane.h"
#include "wire/defrag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = { 1, 0, 6, 7, 8, 9, 10, 11, 12, 50, 101, 104, 108, 113, 129, 178, 192, 228, 229, 239, 242, 276,
                                      51, 105, 107, 109, 117, 119, 122, 123, 127, 138, 149, 163, 166, 197, 204, 205, 206, 226, 258 };
    static const smos__defrag_config_t config = { .max_datagrams = 8, .max_bytes = 1 << 17, .max_fragments = 8, .timeout_ns = 1000000000 };
    static void *memory;
    if (memory == NULL) {
        memory = aligned_alloc(64, (smos__defrag_size(&config) + 63) & ~(size_t)63);
        SANE(memory != NULL);
    }
    smos__defrag_t *defrag = smos__defrag_init(memory, &config);
    SANE(defrag != NULL);
    int64_t now = 0;
    for (int i = 0; i < 16 && size >= 4; i++) {
        uint32_t length = (uint32_t)data[2] << 8 | data[3];
        uint8_t type = data[0], flags = data[1];
        data += 4;
        size -= 4;
        if (length > size) length = (uint32_t)size;
        uint8_t *bytes = malloc(length ? length : 1);
        SANE(bytes != NULL);
        memcpy(bytes, data, length);
        smos__frame_t frame = { .data = bytes, .caplen = length, .len = length + (flags & 0x80 ? 1u << (flags >> 2 & 31) % 20 : 0), .number = 1,
                                .time_ns = now, .linktype = types[type % (sizeof types / sizeof types[0])], .flags = flags & 1 };
        now += (int64_t)(flags & 2) << 28;
        smos__decoded_t decoded;
        memset(&decoded, 0xa5, sizeof decoded);
        smos__decode(&frame, flags & 0x40 ? NULL : defrag, &decoded);
        decoded_sane(&frame, &decoded);
        if (flags & 0x20) smos__defrag_release(defrag);
        free(bytes);
        data += length;
        size -= length;
    }
    return 0;
}
