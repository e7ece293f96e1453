// A pool of candidates out of which the largest are kept: how every search here selects.
//
// Scores are looked at in the order of their indices, and only those that reach a threshold are put into the pool.
// When it is full, all but the `keep` largest are dropped and the threshold rises to the smallest of them. What is kept
// stays in the order of its indices, and of equal scores the lower index is the larger: so neither the first threshold,
// nor how rows were shared out among threads, can be seen in what comes out.
#ifndef MICROTOME_POOL_H
#define MICROTOME_POOL_H

#include "lanes.h"
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct {
    int32_t *keys, *indices;
    int64_t count;
    float threshold;  // what a score must reach
} Pool;

INLINE int64_t pool_capacity(int64_t keep) {
    return 4 * keep + 256;
}

// Scores are put in by vectors, and up to four of them before the pool is looked at again.
INLINE int64_t pool_room(int64_t keep) {
    return rounded_up(pool_capacity(keep) + 4 * LANES, LANES);
}

static inline int pool_allocate(Pool *pool, int64_t room) {
    *pool = (Pool){lines(room, sizeof(int32_t)), lines(room, sizeof(int32_t)), 0, 0};
    return pool->keys && pool->indices;
}

static inline void pool_free(Pool *pool) {
    free(pool->keys);
    free(pool->indices);
}

// Whole numbers that order as the scores do: those of negative scores have all bits but the sign's turned over. Not-a-
// number comes first, so that it is kept and seen.
INLINE __m512i keys_of(__m512 scores) {
    __m512i bits = _mm512_castps_si512(scores), most = _mm512_set1_epi32(INT32_MAX);
    __m512i keys = _mm512_xor_si512(bits, _mm512_and_si512(_mm512_srai_epi32(bits, 31), most));
    return _mm512_mask_mov_epi32(keys, _mm512_cmp_ps_mask(scores, scores, _CMP_UNORD_Q), most);
}

INLINE float score_of(int32_t key) {
    int32_t bits = key ^ (key >> 31 & INT32_MAX);
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static inline int64_t count_from(const Pool *pool, int32_t least) {
    int64_t found = 0;
    for (int64_t i = 0; i < pool->count; i += LANES) {
        __m512i keys = _mm512_loadu_si512(pool->keys + i);
        found += __builtin_popcount(
            _mm512_mask_cmp_epi32_mask(lanes(pool->count - i), keys, _mm512_set1_epi32(least), _MM_CMPINT_NLT));
    }
    return found;
}

static inline void pool_bounds(const Pool *pool, int32_t *low, int32_t *high) {
    __m512i least = _mm512_set1_epi32(INT32_MAX), most = _mm512_set1_epi32(INT32_MIN);
    for (int64_t i = 0; i < pool->count; i += LANES) {
        __m512i keys = _mm512_loadu_si512(pool->keys + i);
        __mmask16 mask = lanes(pool->count - i);
        least = _mm512_mask_min_epi32(least, mask, least, keys);
        most = _mm512_mask_max_epi32(most, mask, most, keys);
    }
    *low = _mm512_reduce_min_epi32(least);
    *high = _mm512_reduce_max_epi32(most);
}

// A key that `keep` reach, and no more of them than must: found by halving, since counting a pool takes no longer than
// a few wrongly guessed branches.
static inline int32_t last_kept(const Pool *pool, int64_t keep) {
    int32_t low, high;
    pool_bounds(pool, &low, &high);
    while (low < high) {
        int32_t middle = (int32_t)((uint32_t)low + ((uint32_t)high - (uint32_t)low + 1) / 2);
        int64_t reached = count_from(pool, middle);
        if (reached < keep) high = middle - 1;
        else low = middle;
        if (reached == keep) break;
    }
    return low;
}

// The lowest `count` bits that are set.
INLINE __mmask16 lowest(__mmask16 mask, int64_t count) {
    uint32_t left = mask;
    while (__builtin_popcount(left) > count) left &= ~(0x80000000u >> __builtin_clz(left));
    return (__mmask16)left;
}

// Drop all but the `keep` largest.
static inline void pool_shrink(Pool *pool, int64_t keep) {
    if (pool->count <= keep) return;
    int32_t last = last_kept(pool, keep);
    int64_t equal = keep - (last < INT32_MAX ? count_from(pool, last + 1) : 0), kept = 0;
    for (int64_t i = 0; i < pool->count; i += LANES) {
        __m512i keys = _mm512_loadu_si512(pool->keys + i), indices = _mm512_loadu_si512(pool->indices + i);
        __mmask16 mask = lanes(pool->count - i);
        __mmask16 above = _mm512_mask_cmpgt_epi32_mask(mask, keys, _mm512_set1_epi32(last));
        __mmask16 same = lowest(_mm512_mask_cmpeq_epi32_mask(mask, keys, _mm512_set1_epi32(last)), equal);
        _mm512_storeu_si512(pool->keys + kept, _mm512_maskz_compress_epi32(above | same, keys));
        _mm512_storeu_si512(pool->indices + kept, _mm512_maskz_compress_epi32(above | same, indices));
        kept += __builtin_popcount(above | same);
        equal -= __builtin_popcount(same);
    }
    pool->count = kept;
    pool->threshold = score_of(last);
}

INLINE void pool_put(Pool *pool, __mmask16 which, __m512 scores, __m512i indices) {
    _mm512_storeu_si512(pool->keys + pool->count, _mm512_maskz_compress_epi32(which, keys_of(scores)));
    _mm512_storeu_si512(pool->indices + pool->count, _mm512_maskz_compress_epi32(which, indices));
    pool->count += __builtin_popcount(which);
}

INLINE __mmask16 pool_admits(const Pool *pool, __mmask16 mask, __m512 scores) {
    // "not less than" lets not-a-number in
    return _mm512_mask_cmp_ps_mask(mask, scores, _mm512_set1_ps(pool->threshold), _CMP_NLT_UQ);
}

INLINE __m512i counted_from(int64_t first) {
    const __m512i zero_to_15 = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(zero_to_15, _mm512_set1_epi32((int)first));
}

// Where a row's last kept score will lie, guessed from the rows before it: their running mean less four deviations.
// A guess that is too high is noticed (fewer than `keep` reach it), and the row is searched again without one.
typedef struct {
    float mean, deviation;
    int64_t seen;
} Guess;

INLINE float guess_threshold(const Guess *guess, float scale) {
    return guess->seen < 4 ? -INFINITY : (guess->mean - 4 * guess->deviation) * scale;
}

static inline void guess_learn(Guess *guess, float last) {
    if (!(fabsf(last) < FLT_MAX)) return;
    float weight = fmaxf(1.0f / (float)++guess->seen, 1.0f / 64);
    float off = last - guess->mean;
    guess->mean += weight * off;
    guess->deviation += weight * (fabsf(off) - guess->deviation);
}

// The smallest score in the pool.
static inline float pool_least(const Pool *pool) {
    int32_t low, high;
    pool_bounds(pool, &low, &high);
    return score_of(low);
}

#endif
