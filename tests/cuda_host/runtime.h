// What CUDA kernel text sees when it is compiled for a CPU: `g++ -include runtime.h`, before the text's first line.
//
// Every CUDA thread is a fiber (runtime.cpp), so that an operation which waits for other threads is a call that switches
// fibers. `__shared__` becomes `thread_local`, the one C++ storage class that fits each of CUDA's spellings of it (a static
// inside a function, an `extern` array of unknown size), and tls.s resolves its addresses to the memory of the
// block that runs.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmath>
#include <type_traits>
#include <utility>

// --- qualifiers ----------------------------------------------------------------------------------------------

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDA_ARCH__ 900
#define CUDA_HOST 1  // for text that must know, which is a bad sign

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ thread_local
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

// --- vectors and the place of a thread -----------------------------------------------------------------------

#define CUDA_HOST_VECTORS(T, name, align2, align4)                                                       \
  struct name##1 { T x; };                                                                               \
  struct __align__(align2) name##2 { T x, y; };                                                          \
  struct name##3 { T x, y, z; };                                                                         \
  struct __align__(align4) name##4 { T x, y, z, w; };                                                    \
  inline name##1 make_##name##1(T x) { return {x}; }                                                     \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                             \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                     \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(signed char, char, 2, 4)
CUDA_HOST_VECTORS(unsigned char, uchar, 2, 4)
CUDA_HOST_VECTORS(short, short, 4, 8)
CUDA_HOST_VECTORS(unsigned short, ushort, 4, 8)
CUDA_HOST_VECTORS(int, int, 8, 16)
CUDA_HOST_VECTORS(unsigned int, uint, 8, 16)
CUDA_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_HOST_VECTORS(float, float, 8, 16)
CUDA_HOST_VECTORS(double, double, 16, 16)
#undef CUDA_HOST_VECTORS

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

// `const`, though the scheduler changes them: within the life of one fiber they are.
extern "C" const uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// --- what switches fibers ------------------------------------------------------------------------------------

extern "C" {
// Waits for every thread of the block at the same `site`; returns how many of them had a predicate that is not zero.
int cuda_host_sync_block(int line, int site, int predicate);
// Waits for every thread of the launch.
void cuda_host_sync_grid(int line);
// Waits for the lanes of `mask`; `all[i]` is then what lane i brought, and the result says which lanes were there.
// Only `orders` (that is, __syncwarp) makes one lane's writes visible to another: a shuffle is no memory barrier.
unsigned cuda_host_exchange(unsigned mask, uint64_t value, int line, int site, int orders, uint64_t* all);
// Lets other threads run before an atomic operation. A load that never sees a change is a spin: see `changed`.
void cuda_host_yield(void);
// Tells the scheduler that an atomic operation changed something, so that spinning threads have reason to go on.
void cuda_host_changed(void);
unsigned cuda_host_active_mask(void);
[[noreturn]] void cuda_host_trap(const char* what, int line);
}

// A barrier is known by its place in the text: a count of its own, since two may be on one line.
#define __syncthreads() ((void)cuda_host_sync_block(__LINE__, __COUNTER__, 0))
#define __syncthreads_count(p) cuda_host_sync_block(__LINE__, __COUNTER__, (p) != 0)
#define __syncthreads_or(p) (cuda_host_sync_block(__LINE__, __COUNTER__, (p) != 0) != 0)
#define __syncthreads_and(p) (cuda_host_sync_block(__LINE__, __COUNTER__, (p) == 0) == 0)

#undef assert
#define assert(condition) ((condition) ? (void)0 : cuda_host_trap("assertion failed: " #condition, __LINE__))
#define __trap() cuda_host_trap("__trap() was called", __LINE__)

#include "warp.h"
#include "atomics.h"
#include "device_math.h"

// --- how the host calls a kernel -----------------------------------------------------------------------------

namespace cuda_host {

template <class T> struct Described { static constexpr const char* name = "other"; };
#define CUDA_HOST_TYPE(T, text) template <> struct Described<T> { static constexpr const char* name = text; }
CUDA_HOST_TYPE(bool, "bool");
CUDA_HOST_TYPE(char, "int8");
CUDA_HOST_TYPE(signed char, "int8");
CUDA_HOST_TYPE(unsigned char, "uint8");
CUDA_HOST_TYPE(short, "int16");
CUDA_HOST_TYPE(unsigned short, "uint16");
CUDA_HOST_TYPE(int, "int32");
CUDA_HOST_TYPE(unsigned int, "uint32");
CUDA_HOST_TYPE(long, "int64");
CUDA_HOST_TYPE(unsigned long, "uint64");
CUDA_HOST_TYPE(long long, "int64");
CUDA_HOST_TYPE(unsigned long long, "uint64");
CUDA_HOST_TYPE(float, "float32");
CUDA_HOST_TYPE(double, "float64");
CUDA_HOST_TYPE(void, "void");

// One line a parameter: "float32", "float32*" or "const float32*".
template <class A> int describe(char* out, size_t size) {
  using Target = std::remove_pointer_t<A>;
  const char* constant = std::is_pointer<A>::value && std::is_const<Target>::value ? "const " : "";
  const char* star = std::is_pointer<A>::value ? "*" : "";
  return snprintf(out, size, "%s%s%s %zu\n", constant, Described<std::remove_cv_t<Target>>::name, star, sizeof(A));
}

template <class... A> void signature(void (*)(A...), char* out, size_t size) {
  size_t used = 0;
  if (size != 0) out[0] = 0;
  ((used += used < size ? size_t(describe<std::remove_cv_t<A>>(out + used, size - used)) : 0), ...);
}

template <class... A, size_t... I>
__forceinline__ void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(args[I])...);
}

template <class... A> __forceinline__ void call(void (*kernel)(A...), void** args) {
  call(kernel, args, std::index_sequence_for<A...>());
}

}  // namespace cuda_host

#define CUDA_HOST_KERNEL(index, bounds, ...)                                                                    \
  extern "C" void cuda_host_signature_##index(char* out, size_t size) { cuda_host::signature(__VA_ARGS__, out, size); } \
  extern "C" void cuda_host_entry_##index(void** args) { cuda_host::call(__VA_ARGS__, args); }                      \
  extern "C" int cuda_host_bounds_##index() { return bounds; }
