// neon: see CMakeLists.txt for its flags.
#define CHATGLM_ISA isa_neon
#define CHATGLM_TABLE neon
#define CHATGLM_NAME "neon"
#include "simd_neon.h"
#include "kernels.inl"
