// CUDA's mathematical functions that C++ lacks; tanhf, erf, fmaxf and the rest are the C library's.
//
// The approximate ones (__expf, rsqrtf, __fdividef) are computed exactly, to the type's precision: what a GPU loses with them
// is nothing that a CPU can show.
#pragma once

using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;

// --- limits that <math_constants.h> names ------------------------------------------------------------------------

#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI_F 3.14159265358979323846f
#define CUDART_PI 3.14159265358979323846

// --- both precisions ---------------------------------------------------------------------------------------------

inline float rsqrtf(float x) { return float(1.0 / ::sqrt(double(x))); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float rcbrtf(float x) { return float(1.0 / ::cbrt(double(x))); }
inline double rcbrt(double x) { return 1.0 / ::cbrt(x); }
inline float rcbrt(float x) { return rcbrtf(x); }
inline float normcdff(float x) { return float(0.5 * ::erfc(-double(x) * 0.70710678118654752440)); }
inline double normcdf(double x) { return 0.5 * ::erfc(-x * 0.70710678118654752440); }
inline float normcdf(float x) { return normcdff(x); }
inline float sinpif(float x) { return float(::sin(CUDART_PI * ::fmod(double(x), 2.0))); }
inline double sinpi(double x) { return ::sin(CUDART_PI * ::fmod(x, 2.0)); }
inline float cospif(float x) { return float(::cos(CUDART_PI * ::fmod(double(x), 2.0))); }
inline double cospi(double x) { return ::cos(CUDART_PI * ::fmod(x, 2.0)); }
inline void sincos(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }
inline float exp10(float x) { return exp10f(x); }
inline float fdividef(float x, float y) { return x / y; }
inline float fdivide(float x, float y) { return x / y; }
inline double fdivide(double x, double y) { return x / y; }

// --- min and max: <cmath> has fmin and fmax alone ------------------------------------------------------------------

#define CUDA_HOST_EXTREMES(T)                                      \
  __forceinline__ T min(T a, T b) { return b < a ? b : a; }         \
  __forceinline__ T max(T a, T b) { return a < b ? b : a; }
CUDA_HOST_EXTREMES(int)
CUDA_HOST_EXTREMES(unsigned int)
CUDA_HOST_EXTREMES(long)
CUDA_HOST_EXTREMES(unsigned long)
CUDA_HOST_EXTREMES(long long)
CUDA_HOST_EXTREMES(unsigned long long)
#undef CUDA_HOST_EXTREMES
__forceinline__ float min(float a, float b) { return fminf(a, b); }
__forceinline__ float max(float a, float b) { return fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return ::fmin(a, b); }
__forceinline__ double max(double a, double b) { return ::fmax(a, b); }
__forceinline__ double min(float a, double b) { return ::fmin(double(a), b); }
__forceinline__ double min(double a, float b) { return ::fmin(a, double(b)); }
__forceinline__ double max(float a, double b) { return ::fmax(double(a), b); }
__forceinline__ double max(double a, float b) { return ::fmax(a, double(b)); }
__forceinline__ unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
__forceinline__ unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
__forceinline__ unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
__forceinline__ unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }

// --- intrinsics ------------------------------------------------------------------------------------------------------

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return ::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }

// --- conversions and bits --------------------------------------------------------------------------------------------

inline int __float_as_int(float x) { return int(cuda_host::bits_of(x)); }
inline unsigned __float_as_uint(float x) { return cuda_host::bits_of(x); }
inline float __int_as_float(int x) { return cuda_host::value_of<float>(unsigned(x)); }
inline float __uint_as_float(unsigned x) { return cuda_host::value_of<float>(x); }
inline long long __double_as_longlong(double x) { return (long long)(cuda_host::bits_of(x)); }
inline double __longlong_as_double(long long x) { return cuda_host::value_of<double>(uint64_t(x)); }
inline float __double2float_rn(double x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline double __int2double_rn(int x) { return double(x); }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline int __double2int_rn(double x) { return int(::nearbyint(x)); }
inline int __double2int_rz(double x) { return int(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; i++) result |= (x >> i & 1) << (31 - i);
  return result;
}
inline int __mul24(int a, int b) { return int(unsigned(a << 8 >> 8) * unsigned(b << 8 >> 8)); }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }

// --- loads and stores with a cache hint, which a CPU has no use for ------------------------------------------------------

#define CUDA_HOST_LOAD(name) \
  template <class T> __forceinline__ T name(const T* where) { return *where; }
#define CUDA_HOST_STORE(name) \
  template <class T> __forceinline__ void name(T* where, T value) { *where = value; }
CUDA_HOST_LOAD(__ldg)
CUDA_HOST_LOAD(__ldca)
CUDA_HOST_LOAD(__ldcg)
CUDA_HOST_LOAD(__ldcs)
CUDA_HOST_LOAD(__ldlu)
CUDA_HOST_LOAD(__ldcv)
CUDA_HOST_STORE(__stwb)
CUDA_HOST_STORE(__stcg)
CUDA_HOST_STORE(__stcs)
CUDA_HOST_STORE(__stwt)
#undef CUDA_HOST_LOAD
#undef CUDA_HOST_STORE
