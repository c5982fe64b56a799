/* The C interface, which Python calls through ctypes. Pointers may be unaligned; nothing is kept but what a handle of
   cg_decoder_new names, which must outlive it. */
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
  const int32_t* pairs; /* channels of a head that turn together, 2 for each angle */
  int64_t hidden, inner;
  int32_t layers, heads, groups, channels, angles;
  int32_t gated;       /* 1: up holds gate and up, SwiGLU; 0: GELU (tanh) */
  int32_t interleaved; /* 1: rows of qkv are query, key, value of one head after the other; 0: all queries, keys, values */
  int32_t page_tokens; /* a multiple of 16 */
  int32_t store;       /* of keys and values: CG_FLOAT32, CG_FLOAT16, CG_INT16 or CG_INT8 (each token of each group has a scale) */
  float eps;
  float alpha; /* 0: x + f(norm(x)); else alpha * norm(x) + f(norm(x)) */
} cg_model;

typedef struct {
  float* hidden;           /* [rows][hidden]; holds the last layer's output afterwards, before the final norm */
  const float *cosines, *sines; /* [rows][angles] */
  const int64_t* tables;   /* [sequences][pages_per_table]: addresses of pages */
  const int32_t *sequence, *position, *visible; /* [rows]: whose; where its key goes; how many tokens it sees */
  const int32_t* wanted;   /* rows whose logits are asked for */
  float* logits;           /* [wanted][head.rows] */
  float* states;           /* [wanted][hidden], after the final norm; or null */
  int64_t rows, pages_per_table, wanted_count;
} cg_batch;

CG_EXPORT int cg_interface(void);
CG_EXPORT const char* cg_variants(void); /* those that this CPU can run, the best first, separated by spaces */
CG_EXPORT const char* cg_variant(void);
CG_EXPORT int cg_use(const char* variant); /* 0, or -1: no such variant here */
CG_EXPORT int cg_store(void); /* of two bytes, what the variant attends to faster: CG_FLOAT16 or CG_INT16 */
CG_EXPORT void cg_set_threads(int threads);
CG_EXPORT int cg_threads(void);

/* out[rows][weight.rows] = x[rows][weight.columns] times weight, plus bias */
CG_EXPORT int cg_linear(const cg_weight* weight, const void* x, int x_type, int64_t rows, int64_t x_stride, void* out,
                        int out_type, int64_t out_stride);
/* Rows of floats to bytes, as cg_linear does it: for tests. */
CG_EXPORT void cg_quantize(const float* x, int64_t rows, int64_t columns, int block, int8_t* bytes, float* scales, int32_t* sums);

CG_EXPORT int64_t cg_page_bytes(const cg_model* model); /* of all layers */
CG_EXPORT void* cg_decoder_new(const cg_model* model);  /* null: it has a shape that is not supported */
CG_EXPORT void cg_decoder_free(void* decoder);
CG_EXPORT int cg_decoder_run(void* decoder, const cg_batch* batch); /* 0; -1: out of memory */

#ifdef __cplusplus
}
#endif
