// Stand-in for CUDA's header: the whole grid, a block and a tile of a warp's lanes, as far as barriers go.
#pragma once

namespace cooperative_groups {

struct grid_group {
  static void sync(int line = __builtin_LINE()) { cuda_host_sync_grid(line); }
  static bool is_valid() { return true; }
  static unsigned long long size() { return num_blocks() * blockDim.x * blockDim.y * blockDim.z; }
  static unsigned long long num_blocks() { return (unsigned long long)gridDim.x * gridDim.y * gridDim.z; }
  static unsigned long long block_rank() {
    return blockIdx.x + (unsigned long long)gridDim.x * (blockIdx.y + (unsigned long long)gridDim.y * blockIdx.z);
  }
  static unsigned long long thread_rank() {
    return block_rank() * blockDim.x * blockDim.y * blockDim.z + threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  }
};

struct thread_block {
  static void sync(int line = __builtin_LINE()) { cuda_host_sync_block(line, -line, 0); }
  static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned num_threads() { return size(); }
  static unsigned thread_rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
  static uint3 group_index() { return blockIdx; }
  static uint3 thread_index() { return threadIdx; }
};

// `Size` lanes of a warp, next to one another.
template <unsigned Size> struct thread_block_tile {
  static unsigned mask() {
    unsigned first = unsigned(cuda_host::lane()) & ~(Size - 1);
    return (Size == 32 ? ~0u : (1u << Size) - 1) << first;
  }
  static void sync(int line = __builtin_LINE()) { __syncwarp(mask(), line); }
  static constexpr unsigned size() { return Size; }
  static constexpr unsigned num_threads() { return Size; }
  static unsigned thread_rank() { return unsigned(cuda_host::lane()) % Size; }
  template <class T> static T shfl(T v, int source, int line = __builtin_LINE()) { return __shfl_sync(mask(), v, source, Size, line); }
  template <class T> static T shfl_down(T v, unsigned d, int line = __builtin_LINE()) { return __shfl_down_sync(mask(), v, d, Size, line); }
  template <class T> static T shfl_up(T v, unsigned d, int line = __builtin_LINE()) { return __shfl_up_sync(mask(), v, d, Size, line); }
  template <class T> static T shfl_xor(T v, unsigned b, int line = __builtin_LINE()) { return __shfl_xor_sync(mask(), v, int(b), Size, line); }
};

inline grid_group this_grid() { return {}; }
inline thread_block this_thread_block() { return {}; }
template <unsigned Size> thread_block_tile<Size> tiled_partition(const thread_block&) { return {}; }
template <class Group> void sync(const Group& group, int line = __builtin_LINE()) { group.sync(line); }

}  // namespace cooperative_groups
