// The largest scores of each row of a block of pre-activations; and candidates scored again, exactly.
#include "pool.h"

typedef struct {
    const void *scores;
    int bfloat16;  // else float32
    const float *bias;
    int64_t n, keep;
} Block;

INLINE __m512 score_lanes(const Block *block, const void *row, int64_t j, __mmask16 mask) {
    __m512 bias = load(mask, block->bias + j);
    if (!block->bfloat16) return _mm512_add_ps(bias, load(mask, (const float *)row + j));
    __m256i halves = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + j);
    return _mm512_add_ps(bias, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)));
}

// Of most scores none is admitted, so they are asked 64 at a time; where one is, all are put without asking further.
INLINE void put_four(const Block *block, Pool *pool, const void *row, int64_t j) {
    __m512 scores[4];
    __mmask16 which[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        scores[i] = score_lanes(block, row, j + i * LANES, ALL);
        which[i] = pool_admits(pool, ALL, scores[i]);
    }
    if (__builtin_expect(!(which[0] | which[1] | which[2] | which[3]), 1)) return;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) pool_put(pool, which[i], scores[i], counted_from(j + i * LANES));
    if (pool->count > pool_capacity(block->keep)) pool_shrink(pool, block->keep);
}

INLINE void search_row(const Block *block, const void *row, Pool *pool) {
    int64_t j = 0;
    pool->count = 0;
    for (; j + 4 * LANES <= block->n; j += 4 * LANES) put_four(block, pool, row, j);
    for (; j < block->n; j += LANES) {
        __mmask16 mask = lanes(block->n - j);
        __m512 scores = score_lanes(block, row, j, mask);
        pool_put(pool, pool_admits(pool, mask, scores), scores, counted_from(j));
    }
    pool_shrink(pool, block->keep);
}

static void search_bfloat16_row(const Block *given, const void *row, Pool *pool) {
    Block block = *given;
    block.bfloat16 = 1;  // a constant, so that the loop asks nothing
    search_row(&block, row, pool);
}

static void search_float32_row(const Block *given, const void *row, Pool *pool) {
    Block block = *given;
    block.bfloat16 = 0;
    search_row(&block, row, pool);
}

static void keep_largest(const Block *block, int64_t r, Guess *guess, Pool *pool) {
    void (*search)(const Block *, const void *, Pool *) = block->bfloat16 ? search_bfloat16_row : search_float32_row;
    const void *row = (const char *)block->scores + r * block->n * (block->bfloat16 ? 2 : 4);
    pool->threshold = guess_threshold(guess, 1);
    search(block, row, pool);
    if (pool->count < block->keep) {
        pool->threshold = -INFINITY;
        search(block, row, pool);
    }
    guess_learn(guess, pool_least(pool));
}

// indices[r] = the `keep` largest of row r with the bias added, ascending by index. 1 <= keep <= n < 2^31.
EXPORT int largest_of_rows(const void *scores, int bfloat16, const float *bias, int64_t rows, int64_t n, int64_t keep,
                           int32_t *indices) {
    const Block block = {scores, bfloat16, bias, n, keep};
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        Pool pool;
        Guess guess = {0, 0, 0};
        failed = !pool_allocate(&pool, pool_room(keep));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (failed) continue;
            keep_largest(&block, r, &guess, &pool);
            memcpy(indices + r * keep, pool.indices, (size_t)keep * sizeof(int32_t));
        }
        pool_free(&pool);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}

typedef struct {
    const float *weights, *bias;
    int64_t d, count, k;
} Rescoring;

INLINE float relu(float score) {
    return score <= 0 ? 0 : score;  // not-a-number stays what it is
}

// All candidates into the pool, with their exact scores; `scores` is scratch for as many, rounded up to sixteen.
static void score_candidates(const Rescoring *how, const float *x, const int32_t *candidates, float *scores,
                             Pool *pool) {
    for (int64_t i = 0; i < how->count; i++) {
        if (i + 2 < how->count) prefetch_row(how->weights + candidates[i + 2] * how->d, how->d);
        scores[i] = dot(x, how->weights + candidates[i] * how->d, how->d) + how->bias[candidates[i]];
    }
    pool->count = 0;
    for (int64_t i = 0; i < how->count; i += LANES) {
        __mmask16 mask = lanes(how->count - i);
        pool_put(pool, mask, load(mask, scores + i), _mm512_maskz_loadu_epi32(mask, candidates + i));
    }
}

// values[r], indices[r] = the k largest of relu(weights x + bias) among row r's candidates, ascending by index.
EXPORT int rescore(const float *x, const float *weights, const float *bias, const int32_t *candidates, int64_t rows,
                   int64_t d, int64_t count, int64_t k, float *values, int64_t *indices) {
    const Rescoring how = {weights, bias, d, count, k};
    const int64_t room = rounded_up(count, LANES);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        Pool pool;
        float *scores = lines(room, sizeof(float));
        failed = !pool_allocate(&pool, room) || !scores;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (failed) continue;
            score_candidates(&how, x + r * d, candidates + r * count, scores, &pool);
            pool_shrink(&pool, k);
            for (int64_t i = 0; i < k; i++) values[r * k + i] = relu(score_of(pool.keys[i]));
            for (int64_t i = 0; i < k; i++) indices[r * k + i] = pool.indices[i];
        }
        free(scores);
        pool_free(&pool);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}
