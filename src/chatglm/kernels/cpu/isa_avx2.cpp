// avx2: see CMakeLists.txt for its flags.
#define CHATGLM_ISA isa_avx2
#define CHATGLM_TABLE avx2
#define CHATGLM_NAME "avx2"
#include "simd_avx2.h"
#include "kernels.inl"
