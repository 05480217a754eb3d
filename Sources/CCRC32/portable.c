#include "internal.h"

#include <string.h>

// A CRC from a register of 0 is linear, so each entry of a table is the sum of the entries of its bits. Each line below
// holds the entries of the eight single bits, from which the preprocessor computes the 256 sums.
#define SUM(i, a, b, c, d, e, f, g, h)                                                                                \
    (((i) & 1 ? a : 0u) ^ ((i) & 2 ? b : 0u) ^ ((i) & 4 ? c : 0u) ^ ((i) & 8 ? d : 0u) ^ ((i) & 16 ? e : 0u) ^        \
     ((i) & 32 ? f : 0u) ^ ((i) & 64 ? g : 0u) ^ ((i) & 128 ? h : 0u))
#define SUM4(i, ...) SUM(i, __VA_ARGS__), SUM(i + 1, __VA_ARGS__), SUM(i + 2, __VA_ARGS__), SUM(i + 3, __VA_ARGS__)
#define SUM16(i, ...)                                                                                                 \
    SUM4(i, __VA_ARGS__), SUM4(i + 4, __VA_ARGS__), SUM4(i + 8, __VA_ARGS__), SUM4(i + 12, __VA_ARGS__)
#define SUM64(i, ...)                                                                                                 \
    SUM16(i, __VA_ARGS__), SUM16(i + 16, __VA_ARGS__), SUM16(i + 32, __VA_ARGS__), SUM16(i + 48, __VA_ARGS__)
#define SLICE(...)                                                                                                    \
    { SUM64(0, __VA_ARGS__), SUM64(64, __VA_ARGS__), SUM64(128, __VA_ARGS__), SUM64(192, __VA_ARGS__) }

const uint32_t ccrc32_slice[8][256] = {
    SLICE(0x77073096, 0xEE0E612C, 0x076DC419, 0x0EDB8832, 0x1DB71064, 0x3B6E20C8, 0x76DC4190, 0xEDB88320),
    SLICE(0x191B3141, 0x32366282, 0x646CC504, 0xC8D98A08, 0x4AC21251, 0x958424A2, 0xF0794F05, 0x3B83984B),
    SLICE(0x01C26A37, 0x0384D46E, 0x0709A8DC, 0x0E1351B8, 0x1C26A370, 0x384D46E0, 0x709A8DC0, 0xE1351B80),
    SLICE(0xB8BC6765, 0xAA09C88B, 0x8F629757, 0xC5B428EF, 0x5019579F, 0xA032AF3E, 0x9B14583D, 0xED59B63B),
    SLICE(0x3D6029B0, 0x7AC05360, 0xF580A6C0, 0x30704BC1, 0x60E09782, 0xC1C12F04, 0x58F35849, 0xB1E6B092),
    SLICE(0xCB5CD3A5, 0x4DC8A10B, 0x9B914216, 0xEC53826D, 0x03D6029B, 0x07AC0536, 0x0F580A6C, 0x1EB014D8),
    SLICE(0xA6770BB4, 0x979F1129, 0xF44F2413, 0x33EF4E67, 0x67DE9CCE, 0xCFBD399C, 0x440B7579, 0x8816EAF2),
    SLICE(0xCCAA009E, 0x4225077D, 0x844A0EFA, 0xD3E51BB5, 0x7CBB312B, 0xF9766256, 0x299DC2ED, 0x533B85DA),
};

static inline uint64_t little64(const unsigned char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint32_t little32(const unsigned char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

uint32_t ccrc32_update_portable(uint32_t reg, const void *start, size_t count) {
    const unsigned char *bytes = start;
    for (; count >= 8; bytes += 8, count -= 8) {
        const uint64_t word = little64(bytes) ^ reg;
        reg = ccrc32_slice[7][word & 255] ^ ccrc32_slice[6][word >> 8 & 255] ^ ccrc32_slice[5][word >> 16 & 255] ^
              ccrc32_slice[4][word >> 24 & 255] ^ ccrc32_slice[3][word >> 32 & 255] ^
              ccrc32_slice[2][word >> 40 & 255] ^ ccrc32_slice[1][word >> 48 & 255] ^ ccrc32_slice[0][word >> 56];
    }
    if (count >= 4) {
        reg = ccrc32_reduce64(reg ^ little32(bytes));
        bytes += 4, count -= 4;
    }
    for (; count > 0; bytes++, count--)
        reg = reg >> 8 ^ ccrc32_slice[0][(reg ^ *bytes) & 255];
    return reg;
}

uint32_t ccrc32_multiply_portable(uint32_t a, uint32_t b) {
    uint64_t product = 0;
    for (int bit = 0; bit < 32; bit++)
        product ^= ((uint64_t)b << (bit + 1)) & (0 - (uint64_t)(a >> bit & 1));
    return ccrc32_reduce64(product);
}

uint32_t ccrc32_update(uint32_t reg, const void *bytes, size_t count) {
    // Folding needs at least 16 bytes.
    if (count >= 16) {
        const struct ccrc32_ways *ways = ccrc32_accelerated();
        if (ways->update)
            return ways->update(reg, bytes, count);
    }
    return ccrc32_update_portable(reg, bytes, count);
}

uint32_t ccrc32_multiply(uint32_t a, uint32_t b) {
    const struct ccrc32_ways *ways = ccrc32_accelerated();
    return ways->multiply ? ways->multiply(a, b) : ccrc32_multiply_portable(a, b);
}

const char *ccrc32_acceleration(void) { return ccrc32_accelerated()->name; }
