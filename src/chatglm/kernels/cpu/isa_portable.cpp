// portable: see CMakeLists.txt for its flags.
#define CHATGLM_ISA isa_portable
#define CHATGLM_TABLE portable
#define CHATGLM_NAME "portable"
#include "simd_portable.h"
#include "kernels.inl"
