// __half and __nv_bfloat16 in software: storage of 16 bits, arithmetic in float, one rounding to nearest, ties to even.
#pragma once

namespace cuda_host {

// A number with `E` bits of exponent and `M` of mantissa, from a double: so also from a float, without rounding twice.
template <int E, int M> uint16_t encode(double value) {
  constexpr int bias = (1 << (E - 1)) - 1;
  constexpr uint16_t infinity = uint16_t(((1 << E) - 1) << M);
  uint64_t bits = bits_of(value);
  uint16_t sign = uint16_t(bits >> 63 << 15);
  if (std::isnan(value)) return 0x7fff;  // CUDA's one NaN
  int exponent = int(bits >> 52 & 0x7ff) - 1023;
  if (exponent < 1 - bias - M - 1) return sign;  // less than half of the smallest subnormal; also zero
  uint64_t mantissa = (bits & 0xfffffffffffffull) | 1ull << 52;
  int shift = 52 - M + (exponent < 1 - bias ? 1 - bias - exponent : 0);
  uint64_t kept = mantissa >> shift, rest = mantissa & ((1ull << shift) - 1), half = 1ull << (shift - 1);
  kept += rest > half || (rest == half && (kept & 1));
  // The leading bit of a normal number adds one to the exponent field; a carry out of the mantissa does so too.
  int64_t field = exponent < 1 - bias ? 0 : exponent + bias - 1;
  if (field > (1 << E)) return sign | infinity;
  uint64_t result = (uint64_t(field) << M) + kept;
  return sign | (result >= infinity ? infinity : uint16_t(result));
}

template <int E, int M> float decode(uint16_t bits) {
  constexpr int bias = (1 << (E - 1)) - 1;
  uint32_t sign = uint32_t(bits >> 15) << 31, exponent = bits >> M & ((1 << E) - 1), mantissa = bits & ((1 << M) - 1);
  if (exponent == (1 << E) - 1) return value_of<float>(sign | 0x7f800000u | mantissa << (23 - M));
  float size = exponent ? ldexpf(float(mantissa | 1 << M), int(exponent) - bias - M) : ldexpf(float(mantissa), 1 - bias - M);
  return value_of<float>(bits_of(size) | sign);
}

}  // namespace cuda_host

#define CUDA_HOST_SMALL_FLOAT(Name, Raw, E, M)                                                                            \
  struct Raw { unsigned short x; };                                                                                       \
  struct Name {                                                                                                           \
    unsigned short __x;                                                                                                   \
    Name() = default;                                                                                                     \
    Name(Raw raw) : __x(raw.x) {}                                                                                         \
    Name(float value) : __x(cuda_host::encode<E, M>(value)) {}                                                            \
    Name(double value) : __x(cuda_host::encode<E, M>(value)) {}                                                           \
    Name(int value) : __x(cuda_host::encode<E, M>(value)) {}                                                              \
    Name(unsigned value) : __x(cuda_host::encode<E, M>(value)) {}                                                         \
    operator float() const { return cuda_host::decode<E, M>(__x); }                                                       \
    operator Raw() const { return {__x}; }                                                                                \
    Name& operator+=(const Name& other) { return *this = Name(float(*this) + float(other)); }                             \
    Name& operator-=(const Name& other) { return *this = Name(float(*this) - float(other)); }                             \
    Name& operator*=(const Name& other) { return *this = Name(float(*this) * float(other)); }                             \
    Name& operator/=(const Name& other) { return *this = Name(float(*this) / float(other)); }                             \
  };                                                                                                                      \
  inline Name operator+(const Name& a, const Name& b) { return Name(float(a) + float(b)); }                               \
  inline Name operator-(const Name& a, const Name& b) { return Name(float(a) - float(b)); }                               \
  inline Name operator*(const Name& a, const Name& b) { return Name(float(a) * float(b)); }                               \
  inline Name operator/(const Name& a, const Name& b) { return Name(float(a) / float(b)); }                               \
  inline Name operator-(const Name& a) { return Name(-float(a)); }                                                        \
  inline bool operator<(const Name& a, const Name& b) { return float(a) < float(b); }                                     \
  inline bool operator>(const Name& a, const Name& b) { return float(a) > float(b); }                                     \
  inline bool operator<=(const Name& a, const Name& b) { return float(a) <= float(b); }                                   \
  inline bool operator>=(const Name& a, const Name& b) { return float(a) >= float(b); }                                   \
  inline bool operator==(const Name& a, const Name& b) { return float(a) == float(b); }                                   \
  inline bool operator!=(const Name& a, const Name& b) { return float(a) != float(b); }                                   \
  struct __align__(4) Name##2 {                                                                                           \
    Name x, y;                                                                                                            \
    Name##2() = default;                                                                                                  \
    Name##2(const Name& x, const Name& y) : x(x), y(y) {}                                                                 \
  };                                                                                                                      \
  inline Name __hadd(Name a, Name b) { return a + b; }                                                                    \
  inline Name __hsub(Name a, Name b) { return a - b; }                                                                    \
  inline Name __hmul(Name a, Name b) { return a * b; }                                                                    \
  inline Name __hdiv(Name a, Name b) { return a / b; }                                                                    \
  inline Name __hfma(Name a, Name b, Name c) { return Name(::fma(double(float(a)), double(float(b)), double(float(c)))); }  \
  inline Name __hneg(Name a) { return -a; }                                                                               \
  inline Name __habs(Name a) { return Name(fabsf(float(a))); }                                                            \
  inline Name __hmax(Name a, Name b) { return Name(fmaxf(float(a), float(b))); }                                          \
  inline Name __hmin(Name a, Name b) { return Name(fminf(float(a), float(b))); }                                          \
  inline bool __heq(Name a, Name b) { return a == b; }                                                                    \
  inline bool __hne(Name a, Name b) { return a != b; }                                                                    \
  inline bool __hlt(Name a, Name b) { return a < b; }                                                                     \
  inline bool __hle(Name a, Name b) { return a <= b; }                                                                    \
  inline bool __hgt(Name a, Name b) { return a > b; }                                                                     \
  inline bool __hge(Name a, Name b) { return a >= b; }                                                                    \
  inline bool __hisnan(Name a) { return std::isnan(float(a)); }                                                           \
  inline Name hexp(Name a) { return Name(expf(float(a))); }                                                               \
  inline Name hlog(Name a) { return Name(logf(float(a))); }                                                               \
  inline Name hsqrt(Name a) { return Name(sqrtf(float(a))); }                                                             \
  inline Name hrsqrt(Name a) { return Name(rsqrtf(float(a))); }                                                           \
  inline Name hrcp(Name a) { return Name(1.0f / float(a)); }                                                              \
  inline Name htanh(Name a) { return Name(tanhf(float(a))); }                                                             \
  inline Name##2 __hadd2(Name##2 a, Name##2 b) { return {a.x + b.x, a.y + b.y}; }                                         \
  inline Name##2 __hsub2(Name##2 a, Name##2 b) { return {a.x - b.x, a.y - b.y}; }                                         \
  inline Name##2 __hmul2(Name##2 a, Name##2 b) { return {a.x * b.x, a.y * b.y}; }                                         \
  inline Name##2 __hfma2(Name##2 a, Name##2 b, Name##2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }       \
  inline float __low2float(Name##2 a) { return float(a.x); }                                                              \
  inline float __high2float(Name##2 a) { return float(a.y); }                                                             \
  template <> struct cuda_host::Described<Name>
