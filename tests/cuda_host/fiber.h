// Fibers: a stack each, a switch of about five nanoseconds, and the sanitizers told of it all.
//
// CUDA_HOST_ASAN and CUDA_HOST_TSAN say which sanitizer the process runs under. ThreadSanitizer sees each CUDA thread as a
// thread of its own; switching says nothing of order to it (the `no_sync` flag), only `release` and `acquire` do, and the
// scheduler calls these at the start and the end of a launch and at barriers alone. So two accesses that no barrier parts
// are a race to it, whatever the order in which they happened to run.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <utility>
#include <vector>

#if !defined(__x86_64__)
#error "the context switch here and the address of shared memory in tls.s are written for x86-64"
#endif

extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void* where, size_t size);
void __asan_poison_memory_region(const volatile void* where, size_t size);
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* where);
void __tsan_release(void* where);
}

void fiber_body();

namespace {

constexpr size_t PAGE = 4096;
#if defined(CUDA_HOST_ASAN) || defined(CUDA_HOST_TSAN)
constexpr size_t STACK = 256 * 1024;
#else
constexpr size_t STACK = 64 * 1024;
#endif

#if defined(CUDA_HOST_TSAN)
constexpr unsigned NO_SYNC = 1;
constexpr bool tracks_order() { return true; }
#else
constexpr bool tracks_order() { return false; }
#endif
constexpr size_t MOST_TRACKED = 2048;

using Context = void*;
extern "C" void cuda_host_switch(Context* save, Context load);
asm(R"(
.text
.globl cuda_host_switch
.hidden cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_host_switch, .-cuda_host_switch
)");

inline void prepare(Context& context, char* top) {
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;  // where fiber_body would return to; it does not
  *--sp = reinterpret_cast<void*>(&fiber_body);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  context = sp;
}

struct Fiber {
  Context context;
  char* stack = nullptr;
  void *fake_stack = nullptr, *tracked = nullptr;
};

struct FiberHost {
  Context context;
  const void* bottom = nullptr;
  size_t size = 0;
  void *fake_stack = nullptr, *tracked = nullptr;
  char sync = 0;  // the address at which a launch's start and end are told
};

// Memory that AddressSanitizer is to take for nobody's, or again for somebody's.
inline void close_memory(const char* where, size_t size) {
  (void)where, (void)size;
#if defined(CUDA_HOST_ASAN)
  __asan_poison_memory_region(where, size);
#endif
}
inline void open_memory(const char* where, size_t size) {
  (void)where, (void)size;
#if defined(CUDA_HOST_ASAN)
  __asan_unpoison_memory_region(where, size);
#endif
}

// --- stacks: a guard page below each, kept for the next fiber ------------------------------------------------------------

std::vector<char*> free_stacks;
std::vector<char*> numbered_stacks;  // under ThreadSanitizer no two fibers of a launch share one: they would seem to race
std::vector<void*> numbered_fibers;

inline char* new_stack() {
  void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  mprotect(memory, PAGE, PROT_NONE);
  return static_cast<char*>(memory) + PAGE;
}

// Tops at different offsets, lest every stack's busy end fall into the same few sets of the cache.
inline char* top_of(char* stack) { return stack + STACK - (reinterpret_cast<uintptr_t>(stack) / (STACK + PAGE) % 16) * 256; }

inline void start(Fiber& f, size_t number) {
#if defined(CUDA_HOST_TSAN)
  while (numbered_stacks.size() <= number) {
    numbered_stacks.push_back(new_stack());
    numbered_fibers.push_back(nullptr);
  }
  if (!numbered_fibers[number]) numbered_fibers[number] = __tsan_create_fiber(0);
  f.stack = numbered_stacks[number];
  f.tracked = numbered_fibers[number];
#else
  (void)number;
  if (free_stacks.empty()) free_stacks.push_back(new_stack());
  f.stack = free_stacks.back();
  free_stacks.pop_back();
#endif
  f.fake_stack = nullptr;
  prepare(f.context, top_of(f.stack));
}

inline void finish(Fiber& f) {
#if !defined(CUDA_HOST_TSAN)
  free_stacks.push_back(f.stack);
#endif
  f.stack = nullptr;
}

// For a fiber that will never run again although it has not ended.
inline void abandon(Fiber& f) {
  open_memory(f.stack, STACK);
#if defined(CUDA_HOST_TSAN)
  for (void*& tracked : numbered_fibers)
    if (tracked == f.tracked) {
      __tsan_destroy_fiber(tracked);
      tracked = nullptr;
    }
#endif
  finish(f);
}

// --- switching ------------------------------------------------------------------------------------------------------------

inline void enter(Fiber& f, FiberHost& host) {
#if defined(CUDA_HOST_ASAN)
  __sanitizer_start_switch_fiber(&host.fake_stack, f.stack, STACK);
#elif defined(CUDA_HOST_TSAN)
  __tsan_switch_to_fiber(f.tracked, NO_SYNC);
#endif
  cuda_host_switch(&host.context, f.context);
#if defined(CUDA_HOST_ASAN)
  __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
}

// Back to the scheduler; the fiber goes on here when it is entered again. `last`: it never will be.
inline void leave(Fiber& f, FiberHost& host, bool last) {
  (void)last;
#if defined(CUDA_HOST_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &f.fake_stack, host.bottom, host.size);
#elif defined(CUDA_HOST_TSAN)
  __tsan_switch_to_fiber(host.tracked, NO_SYNC);
#endif
  cuda_host_switch(&f.context, host.context);
}

// The first thing that a fiber does whenever it has been entered.
inline void arrived_in(Fiber& f, FiberHost& host) {
  (void)f, (void)host;
#if defined(CUDA_HOST_ASAN)
  __sanitizer_finish_switch_fiber(f.fake_stack, &host.bottom, &host.size);
#endif
}

// --- order, as ThreadSanitizer is told of it ------------------------------------------------------------------------------

inline void release(void* where) {
  (void)where;
#if defined(CUDA_HOST_TSAN)
  __tsan_release(where);
#endif
}
inline void acquire(void* where) {
  (void)where;
#if defined(CUDA_HOST_TSAN)
  __tsan_acquire(where);
#endif
}

// An address for each meeting of threads. One of its own, or a thread that is late to leave one meeting would seem to have
// seen what others did before the next.
inline char* new_token() {
  static char tokens[1 << 16];
  static size_t next = 0;
  return tracks_order() ? &tokens[next++ % sizeof(tokens)] : nullptr;
}

inline void open(FiberHost& host) {
  (void)host;
#if defined(CUDA_HOST_TSAN)
  host.tracked = __tsan_get_current_fiber();
#endif
}
inline void host_releases(FiberHost& host) { release(&host.sync); }
inline void first_acquire(FiberHost& host) { acquire(&host.sync); }
char end_of_launch;
inline void last_release(FiberHost&) { release(&end_of_launch); }
inline void close(FiberHost&) { acquire(&end_of_launch); }

}  // namespace
