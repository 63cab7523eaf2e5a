// Warp operations over `cuda_host_exchange`: every lane brings eight bytes and sees what the others brought.
#pragma once

namespace cuda_host {

template <class T> __forceinline__ uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a warp operation moves at most eight bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T> __forceinline__ T from_bits(uint64_t bits) {
  T value;
  memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}

inline int lane() {
  return int((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

// What lane `source` brought. CUDA leaves it undefined where that lane takes no part: all ones, a NaN of every width.
template <class T> T shuffle(unsigned mask, T value, int source, int line) {
  uint64_t all[32];
  unsigned present = cuda_host_exchange(mask, to_bits(value), line, line, 0, all);
  return from_bits<T>(present >> source & 1 ? all[source] : ~uint64_t(0));
}

// What each lane that is there brought, folded in the lanes' order.
template <class T, class Fold> T reduce(unsigned mask, T value, int line, Fold fold) {
  uint64_t all[32];
  unsigned present = cuda_host_exchange(mask, to_bits(value), line, line, 0, all);
  int first = __builtin_ctz(present);
  T result = from_bits<T>(all[first]);
  for (int i = first + 1; i < 32; i++)
    if (present >> i & 1) result = fold(result, from_bits<T>(all[i]));
  return result;
}

}  // namespace cuda_host

#define CUDA_HOST_LINE int line = __builtin_LINE()

inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_HOST_LINE) {
  uint64_t all[32];
  cuda_host_exchange(mask, 0, line, line, 1, all);
}
inline unsigned __activemask() { return cuda_host_active_mask(); }

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_HOST_LINE) {
  int lane = cuda_host::lane();
  return cuda_host::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_LINE) {
  int lane = cuda_host::lane(), source = lane - int(delta);
  return cuda_host::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_LINE) {
  int lane = cuda_host::lane(), source = lane + int(delta);
  return cuda_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_HOST_LINE) {
  int lane = cuda_host::lane(), source = lane ^ bits;
  return cuda_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_LINE) {
  uint64_t all[32];
  unsigned present = cuda_host_exchange(mask, predicate != 0, line, line, 0, all), result = 0;
  for (int i = 0; i < 32; i++)
    if (present >> i & 1 && all[i]) result |= 1u << i;
  return result;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_LINE) { return __ballot_sync(mask, predicate, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, CUDA_HOST_LINE) { return __ballot_sync(mask, !predicate, line) == 0; }

template <class T> unsigned __match_any_sync(unsigned mask, T value, CUDA_HOST_LINE) {
  uint64_t all[32], mine = cuda_host::to_bits(value);
  unsigned present = cuda_host_exchange(mask, mine, line, line, 0, all), result = 0;
  for (int i = 0; i < 32; i++)
    if (present >> i & 1 && all[i] == mine) result |= 1u << i;
  return result;
}
template <class T> unsigned __match_all_sync(unsigned mask, T value, int* same, CUDA_HOST_LINE) {
  unsigned result = __match_any_sync(mask, value, line);
  *same = result == mask;
  return *same ? mask : 0;
}

#define CUDA_HOST_REDUCE(name, T, expression)                                      \
  inline T __reduce_##name##_sync(unsigned mask, T value, CUDA_HOST_LINE) {         \
    return cuda_host::reduce(mask, value, line, [](T a, T b) -> T { return expression; }); \
  }
CUDA_HOST_REDUCE(add, int, int(unsigned(a) + unsigned(b)))
CUDA_HOST_REDUCE(min, int, a < b ? a : b)
CUDA_HOST_REDUCE(max, int, a > b ? a : b)
CUDA_HOST_REDUCE(add, unsigned, a + b)
CUDA_HOST_REDUCE(min, unsigned, a < b ? a : b)
CUDA_HOST_REDUCE(max, unsigned, a > b ? a : b)
CUDA_HOST_REDUCE(and, unsigned, a& b)
CUDA_HOST_REDUCE(or, unsigned, a | b)
CUDA_HOST_REDUCE(xor, unsigned, a ^ b)
#undef CUDA_HOST_REDUCE
