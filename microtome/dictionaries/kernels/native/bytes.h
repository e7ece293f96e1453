// How rows of weights are kept as bytes: the layout that int8.c multiplies by, and that step.c refreshes.
//
// Weights come in panels of 32 rows, and inside a panel four columns at a time:
// [panel][columns / 4][32 rows][4 columns].
// A byte is the weight in 127ths of the row's largest, plus 128, since the processor multiplies unsigned by signed.
#ifndef MICROTOME_BYTES_H
#define MICROTOME_BYTES_H

#include "lanes.h"
#include <string.h>

#define PANEL 32

INLINE int64_t quads(int64_t d) {
    return (d + 3) / 4;
}

INLINE int64_t panel_size(int64_t d) {
    return quads(d) * PANEL * 4;
}

// Sixteen floats in units of 1 / `scale`, as whole numbers from -127 to 127. Not-a-number becomes some number, for the
// scores that are made again to show.
INLINE __m512i rounded(__mmask16 mask, const float *from, float scale) {
    __m512 steps = _mm512_mul_ps(load(mask, from), _mm512_set1_ps(scale));
    steps = _mm512_max_ps(_mm512_min_ps(steps, _mm512_set1_ps(127)), _mm512_set1_ps(-127));
    return _mm512_cvtps_epi32(steps);
}

// Row j of the weights into its panel; the scale is what a step of one means.
static inline void pack_row(const float *row, int64_t j, int64_t d, uint8_t *packed, float *scales) {
    float most = largest_size(row, d), scale = most > 0 ? 127 / most : 0;
    uint8_t *place = packed + j / PANEL * panel_size(d) + j % PANEL * 4;
    scales[j] = most / 127;
    for (int64_t column = 0; column < d; column += LANES) {
        __m128i bytes = _mm512_cvtsepi32_epi8(rounded(lanes(d - column), row + column, scale));
        uint8_t shifted[LANES];
        _mm_storeu_si128((__m128i *)shifted, _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80)));
        for (int64_t q = 0; q < LANES / 4 && column + 4 * q < d; q++)
            memcpy(place + (column / 4 + q) * PANEL * 4, shifted + 4 * q, 4);
    }
}

#endif
