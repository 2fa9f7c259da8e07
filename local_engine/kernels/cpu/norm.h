/* Root mean square norm, after adding what a layer gave to the stream. See loops.h. */

#define NORM(type, number)                                                                                      \
  TARGET static void NAME(norm_##type)(const void *given, long begin, long end) {                               \
    const Norm *p = given;                                                                                      \
    const number *weight = p->weight;                                                                           \
    for (long token = begin; token < end; token++) {                                                            \
      number *x = (number *)p->x + token * p->size, *y = (number *)p->y + token * p->size;                      \
      const number *more = p->residual ? (const number *)p->residual + token * p->size : NULL;                  \
      const long whole = p->size / LANES * LANES;                                                               \
      NAME(vec) squares = (NAME(vec)){0};                                                                       \
      for (long d = 0; d < whole; d += LANES) {                                                                 \
        NAME(vec) v = NAME(load_##type)(x + d);                                                                 \
        if (more) {                                                                                             \
          NAME(store_##type)(x + d, v + NAME(load_##type)(more + d));                                           \
          v = NAME(load_##type)(x + d);                                                                         \
        }                                                                                                       \
        squares += v * v;                                                                                       \
      }                                                                                                         \
      float sum = NAME(total)(squares);                                                                         \
      for (long d = whole; d < p->size; d++) {                                                                  \
        if (more) x[d] = narrowed_##type(widened_##type(x[d]) + widened_##type(more[d]));                       \
        sum += widened_##type(x[d]) * widened_##type(x[d]);                                                     \
      }                                                                                                         \
      const float scale = 1.0f / __builtin_sqrtf(sum / (float)p->size + p->eps);                                \
      for (long d = 0; d < whole; d += LANES) {                                                                 \
        NAME(store_##type)(y + d, NAME(load_##type)(x + d) * scale);                                            \
        NAME(store_##type)(y + d, NAME(load_##type)(y + d) * NAME(load_##type)(weight + d));                    \
      }                                                                                                         \
      for (long d = whole; d < p->size; d++)                                                                    \
        y[d] = narrowed_##type(widened_##type(narrowed_##type(widened_##type(x[d]) * scale)) *                  \
                               widened_##type(weight[d]));                                                      \
    }                                                                                                           \
  }                                                                                                             \
                                                                                                                \
  /* silu(gate) * up, for rows of [gate, up]. */                                                                \
  TARGET static void NAME(gate_##type)(const void *given, long begin, long end) {                               \
    const Norm *p = given;                                                                                      \
    for (long token = begin; token < end; token++) {                                                            \
      const number *gate = (const number *)p->x + token * 2 * p->size, *up = gate + p->size;                    \
      number *y = (number *)p->y + token * p->size;                                                             \
      for (long d = 0; d < p->size; d += LANES) {                                                               \
        const long count = p->size - d < LANES ? p->size - d : LANES;                                           \
        number gates[LANES] = {0}, ups[LANES] = {0}, products[LANES];                                           \
        memcpy(gates, gate + d, count * sizeof(number)), memcpy(ups, up + d, count * sizeof(number));           \
        NAME(vec) g = NAME(load_##type)(gates);                                                                 \
        /* 1 / (1 + e^-g), from e^-|g|, which cannot overflow. */                                               \
        NAME(ints) below = g < 0.0f;                                                                            \
        NAME(vec) small = NAME(exponential)((NAME(vec))((NAME(words))g | 0x80000000u));                         \
        NAME(vec) top = (NAME(vec))(((NAME(ints))small & below) | ((NAME(ints))((NAME(vec)){0} + 1.0f) & ~below)); \
        NAME(store_##type)(products, g * top / (1.0f + small));                                                 \
        NAME(store_##type)(products, NAME(load_##type)(products) * NAME(load_##type)(ups));                     \
        memcpy(y + d, products, count * sizeof(number));                                                        \
      }                                                                                                         \
    }                                                                                                           \
  }

NORM(bf16, uint16_t)
NORM(f32, float)

#undef NORM
