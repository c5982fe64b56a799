// avx_vnni: see CMakeLists.txt for its flags.
#define CHATGLM_ISA isa_avx_vnni
#define CHATGLM_TABLE avx_vnni
#define CHATGLM_NAME "avx-vnni"
#include "simd_avx2.h"
#include "kernels.inl"
