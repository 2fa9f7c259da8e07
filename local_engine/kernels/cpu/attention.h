/* Attention of single queries to the paged cache: what decoding needs between two products. See loops.h.

   Keys and values are read once for all query heads that share them, a few dozen at a time: their scores, the running
   maximum and sum of "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", section 3.1,
   and the weighted values. A long row is split among threads ("Flash-Decoding for long-context inference"), and the
   parts are combined afterwards. All sums are in float32. */

#define KEYS 32 /* keys at a time: their values, widened, stay in the nearest cache */

/* Norm, rotation, and the cache's new entry, for one token. Norm's weights are multiplied in the cache's type, as
   transformers does. */
#define PREPARE(type, number)                                                                                        \
  INLINE void NAME(head_##type)(const Attention *p, const number *from, number *to, long token, long head) {         \
    const long dim = p->dim, half = p->rotary / 2;                                                                   \
    const float *cosines = p->cosines + token * half, *sines = p->sines + token * half;                              \
    float x[MOST_DIM];                                                                                               \
    for (long d = 0; d < dim; d++) x[d] = widened_##type(from[d]);                                                   \
    if (p->head_norm) {                                                                                              \
      const number *weight = (const number *)p->head_norm + head * dim;                                              \
      float squares = 0;                                                                                             \
      for (long d = 0; d < dim; d++) squares += x[d] * x[d];                                                         \
      const float scale = 1.0f / __builtin_sqrtf(squares / (float)dim + p->eps);                                     \
      for (long d = 0; d < dim; d++) {                                                                               \
        x[d] = widened_##type(narrowed_##type(x[d] * scale)) * widened_##type(weight[d]);                            \
        x[d] = widened_##type(narrowed_##type(x[d]));                                                                \
      }                                                                                                              \
    }                                                                                                                \
    for (long d = 0; d < half; d++) {                                                                                \
      to[d] = narrowed_##type(x[d] * cosines[d] - x[d + half] * sines[d]);                                           \
      to[d + half] = narrowed_##type(x[d + half] * cosines[d] + x[d] * sines[d]);                                    \
    }                                                                                                                \
    for (long d = 2 * half; d < dim; d++) to[d] = narrowed_##type(x[d]);                                             \
  }                                                                                                                  \
                                                                                                                     \
  TARGET static void NAME(prepare_##type)(const void *given, long begin, long end) {                                 \
    const Attention *p = given;                                                                                      \
    const long dim = p->dim, groups = p->groups, queries = p->heads * groups;                                        \
    for (long token = begin; token < end; token++) {                                                                 \
      const number *row = (const number *)p->qkv + token * (queries + 2 * p->heads) * dim;                           \
      for (long head = 0; head < queries; head++)                                                                    \
        NAME(head_##type)(p, row + head * dim, (number *)p->q + (token * queries + head) * dim, token, head);        \
      for (long head = 0; head < p->heads; head++) {                                                                 \
        const long place = p->write[token * p->heads + head] * dim;                                                  \
        const number *value = row + (queries + p->heads + head) * dim;                                               \
        NAME(head_##type)(p, row + (queries + head) * dim, (number *)p->keys + place, token, queries + head);        \
        memcpy((number *)p->values + place, value, dim * sizeof(number));                                            \
      }                                                                                                              \
    }                                                                                                                \
  }

/* `count` keys and values that lie together, added to what was seen before them. */
#define BLOCK(type, number)                                                                                          \
  INLINE void NAME(block_##type)(const Attention *p, const number *q, const number *k, const number *v, long count,  \
                                 float *sums, float *most, float *total) {                                           \
    const long dim = p->dim, wide = p->wide, groups = p->groups;                                                     \
    float values[KEYS * MOST_DIM] __attribute__((aligned(64)));                                                      \
    float scores[8][KEYS] __attribute__((aligned(64)));                                                              \
    for (long j = 0; j < count; j++) {                                                                               \
      long d = 0;                                                                                                    \
      for (; d + LANES <= dim; d += LANES) NAME(store_f32)(values + j * wide + d, NAME(load_##type)(v + j * dim + d)); \
      for (; d < wide; d++) values[j * wide + d] = d < dim ? widened_##type(v[j * dim + d]) : 0;                     \
    }                                                                                                                \
    for (long g = 0; g < groups; g += 8) {                                                                           \
      const int some = groups - g < 8 ? (int)(groups - g) : 8;                                                       \
      for (long j = 0; j < count; j++) {                                                                             \
        float dots[8];                                                                                               \
        const number *key = k + j * dim, *query = q + g * dim;                                                       \
        switch (some) {                                                                                              \
          case 1: NAME(dot_##type)(key, query, dim, dots, 1); break;                                                 \
          case 2: NAME(dot_##type)(key, query, dim, dots, 2); break;                                                 \
          case 3: NAME(dot_##type)(key, query, dim, dots, 3); break;                                                 \
          case 4: NAME(dot_##type)(key, query, dim, dots, 4); break;                                                 \
          case 5: NAME(dot_##type)(key, query, dim, dots, 5); break;                                                 \
          case 6: NAME(dot_##type)(key, query, dim, dots, 6); break;                                                 \
          case 7: NAME(dot_##type)(key, query, dim, dots, 7); break;                                                 \
          default: NAME(dot_##type)(key, query, dim, dots, 8);                                                       \
        }                                                                                                            \
        for (int s = 0; s < some; s++) scores[s][j] = dots[s] * p->scale;                                            \
      }                                                                                                              \
      for (int s = 0; s < some; s++) NAME(weigh)(scores[s], values, count, wide, sums + (g + s) * wide, most + g + s, total + g + s); \
    }                                                                                                                \
  }

INLINE void NAME(weigh)(float *scores, const float *values, long count, long wide, float *sums, float *most,
                        float *total) {
  float highest = *most;
  for (long j = 0; j < count; j++) highest = scores[j] > highest ? scores[j] : highest;
  for (long j = count; j < KEYS; j++) scores[j] = -1e30f;
  NAME(vec) added = (NAME(vec)){0};
  for (long j = 0; j < KEYS; j += LANES) {
    NAME(vec) weight = NAME(exponential)(NAME(load_f32)(scores + j) - highest);
    NAME(store_f32)(scores + j, weight);
    added += weight;
  }
  const float shrunk = *total > 0 ? NAME(exponential)((NAME(vec)){0} + (*most - highest))[0] : 0;
  *most = highest;
  *total = *total * shrunk + NAME(total)(added);
  for (long d = 0; d < wide; d += LANES) {
    NAME(vec) even = NAME(load_f32)(sums + d) * shrunk, odd = (NAME(vec)){0};
    long j = 0;
    for (; j + 2 <= count; j += 2) {
      even += scores[j] * NAME(load_f32)(values + j * wide + d);
      odd += scores[j + 1] * NAME(load_f32)(values + (j + 1) * wide + d);
    }
    if (j < count) even += scores[j] * NAME(load_f32)(values + j * wide + d);
    NAME(store_f32)(sums + d, even + odd);
  }
}

#define ATTEND(type, number)                                                                                         \
  TARGET static void NAME(attend_##type)(const void *given, long begin, long end) {                                  \
    const Attention *p = given;                                                                                      \
    for (long part = begin; part < end; part++) {                                                                    \
      const long row = part / p->splits, split = part % p->splits, token = row / p->heads, head = row % p->heads;    \
      float *sums = p->sums + part * p->groups * p->wide, *most = p->most + part * p->groups;                        \
      float *total = p->total + part * p->groups;                                                                    \
      memset(sums, 0, p->groups * p->wide * sizeof *sums);                                                           \
      for (long g = 0; g < p->groups; g++) most[g] = -1e30f, total[g] = 0;                                           \
      const long seen = p->past[token * p->past_stride + head] + 1;                                                  \
      const long low = p->window && seen > p->window ? seen - p->window : 0;                                         \
      const long each = (seen - low + p->splits - 1) / p->splits;                                                    \
      const long first = low + split * each, last = first + each < seen ? first + each : seen;                       \
      const int32_t *pages = p->table + p->slots[token] * p->slot_stride + head * p->head_stride;                    \
      const number *q = (const number *)p->q + row * p->groups * p->dim;                                             \
      for (long key = first; key < last;) {                                                                          \
        const long inside = key % p->page;                                                                           \
        long count = p->page - inside < KEYS ? p->page - inside : KEYS;                                              \
        count = last - key < count ? last - key : count;                                                             \
        const long place = (pages[key / p->page] * p->page + inside) * p->dim;                                       \
        NAME(block_##type)(p, q, (const number *)p->keys + place, (const number *)p->values + place, count, sums,    \
                           most, total);                                                                             \
        key += count;                                                                                                \
      }                                                                                                              \
    }                                                                                                                \
  }                                                                                                                  \
                                                                                                                     \
  TARGET static void NAME(combine_##type)(const void *given, long begin, long end) {                                 \
    const Attention *p = given;                                                                                      \
    for (long each = begin * p->groups; each < end * p->groups; each++) {                                            \
      const long first = each / p->groups * p->splits * p->groups + each % p->groups;                                \
      float *sums = p->sums + first * p->wide, all = 0, highest = -1e30f;                                            \
      for (long s = 0; s < p->splits; s++)                                                                           \
        if (p->most[first + s * p->groups] > highest) highest = p->most[first + s * p->groups];                      \
      for (long s = 0; s < p->splits; s++) {                                                                         \
        const long at = first + s * p->groups;                                                                       \
        const float weight = NAME(exponential)((NAME(vec)){0} + (p->most[at] - highest))[0];                         \
        all += weight * p->total[at];                                                                                \
        for (long d = 0; d < p->wide; d += LANES) {                                                                  \
          NAME(vec) before = s ? NAME(load_f32)(sums + d) : (NAME(vec)){0};                                          \
          NAME(store_f32)(sums + d, before + weight * NAME(load_f32)(p->sums + at * p->wide + d));                   \
        }                                                                                                            \
      }                                                                                                              \
      for (long d = 0; d < p->dim; d++) ((number *)p->y)[each * p->dim + d] = narrowed_##type(sums[d] / all);        \
    }                                                                                                                \
  }

PREPARE(bf16, uint16_t)
PREPARE(f32, float)
BLOCK(bf16, uint16_t)
BLOCK(f32, float)
ATTEND(bf16, uint16_t)
ATTEND(f32, float)

#undef ATTEND
#undef BLOCK
#undef PREPARE
#undef KEYS
