// avx512: see CMakeLists.txt for its flags.
#define CHATGLM_ISA isa_avx512
#define CHATGLM_TABLE avx512
#define CHATGLM_NAME "avx512"
#include "simd_avx512.h"
#include "kernels.inl"
