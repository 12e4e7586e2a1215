// Runs CUDA C kernels on the CPU from their device text: one std::thread per CUDA thread, blocks one after another.
#pragma once
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>
#define __CUDACC__
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
struct dim {
    unsigned x, y, z;
};
static dim blockDim, gridDim;
static thread_local dim threadIdx, blockIdx;
static std::barrier<> *block_barrier;
static inline void __syncthreads() { block_barrier->arrive_and_wait(); }
template <class Kernel> void launch(unsigned grid, unsigned block, Kernel kernel) {
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    std::barrier<> barrier(block);
    block_barrier = &barrier;
    std::vector<std::thread> team;
    for (unsigned t = 0; t < block; ++t)
        team.emplace_back([=] {
            for (unsigned b = 0; b < grid; ++b) {
                blockIdx = {b, 0, 0};
                threadIdx = {t, 0, 0};
                kernel();
                __syncthreads();  // the next block has a shared memory of its own
            }
        });
    for (auto &thread : team) thread.join();
}
