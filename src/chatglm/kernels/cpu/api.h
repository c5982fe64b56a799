/* The C interface, which Python calls through ctypes. Pointers may be unaligned. The library keeps no pointers, except
   those given to cg_decoder_new: that memory must live as long as the decoder. */
#pragma once
#include <stdint.h>

#if defined(_WIN32)
#define CG_EXPORT __declspec(dllexport)
#else
#define CG_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { CG_INTERFACE = 3 };

/* element types */
enum { CG_FLOAT32 = 0, CG_FLOAT16 = 1, CG_BFLOAT16 = 2, CG_INT8 = 3, CG_INT16 = 4 };

typedef struct {
  const void* data;
  const uint16_t* scales;
  const float* bias; /* or null */
  int64_t rows, columns;
  int32_t group; /* columns that share a scale, 0: the whole row */
  int32_t kind;  /* 4, 8: packed integers; 16: float16 rows; 17: bfloat16 rows; 32: float32 rows */
} cg_weight;

typedef struct {
  const float *norm1, *norm1_bias, *norm2, *norm2_bias; /* biases: LayerNorm; null: RMSNorm */
  cg_weight qkv, dense, up, down;
} cg_layer;

typedef struct {
  const cg_layer* layer;
  const float *final_norm, *final_norm_bias;
  cg_weight head;
  const int32_t* pairs; /* pairs of channels of a head that are rotated by one angle each: 2 * angles indices */
  int64_t hidden, inner;
  int32_t layers, heads, groups, channels, angles;
  int32_t gated;       /* 1: up holds gate and up, SwiGLU; 0: GELU (tanh) */
  int32_t interleaved; /* rows of qkv: 1: query, key, value of each head in turn; 0: all queries, all keys, all values */
  int32_t page_tokens; /* a multiple of 16 */
  /* type of keys and values: CG_FLOAT32, CG_FLOAT16, CG_INT16 or CG_INT8 (integers: a scale for each token and group) */
  int32_t store;
  float eps;
  float alpha; /* 0: x + f(norm(x)); else alpha * norm(x) + f(norm(x)) */
} cg_model;

typedef struct {
  float* hidden;           /* afterwards it holds the last layer's output, before the final norm: [rows][hidden] */
  const float *cosines, *sines; /* [rows][angles] */
  const int64_t* tables;   /* [sequences][pages_per_table]: addresses of pages */
  /* [rows] each: the row's sequence; where its key and value are stored; how many tokens it attends to */
  const int32_t *sequence, *position, *visible;
  const int32_t* wanted;   /* indices of the rows whose logits are computed */
  float* logits;           /* [wanted][head.rows] */
  float* states;           /* [wanted][hidden], after the final norm; or null */
  int64_t rows, pages_per_table, wanted_count;
} cg_batch;

CG_EXPORT int cg_interface(void);
CG_EXPORT const char* cg_variants(void); /* variants that this CPU can run, the best first, separated by spaces */
CG_EXPORT const char* cg_variant(void);
CG_EXPORT int cg_use(const char* variant); /* 0, or -1: no such variant here */
CG_EXPORT int cg_store(void); /* the two-byte type for keys and values that the variant handles faster: CG_FLOAT16 or CG_INT16 */
CG_EXPORT void cg_set_threads(int threads);
CG_EXPORT int cg_threads(void);

/* out[rows][weight.rows] = x[rows][weight.columns] times weight, plus bias */
CG_EXPORT int cg_linear(const cg_weight* weight, const void* x, int x_type, int64_t rows, int64_t x_stride, void* out,
                        int out_type, int64_t out_stride);
/* Quantises rows of floats to bytes, as cg_linear does; for tests. */
CG_EXPORT void cg_quantize(const float* x, int64_t rows, int64_t columns, int block, int8_t* bytes, float* scales, int32_t* sums);

CG_EXPORT int64_t cg_page_bytes(const cg_model* model); /* bytes of a page, which holds all layers */
CG_EXPORT void* cg_decoder_new(const cg_model* model);  /* null: a shape is not supported */
CG_EXPORT void cg_decoder_free(void* decoder);
CG_EXPORT int cg_decoder_run(void* decoder, const cg_batch* batch); /* 0: done; -1: out of memory */

#ifdef __cplusplus
}
#endif
