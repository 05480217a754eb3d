// Declarations that the files of this target share.
#ifndef CCRC32_INTERNAL_H
#define CCRC32_INTERNAL_H

#include "ccrc32.h"

#define CCRC32_HIDDEN __attribute__((visibility("hidden")))

/// slice[k][b] is the register after byte b and k zero bytes, from a register of 0.
extern CCRC32_HIDDEN const uint32_t ccrc32_slice[8][256];

/// Accelerated functions of a processor; null for those that it does not have.
struct ccrc32_ways {
    const char *name;
    uint32_t (*update)(uint32_t reg, const unsigned char *bytes, size_t count);
    uint32_t (*multiply)(uint32_t a, uint32_t b);
};

/// The functions for this processor; the first call detects them.
CCRC32_HIDDEN const struct ccrc32_ways *ccrc32_accelerated(void);

/// Reduces x^0..x^63 (bit 63 is x^0) modulo the polynomial.
static inline uint32_t ccrc32_reduce64(uint64_t value) {
    const uint32_t low = (uint32_t)value;
    return (uint32_t)(value >> 32) ^ ccrc32_slice[3][low & 255] ^ ccrc32_slice[2][low >> 8 & 255] ^
           ccrc32_slice[1][low >> 16 & 255] ^ ccrc32_slice[0][low >> 24];
}

#endif
