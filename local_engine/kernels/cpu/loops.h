/* All loops for one instruction set. module.c includes this once for each, with

   NAME(x)   x with the instruction set's suffix
   TARGET    the attribute that lets the compiler use it
   LANES     floats in a vector
   BF16_DOT  defined where the processor multiplies bfloat16 pairs itself (AVX512-BF16) */

#define INLINE TARGET static inline __attribute__((always_inline, unused))

#include "vectors.h"

#include "linear.h"

#include "attention.h"
#include "norm.h"

static const Loops NAME(loops) = {
    {NAME(linear_f32), NAME(linear_bf16)},   {NAME(norm_f32), NAME(norm_bf16)},     {NAME(gate_f32), NAME(gate_bf16)},
    {NAME(prepare_f32), NAME(prepare_bf16)}, {NAME(attend_f32), NAME(attend_bf16)}, {NAME(combine_f32), NAME(combine_bf16)},
};

#undef INLINE
#undef NAME
#undef TARGET
#undef LANES
#undef BF16_DOT
