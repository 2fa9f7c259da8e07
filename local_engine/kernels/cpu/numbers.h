/* bfloat16 and float32. */

#ifndef LCDOC_NUMBERS_H
#define LCDOC_NUMBERS_H

#include <stdint.h>
#include <string.h>

static inline float widened_bf16(uint16_t bits) {
  uint32_t word = (uint32_t)bits << 16;
  float number;
  memcpy(&number, &word, sizeof number);
  return number;
}

static inline float widened_f32(float number) { return number; }

static inline uint16_t narrowed_bf16(float number) {
  uint32_t word;
  memcpy(&word, &number, sizeof word);
  if ((word & 0x7fffffff) > 0x7f800000) return (uint16_t)(word >> 16 | 0x40); /* stays no number */
  return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);                 /* to nearest, ties to even */
}

static inline float narrowed_f32(float number) { return number; }

#endif
