// Runs the threads of one kernel launch as fibers on the calling OS thread.
//
// A launch that is not cooperative runs block after block, a cooperative one has all its blocks alive at once. Either way the
// scheduler holds a set of ready fibers and resumes one of them until it waits or ends; which one is the schedule. Fibers
// switch only where CUDA text synchronises, so a run repeats exactly, and a wrong program can be driven into its worst order.
//
// This file is compiled without sanitizers: they would take the scheduler's bookkeeping for the program's.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include <vector>

#include "fiber.h"

struct uint3 { unsigned x, y, z; };

extern "C" {
uint3 threadIdx, blockIdx, blockDim, gridDim;  // kernels see them as constants
char* cuda_host_arena;                         // the shared memory of the block that runs: see tls.s
}

namespace {

enum Order { FORWARD, REVERSE, RANDOM, STARVE };
enum State { READY, AT_BLOCK_BARRIER, AT_GRID_BARRIER, AT_WARP, DONE };

// Spinning threads may look at an atomic this often with nothing happening anywhere before it is called a deadlock.
constexpr uint64_t PATIENCE = 100000, PATIENCE_EACH = 200;
constexpr size_t MOST_FIBERS = 16384;

struct Thread {
  Fiber fiber;
  bool started = false;
  State state = READY;
  int block = 0, index = 0;
  uint3 place = {};
  int line = 0, site = 0;      // of the barrier where it waits
  unsigned mask = 0;           // of the warp operation where it waits
  uint64_t value = 0, *all = nullptr;
  unsigned present = 0;
  int count = 0;
  char* token = nullptr;       // the address at which the sanitizer is told of the barrier
};

struct Block {
  uint3 place = {};
  char* arena = nullptr;
  int first = 0;               // its first thread
  int waiting = 0, ended = 0, predicates = 0;
};

struct Launch {
  void (*entry)(void**);
  void** args;
  unsigned grid[3], block[3];
  size_t shared_bytes;         // static and dynamic
  const size_t* gaps;          // pairs: where a piece of it begins that is nobody's, and where it ends
  size_t gap_count;
  uint64_t seed;
  int order, cooperative;
  double seconds;              // of this process's time, after which a launch is called endless
};

void set_timer(double seconds);

struct Scheduler {
  const Launch* launch = nullptr;
  FiberHost host;
  std::vector<Thread> threads;
  std::vector<Block> blocks;
  std::vector<int> ready, starved;  // `ready` is a ring: taken at its end, yielding threads put at its front
  size_t front = 0, count = 0;
  Thread* current = nullptr;
  int block_size = 0, live = 0, at_grid = 0;
  uint64_t idle = 0;           // yields since anything changed
  uint64_t since_starved = 0;  // yields since a starved thread ran
  uint64_t random = 0;
  char error[512] = "";
  bool failed = false;
  volatile bool in_fiber = false, expired = false;
  std::vector<char*> arenas;
  size_t arena_bytes = 0;

  uint64_t next_random() {  // splitmix64
    uint64_t z = random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
  }

  // --- the ready set --------------------------------------------------------------------------------------

  size_t slot(size_t i) const { return (front + i) % ready.size(); }
  void put_last(int thread) { ready[slot(count++)] = thread; }
  void put_first(int thread) {
    front = (front + ready.size() - 1) % ready.size();
    ready[front] = thread;
    count++;
  }

  bool is_starved(const Thread& t) const {
    if (launch->order != STARVE) return false;
    if (blocks.size() > 1) return t.block == int(launch->seed % blocks.size());
    return t.index == int(launch->seed % unsigned(block_size));
  }

  void make_ready(Thread& t) {
    t.state = READY;
    int id = int(&t - threads.data());
    if (is_starved(t)) starved.push_back(id);
    else put_last(id);
  }

  // Threads become ready in such an order that the one to run first is put last.
  template <class Each> void in_order(int n, Each each) {
    for (int i = 0; i < n; i++) each(launch->order == REVERSE ? i : n - 1 - i);
  }

  int take() {
    if (!starved.empty() && (count == 0 || (idle > count && since_starved > count))) {
      int id = starved.front();
      starved.erase(starved.begin());
      since_starved = 0;
      return id;
    }
    if (count == 0) return -1;
    size_t last = slot(count - 1);
    if (launch->order == RANDOM || launch->order == STARVE) {
      size_t other = slot(next_random() % count);
      int id = ready[other];
      ready[other] = ready[last];
      count--;
      return id;
    }
    count--;
    return ready[last];
  }

  // --- errors -----------------------------------------------------------------------------------------------

  void report(const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list rest;
    va_start(rest, format);
    vsnprintf(error, sizeof(error), format, rest);
    va_end(rest);
  }

  void report_endless() {
    report("ran for more than %g seconds without an end: an endless loop, or one that waits without an atomic load",
           launch->seconds);
  }

  // Called from the timer's signal handler, on the stack of whatever was running.
  void expire() {
    expired = true;
    if (!in_fiber) return;
    report_endless();
    give_up();
  }

  [[noreturn]] void give_up() {
    leave(current->fiber, host, false);
    abort();  // never resumed
  }

  // Nothing can run, or not in the block `only`: say what threads wait for.
  void explain_standstill(const Block* only = nullptr) {
    for (Block& b : blocks) {
      if (only && &b != only) continue;
      int exited = 0, at_barrier = 0, spinning = 0, at_warp = 0, at_grid_barrier = 0;
      const Thread *one = nullptr, *other = nullptr, *lane = nullptr;
      for (int i = 0; i < block_size; i++) {
        Thread& t = threads[size_t(b.first + i)];
        switch (t.state) {
          case DONE: exited++; break;
          case READY: spinning++; break;
          case AT_GRID_BARRIER: at_grid_barrier++; break;
          case AT_WARP: at_warp++; lane = lane ? lane : &t; break;
          case AT_BLOCK_BARRIER:
            at_barrier++;
            if (!one) one = &t;
            else if (t.site != one->site && !other) other = &t;
        }
      }
      if (exited == block_size) continue;
      char where[64] = "";
      if (blocks.size() > 1 || launch->grid[0] * launch->grid[1] * launch->grid[2] > 1)
        snprintf(where, sizeof(where), " of block (%u, %u, %u)", b.place.x, b.place.y, b.place.z);
      if (other)
        report("divergent barrier: threads%s wait at different barriers, thread %d at line %d and thread %d at line %d",
               where, one->index, one->line, other->index, other->line);
      else if (at_barrier && exited)
        report("divergent barrier: %d thread%s%s wait%s at line %d, but %d ha%s exited", at_barrier, at_barrier == 1 ? "" : "s",
               where, at_barrier == 1 ? "s" : "", one->line, exited, exited == 1 ? "s" : "ve");
      else if (at_barrier && lane)
        report("divergent barrier: thread %d%s waits at line %d, but thread %d in a warp operation at line %d",
               one->index, where, one->line, lane->index, lane->line);
      else if (lane)
        report("deadlock: thread %d%s waits at line %d for the lanes of mask 0x%08x, which do not all come",
               lane->index, where, lane->line, lane->mask);
      else if (spinning)
        report("deadlock: %d thread%s%s spin%s on an atomic that nobody changes", spinning, spinning == 1 ? "" : "s", where,
               spinning == 1 ? "s" : "");
      else if (at_barrier)
        report("deadlock: %d threads%s wait at line %d for ever", at_barrier, where, one->line);
      if (failed) return;
    }
    report("deadlock: %d threads wait at a grid barrier that %d others never reach", at_grid,
           int(threads.size()) - at_grid);
  }

  // --- what fibers call ---------------------------------------------------------------------------------------

  void suspend() {
    leave(current->fiber, host, false);
    arrived_in(current->fiber, host);
  }

  int sync_block(int line, int site, int predicate) {
    Thread& t = *current;
    Block& b = blocks[size_t(t.block)];
    t.state = AT_BLOCK_BARRIER;
    t.line = line;
    t.site = site;
    t.token = nullptr;
    for (int i = 0; i < block_size && tracks_order() && !t.token; i++) {
      Thread& o = threads[size_t(b.first + i)];
      if (&o != &t && o.state == AT_BLOCK_BARRIER) t.token = o.token;
    }
    if (!t.token) t.token = new_token();
    release(t.token);
    idle = 0;
    b.predicates += predicate;
    if (++b.waiting == block_size) {
      for (int i = 0; i < block_size; i++) {
        Thread& o = threads[size_t(b.first + i)];
        if (o.site != site) {
          explain_standstill(&b);
          give_up();
        }
      }
      int result = b.predicates;
      b.waiting = b.predicates = 0;
      in_order(block_size, [&](int i) {
        threads[size_t(b.first + i)].count = result;
        make_ready(threads[size_t(b.first + i)]);
      });
    }
    suspend();
    acquire(t.token);
    return t.count;
  }

  void sync_grid(int line) {
    Thread& t = *current;
    if (!launch->cooperative) {
      report("a grid barrier at line %d in a launch that is not cooperative", line);
      give_up();
    }
    t.state = AT_GRID_BARRIER;
    t.line = line;
    t.token = nullptr;
    for (size_t i = 0; i < threads.size() && tracks_order() && !t.token; i++)
      if (&threads[i] != &t && threads[i].state == AT_GRID_BARRIER) t.token = threads[i].token;
    if (!t.token) t.token = new_token();
    release(t.token);
    idle = 0;
    if (++at_grid == int(threads.size())) {
      at_grid = 0;
      in_order(int(threads.size()), [&](int i) { make_ready(threads[size_t(i)]); });
    }
    suspend();
    acquire(t.token);
  }

  unsigned exchange(unsigned mask, uint64_t value, int line, int site, int orders, uint64_t* all) {
    Thread& t = *current;
    int warp = t.index / 32 * 32, lane = t.index % 32;
    if (!(mask >> lane & 1)) {
      report("thread %d calls a warp operation at line %d with mask 0x%08x, in which it is not itself", t.index, line, mask);
      give_up();
    }
    t.state = AT_WARP;
    t.line = line;
    t.site = site;
    t.mask = mask;
    t.value = value;
    t.all = all;
    t.token = nullptr;
    idle = 0;
    Thread* lanes = &threads[size_t(blocks[size_t(t.block)].first + warp)];
    int width = block_size - warp < 32 ? block_size - warp : 32;
    auto beside = [&](int i) { return lanes[i].state == AT_WARP && lanes[i].mask == mask && lanes[i].site == site; };
    for (int i = 0; i < width && orders && tracks_order() && !t.token; i++)
      if (i != lane && beside(i)) t.token = lanes[i].token;
    if (orders && !t.token) t.token = new_token();
    if (orders) release(t.token);
    finish_exchange(lanes, width, mask, site);
    suspend();
    if (orders) acquire(t.token);
    return t.present;
  }

  // Lets the lanes of `mask` go on if all of them that have not exited are there.
  void finish_exchange(Thread* lanes, int width, unsigned mask, int site) {
    unsigned present = 0;
    for (int i = 0; i < width; i++) {
      if (!(mask >> i & 1) || lanes[i].state == DONE) continue;
      if (lanes[i].state != AT_WARP || lanes[i].mask != mask || lanes[i].site != site) return;
      present |= 1u << i;
    }
    uint64_t values[32] = {};
    for (int i = 0; i < width; i++)
      if (present >> i & 1) values[i] = lanes[i].value;
    in_order(width, [&](int i) {
      if (!(present >> i & 1)) return;
      memcpy(lanes[i].all, values, sizeof(values));
      lanes[i].present = present;
      make_ready(lanes[i]);
    });
  }

  void yield() {
    Thread& t = *current;
    int id = int(&t - threads.data());
    idle++;
    since_starved++;
    if (idle > PATIENCE && idle > PATIENCE_EACH * (count + starved.size() + 1)) {
      explain_standstill();
      give_up();
    }
    if (is_starved(t)) starved.push_back(id);
    else put_first(id);
    suspend();
  }

  unsigned active_mask() {
    int warp = current->index / 32 * 32;
    unsigned mask = 0;
    for (int i = 0; i < 32 && warp + i < block_size; i++)
      if (threads[size_t(blocks[size_t(current->block)].first + warp + i)].state == READY) mask |= 1u << i;
    return mask;
  }

  // --- a launch ---------------------------------------------------------------------------------------------------

  void resume(Thread& t) {
    Block& b = blocks[size_t(t.block)];
    threadIdx = t.place;
    blockIdx = b.place;
    cuda_host_arena = b.arena;
    current = &t;
    if (!t.started) {
      t.started = true;
      idle = 0;
      size_t number = size_t(b.place.x + launch->grid[0] * (b.place.y + launch->grid[1] * b.place.z)) * size_t(block_size);
      start(t.fiber, number + size_t(t.index));
    }
    in_fiber = true;
    enter(t.fiber, host);
    in_fiber = false;
    if (t.state == DONE) {
      finish(t.fiber);
      idle = 0;
      live--;
      b.ended++;
      // A lane that exits may be the one that others no longer need to wait for.
      int warp = t.index / 32 * 32, width = block_size - warp < 32 ? block_size - warp : 32;
      Thread* lanes = &threads[size_t(b.first + warp)];
      for (int i = 0; i < width; i++)
        if (lanes[i].state == AT_WARP) finish_exchange(lanes, width, lanes[i].mask, lanes[i].site);
    }
  }

  // Shared memory starts as NaN of every width. Under ThreadSanitizer no two blocks use the same: they would seem to race.
  char* fresh_arena(size_t nth, size_t bytes) {
    if (bytes != arena_bytes) {
      for (char* arena : arenas) {
        open_memory(arena, arena_bytes);
        free(arena);
      }
      arenas.clear();
      arena_bytes = bytes;
    }
    while (arenas.size() <= nth) {
      void* arena = nullptr;
      if (posix_memalign(&arena, 1024, bytes ? bytes : 1) != 0) abort();
      arenas.push_back(static_cast<char*>(arena));
    }
    char* arena = arenas[nth];
    open_memory(arena, bytes);
    memset(arena, 0xff, bytes);
    for (size_t i = 0; i < launch->gap_count; i++)
      close_memory(arena + launch->gaps[2 * i], launch->gaps[2 * i + 1] - launch->gaps[2 * i]);
    return arena;
  }

  void run_blocks(size_t begin, size_t end) {
    const unsigned *g = launch->grid, *d = launch->block;
    size_t n = (end - begin) * size_t(block_size);
    blocks.assign(end - begin, Block());
    threads.resize(n);
    ready.resize(n + 1);
    front = count = 0;
    starved.clear();
    at_grid = 0;
    live = int(n);
    for (size_t k = 0; k < blocks.size(); k++) {
      size_t linear = begin + k;
      Block& b = blocks[k];
      b.place = {unsigned(linear % g[0]), unsigned(linear / g[0] % g[1]), unsigned(linear / g[0] / g[1])};
      b.first = int(k * size_t(block_size));
      b.arena = fresh_arena(tracks_order() ? linear : k, launch->shared_bytes);
      unsigned i = 0;
      for (unsigned z = 0; z < d[2]; z++)
        for (unsigned y = 0; y < d[1]; y++)
          for (unsigned x = 0; x < d[0]; x++, i++) {
            Thread& t = threads[size_t(b.first) + i];
            t.started = false;
            t.state = READY;
            t.block = int(k);
            t.index = int(i);
            t.place = {x, y, z};
          }
    }
    host_releases(host);
    in_order(int(n), [&](int i) { make_ready(threads[size_t(i)]); });
    while (live > 0 && !failed) {
      int id = expired ? -1 : take();
      if (expired) report_endless();
      else if (id < 0) explain_standstill();
      else resume(threads[size_t(id)]);
    }
    if (failed)
      for (Thread& t : threads)
        if (t.started && t.state != DONE) abandon(t.fiber);
  }

  int run(const Launch* what) {
    launch = what;
    failed = false;
    error[0] = 0;
    idle = 0;
    random = what->seed;
    block_size = int(what->block[0] * what->block[1] * what->block[2]);
    size_t n = size_t(what->grid[0]) * what->grid[1] * what->grid[2];
    gridDim = {what->grid[0], what->grid[1], what->grid[2]};
    blockDim = {what->block[0], what->block[1], what->block[2]};
    size_t alive = what->cooperative || tracks_order() ? n * size_t(block_size) : size_t(block_size);
    if (alive > MOST_FIBERS || (tracks_order() && alive > MOST_TRACKED)) {
      report("%zu threads at once are more than this runtime holds (%zu)", alive, tracks_order() ? MOST_TRACKED : MOST_FIBERS);
      return 1;
    }
    open(host);
    expired = in_fiber = false;
    set_timer(what->seconds);
    if (what->cooperative) {
      run_blocks(0, n);
    } else {
      std::vector<size_t> order(n);
      for (size_t i = 0; i < n; i++) order[i] = what->order == REVERSE ? n - 1 - i : i;
      if (what->order == RANDOM)
        for (size_t i = n; i > 1; i--) std::swap(order[i - 1], order[next_random() % i]);
      if (what->order == STARVE && n > 1) std::swap(order[what->seed % n], order[n - 1]);
      for (size_t i = 0; i < n && !failed; i++) run_blocks(order[i], order[i] + 1);
    }
    set_timer(0);
    close(host);
    return failed;
  }
};

Scheduler scheduler;

// Under ThreadSanitizer signals wait for a system call, which an endless loop never makes: whoever started the process must
// lose patience.
void set_timer(double seconds) {
  if (tracks_order()) return;
  static bool ready = false;
  if (!ready) {
    struct sigaction action = {};
    action.sa_handler = [](int) { scheduler.expire(); };
    action.sa_flags = SA_NODEFER;  // the handler may never return
    sigaction(SIGVTALRM, &action, nullptr);
    ready = true;
  }
  itimerval timer = {};
  timer.it_value.tv_sec = time_t(seconds);
  timer.it_value.tv_usec = suseconds_t((seconds - double(time_t(seconds))) * 1e6);
  setitimer(ITIMER_VIRTUAL, &timer, nullptr);
}

}  // namespace

// A fiber's whole life.
void fiber_body() {
  arrived_in(scheduler.current->fiber, scheduler.host);
  first_acquire(scheduler.host);
  scheduler.launch->entry(scheduler.launch->args);
  scheduler.current->state = DONE;
  last_release(scheduler.host);
  leave(scheduler.current->fiber, scheduler.host, true);
  abort();
}

extern "C" {

int cuda_host_launch(const Launch* launch) { return scheduler.run(launch); }
const char* cuda_host_error() { return scheduler.error; }

int cuda_host_sync_block(int line, int site, int predicate) { return scheduler.sync_block(line, site, predicate); }
void cuda_host_sync_grid(int line) { scheduler.sync_grid(line); }
unsigned cuda_host_exchange(unsigned mask, uint64_t value, int line, int site, int orders, uint64_t* all) {
  return scheduler.exchange(mask, value, line, site, orders, all);
}
void cuda_host_yield() { scheduler.yield(); }
void cuda_host_changed() { scheduler.idle = 0; }
unsigned cuda_host_active_mask() { return scheduler.active_mask(); }
void cuda_host_trap(const char* what, int line) {
  scheduler.report("%s at line %d, thread %d", what, line, scheduler.current->index);
  scheduler.give_up();
}
}
