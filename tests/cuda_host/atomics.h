// Atomic operations in CUDA's three spellings (`atomicAdd`, `__nv_atomic_*`; `cuda::atomic_ref` is in include/cuda/atomic),
// all of them the compiler's own `__atomic_*`, so that ThreadSanitizer sees the order that the text asks for and no more.
//
// Fibers share one OS thread: every operation first lets others run, which makes a spin-wait end.
#pragma once

#define __NV_ATOMIC_RELAXED __ATOMIC_RELAXED
#define __NV_ATOMIC_CONSUME __ATOMIC_CONSUME
#define __NV_ATOMIC_ACQUIRE __ATOMIC_ACQUIRE
#define __NV_ATOMIC_RELEASE __ATOMIC_RELEASE
#define __NV_ATOMIC_ACQ_REL __ATOMIC_ACQ_REL
#define __NV_ATOMIC_SEQ_CST __ATOMIC_SEQ_CST
#define __NV_THREAD_SCOPE_THREAD 0
#define __NV_THREAD_SCOPE_BLOCK 1
#define __NV_THREAD_SCOPE_CLUSTER 2
#define __NV_THREAD_SCOPE_DEVICE 3
#define __NV_THREAD_SCOPE_SYSTEM 4

namespace cuda_host {

template <class T> using Bits = std::conditional_t<
    sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;

template <class T> __forceinline__ Bits<T> bits_of(T value) {
  Bits<T> bits;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T> __forceinline__ T value_of(Bits<T> bits) {
  T value;
  memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}

// The order is spelt out in each case: the compiler takes one that it cannot see for the strongest.
template <class T> T load(const T* where, int order) {
  auto* bits = reinterpret_cast<const Bits<T>*>(where);
  cuda_host_yield();
  switch (order) {
    case __ATOMIC_RELAXED: return value_of<T>(__atomic_load_n(bits, __ATOMIC_RELAXED));
    case __ATOMIC_CONSUME:
    case __ATOMIC_ACQUIRE: return value_of<T>(__atomic_load_n(bits, __ATOMIC_ACQUIRE));
    default: return value_of<T>(__atomic_load_n(bits, __ATOMIC_SEQ_CST));
  }
}

template <class T> void store(T* where, T value, int order) {
  auto* bits = reinterpret_cast<Bits<T>*>(where);
  switch (order) {
    case __ATOMIC_RELAXED: __atomic_store_n(bits, bits_of(value), __ATOMIC_RELAXED); break;
    case __ATOMIC_RELEASE: __atomic_store_n(bits, bits_of(value), __ATOMIC_RELEASE); break;
    default: __atomic_store_n(bits, bits_of(value), __ATOMIC_SEQ_CST);
  }
  cuda_host_changed();
}

template <class T> bool compare_exchange(T* where, T* expected, T desired, int order) {
  auto *bits = reinterpret_cast<Bits<T>*>(where), *old = reinterpret_cast<Bits<T>*>(expected);
  Bits<T> wanted = bits_of(desired);
  bool done;
  cuda_host_yield();
  switch (order) {
    case __ATOMIC_RELAXED: done = __atomic_compare_exchange_n(bits, old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); break;
    case __ATOMIC_CONSUME:
    case __ATOMIC_ACQUIRE: done = __atomic_compare_exchange_n(bits, old, wanted, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE); break;
    case __ATOMIC_RELEASE: done = __atomic_compare_exchange_n(bits, old, wanted, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED); break;
    case __ATOMIC_ACQ_REL: done = __atomic_compare_exchange_n(bits, old, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); break;
    default: done = __atomic_compare_exchange_n(bits, old, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }
  if (done && *old != wanted) cuda_host_changed();
  return done;
}

// Any read-modify-write: new = f(old). One fiber runs at a time, so the loop turns at most twice.
template <class T, class F> T modify(T* where, int order, F f) {
  T old = value_of<T>(__atomic_load_n(reinterpret_cast<Bits<T>*>(where), __ATOMIC_RELAXED));
  while (!compare_exchange(where, &old, T(f(old)), order)) {}
  return old;
}

}  // namespace cuda_host

// --- atomicAdd and its kind: relaxed ---------------------------------------------------------------------------

#define CUDA_HOST_ATOMIC(name, expression)                                                                                   \
  template <class T, class U> T name(T* where, U operand) {                                                                   \
    return cuda_host::modify(where, __ATOMIC_RELAXED, [operand = T(operand)](T old) -> T { return expression; });              \
  }                                                                                                                           \
  template <class T, class U> T name##_block(T* where, U operand) { return name(where, operand); }                            \
  template <class T, class U> T name##_system(T* where, U operand) { return name(where, operand); }
CUDA_HOST_ATOMIC(atomicAdd, T(old + operand))
CUDA_HOST_ATOMIC(atomicSub, T(old - operand))
CUDA_HOST_ATOMIC(atomicExch, ((void)old, operand))
CUDA_HOST_ATOMIC(atomicMin, old < operand ? old : operand)
CUDA_HOST_ATOMIC(atomicMax, old > operand ? old : operand)
CUDA_HOST_ATOMIC(atomicAnd, T(old & operand))
CUDA_HOST_ATOMIC(atomicOr, T(old | operand))
CUDA_HOST_ATOMIC(atomicXor, T(old ^ operand))
CUDA_HOST_ATOMIC(atomicInc, old >= operand ? T(0) : T(old + 1))
CUDA_HOST_ATOMIC(atomicDec, old == T(0) || old > operand ? operand : T(old - 1))
#undef CUDA_HOST_ATOMIC

template <class T, class U, class V> T atomicCAS(T* where, U expected, V desired) {
  T old = T(expected);
  cuda_host::compare_exchange(where, &old, T(desired), __ATOMIC_RELAXED);
  return old;
}

// --- __nv_atomic_* ---------------------------------------------------------------------------------------------

template <class T> T __nv_atomic_load_n(const T* where, int order, int = __NV_THREAD_SCOPE_SYSTEM) {
  return cuda_host::load(where, order);
}
template <class T> void __nv_atomic_load(const T* where, T* result, int order, int = __NV_THREAD_SCOPE_SYSTEM) {
  *result = cuda_host::load(where, order);
}
template <class T, class U> void __nv_atomic_store_n(T* where, U value, int order, int = __NV_THREAD_SCOPE_SYSTEM) {
  cuda_host::store(where, T(value), order);
}
template <class T> void __nv_atomic_store(T* where, T* value, int order, int = __NV_THREAD_SCOPE_SYSTEM) {
  cuda_host::store(where, *value, order);
}
template <class T, class U> T __nv_atomic_exchange_n(T* where, U value, int order, int = __NV_THREAD_SCOPE_SYSTEM) {
  return cuda_host::modify(where, order, [value](T) { return T(value); });
}
template <class T, class U>
bool __nv_atomic_compare_exchange_n(T* where, T* expected, U desired, bool, int order, int, int = __NV_THREAD_SCOPE_SYSTEM) {
  return cuda_host::compare_exchange(where, expected, T(desired), order);
}
#define CUDA_HOST_FETCH(name, expression)                                                                        \
  template <class T, class U> T __nv_atomic_fetch_##name(T* where, U operand, int order, int = __NV_THREAD_SCOPE_SYSTEM) { \
    return cuda_host::modify(where, order, [operand = T(operand)](T old) -> T { return expression; });             \
  }                                                                                                               \
  template <class T, class U> void __nv_atomic_##name(T* where, U operand, int order, int = __NV_THREAD_SCOPE_SYSTEM) {    \
    __nv_atomic_fetch_##name(where, operand, order);                                                              \
  }
CUDA_HOST_FETCH(add, T(old + operand))
CUDA_HOST_FETCH(sub, T(old - operand))
CUDA_HOST_FETCH(min, old < operand ? old : operand)
CUDA_HOST_FETCH(max, old > operand ? old : operand)
CUDA_HOST_FETCH(and, T(old& operand))
CUDA_HOST_FETCH(or, T(old | operand))
CUDA_HOST_FETCH(xor, T(old ^ operand))
#undef CUDA_HOST_FETCH

// --- fences and waiting ----------------------------------------------------------------------------------------

inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); cuda_host_yield(); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { cuda_host_yield(); }
template <class... A> void __nv_atomic_thread_fence(A...) { __threadfence(); }
