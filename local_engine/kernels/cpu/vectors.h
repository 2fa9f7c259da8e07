/* Vectors of LANES floats, as GCC and Clang have them. See loops.h. */

typedef float NAME(vec) __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef uint32_t NAME(words) __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef uint16_t NAME(halves) __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef float NAME(quarter) __attribute__((vector_size(16), aligned(2), may_alias));

INLINE float NAME(total)(NAME(vec) v) {
  NAME(quarter) parts[LANES / 4];
  memcpy(parts, &v, sizeof v);
  for (int i = 1; i < LANES / 4; i++) parts[0] += parts[i];
  return (parts[0][0] + parts[0][2]) + (parts[0][1] + parts[0][3]);
}

INLINE NAME(vec) NAME(load_f32)(const float *from) { return *(const NAME(vec) *)from; }

INLINE NAME(vec) NAME(load_bf16)(const uint16_t *from) {
  return (NAME(vec))(__builtin_convertvector(*(const NAME(halves) *)from, NAME(words)) << 16);
}

INLINE void NAME(store_f32)(float *to, NAME(vec) v) { *(NAME(vec) *)to = v; }

/* To nearest, ties to even. */
INLINE void NAME(store_bf16)(uint16_t *to, NAME(vec) v) {
  NAME(words) w = (NAME(words))v;
  NAME(words) rounded = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
  NAME(words) no_number = (NAME(words))((NAME(words))(w & 0x7fffffff) > 0x7f800000);
  rounded = (rounded & ~no_number) | (((w >> 16) | 0x40) & no_number);
  *(NAME(halves) *)to = __builtin_convertvector(rounded, NAME(halves));
}

/* e to the power of v <= 0, to about 2 units in the last place: 2^n times a polynomial in the rest, whose coefficients
   are those of Cephes' expf. Below -87 it is 0. */
INLINE NAME(vec) NAME(exponential)(NAME(vec) v) {
  NAME(ints) in_range = v > -87.0f;
  v = (NAME(vec))((NAME(ints))v & in_range);
  NAME(ints) n = __builtin_convertvector(v * 1.44269504f - 0.5f, NAME(ints));
  NAME(vec) whole = __builtin_convertvector(n, NAME(vec));
  NAME(vec) r = v - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  NAME(vec) p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  NAME(vec) power = (NAME(vec))((n + 127) << 23);
  return (NAME(vec))((NAME(ints))(p * power) & in_range);
}
