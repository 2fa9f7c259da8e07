/* y = x @ weight.T + bias, for a few rows of x. See loops.h.

   Decoding reads every weight for every token, so it is as fast as the memory is read. A weight is read as it lies in its
   file, row after row, as one stream, which is what memory is fastest at; x is in the nearest cache. `dot` is one row
   of the weight times `tokens` rows of x, a number known when it is compiled, so that all its sums stay in registers.
   Sums are in float32. */

/* 2 * LANES numbers of each. bfloat16 is the upper half of a float32: of a word with two, one is shifted up and one
   masked. */
INLINE void NAME(add_bf16)(NAME(vec) *sums, const uint16_t *w, const uint16_t *x, long inputs, const int tokens) {
#ifdef BF16_DOT
  __m512bh pairs = (__m512bh)_mm512_loadu_si512(w);
  for (int t = 0; t < tokens; t++)
    sums[t] = (NAME(vec))_mm512_dpbf16_ps((__m512)sums[t], pairs, (__m512bh)_mm512_loadu_si512(x + t * inputs));
#else
  NAME(words) pairs = *(const NAME(words) *)w;
  NAME(vec) low = (NAME(vec))(pairs << 16), high = (NAME(vec))(pairs & 0xffff0000u);
  for (int t = 0; t < tokens; t++) {
    NAME(words) other = *(const NAME(words) *)(x + t * inputs);
    sums[t] += low * (NAME(vec))(other << 16);
    sums[t] += high * (NAME(vec))(other & 0xffff0000u);
  }
#endif
}

INLINE void NAME(add_f32)(NAME(vec) *sums, const float *w, const float *x, long inputs, const int tokens) {
  NAME(vec) low = *(const NAME(vec) *)w, high = *(const NAME(vec) *)(w + LANES);
  for (int t = 0; t < tokens; t++) {
    sums[t] += low * *(const NAME(vec) *)(x + t * inputs);
    sums[t] += high * *(const NAME(vec) *)(x + t * inputs + LANES);
  }
}

#define AHEAD 1024 /* bytes that are asked for before they are needed */

#define DOT(type, number)                                                                                         \
  INLINE void NAME(dot_##type)(const number *w, const number *x, long inputs, float *out, const int tokens) {     \
    NAME(vec) first[8], second[8]; /* two of each: an addition need not wait for the one before */                \
    for (int t = 0; t < tokens; t++) first[t] = second[t] = (NAME(vec)){0};                                       \
    long c = 0;                                                                                                   \
    for (; c + 4 * LANES <= inputs; c += 4 * LANES) {                                                             \
      for (int line = 0; line < 4 * LANES * (int)sizeof(number); line += 64)                                      \
        __builtin_prefetch((const char *)(w + c) + line + AHEAD);                                                 \
      NAME(add_##type)(first, w + c, x + c, inputs, tokens);                                                      \
      NAME(add_##type)(second, w + c + 2 * LANES, x + c + 2 * LANES, inputs, tokens);                             \
    }                                                                                                             \
    if (c + 2 * LANES <= inputs) {                                                                                \
      NAME(add_##type)(first, w + c, x + c, inputs, tokens);                                                      \
      c += 2 * LANES;                                                                                             \
    }                                                                                                             \
    for (int t = 0; t < tokens; t++) {                                                                            \
      float sum = NAME(total)(first[t] + second[t]);                                                              \
      for (long i = c; i < inputs; i++) sum += widened_##type(w[i]) * widened_##type(x[t * inputs + i]);          \
      out[t] = sum;                                                                                               \
    }                                                                                                             \
  }

#define PUT(type, number)                                                                  \
  INLINE void NAME(put_##type)(const Product *p, long token, long output, float sum) {     \
    if (p->bias) sum += widened_##type(((const number *)p->bias)[output]);                 \
    ((number *)p->y)[token * p->outputs + output] = narrowed_##type(sum);                  \
  }

#define RANGE(type, number)                                                                \
  TARGET static void NAME(linear_##type)(const void *given, long begin, long end) {         \
    const Product *p = given;                                                              \
    const long k = p->inputs;                                                              \
    float sums[8];                                                                         \
    for (long n = begin; n < end; n++)                                                     \
      for (long t = 0; t < p->tokens; t += 8) {                                            \
        const int tokens = p->tokens - t < 8 ? (int)(p->tokens - t) : 8;                   \
        const number *w = (const number *)p->w + n * k, *x = (const number *)p->x + t * k; \
        switch (tokens) {                                                                  \
          case 1: NAME(dot_##type)(w, x, k, sums, 1); break;                               \
          case 2: NAME(dot_##type)(w, x, k, sums, 2); break;                               \
          case 3: NAME(dot_##type)(w, x, k, sums, 3); break;                               \
          case 4: NAME(dot_##type)(w, x, k, sums, 4); break;                               \
          case 5: NAME(dot_##type)(w, x, k, sums, 5); break;                               \
          case 6: NAME(dot_##type)(w, x, k, sums, 6); break;                               \
          case 7: NAME(dot_##type)(w, x, k, sums, 7); break;                               \
          default: NAME(dot_##type)(w, x, k, sums, 8);                                     \
        }                                                                                  \
        for (int s = 0; s < tokens; s++) NAME(put_##type)(p, t + s, n, sums[s]);               \
      }                                                                                    \
  }

DOT(bf16, uint16_t)
DOT(f32, float)
PUT(bf16, uint16_t)
PUT(f32, float)
RANGE(bf16, uint16_t)
RANGE(f32, float)

#undef RANGE
#undef PUT
#undef DOT
#undef AHEAD
