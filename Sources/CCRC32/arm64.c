#if defined(__aarch64__)
#include "internal.h"

#include <string.h>
#include <sys/auxv.h>

// The crc32 instructions (not crc32c) use this polynomial and bit order.
#define FEATURE __attribute__((target("crc")))

FEATURE static uint32_t update(uint32_t reg, const unsigned char *bytes, size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        reg = __builtin_arm_crc32d(reg, word);
    }
    for (; count > 0; bytes++, count--)
        reg = __builtin_arm_crc32b(reg, *bytes);
    return reg;
}

static const struct ccrc32_ways none = {"none", NULL, NULL};
static const struct ccrc32_ways crc32 = {"crc32", update, NULL};

const struct ccrc32_ways *ccrc32_accelerated(void) {
    static const struct ccrc32_ways *found;
    const struct ccrc32_ways *ways = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (__builtin_expect(ways != NULL, 1))
        return ways;
    // HWCAP_CRC32, bit 7 of AT_HWCAP on arm64 (uapi asm/hwcap.h).
    ways = getauxval(AT_HWCAP) & 1u << 7 ? &crc32 : &none;
    // Two threads may execute this at once: both find the same value.
    __atomic_store_n(&found, ways, __ATOMIC_RELAXED);
    return ways;
}
#endif
