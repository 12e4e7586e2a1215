// Runs CUDA C kernels on the CPU from their device text: one std::thread per CUDA thread, blocks one after another.
#pragma once
#include <barrier>
#include <cmath>
#include <cstring>
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
static std::vector<double> block_memory;  // what RANDLA_SHARED names
#define RANDLA_SHARED(name) double *name = block_memory.data()
static inline void __syncthreads() { block_barrier->arrive_and_wait(); }
template <class Kernel> void launch(unsigned grid, unsigned block, Kernel kernel, unsigned shared = 0) {
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    std::barrier<> barrier(block);
    block_barrier = &barrier;
    block_memory = std::vector<double>(shared / sizeof(double));
    std::vector<std::thread> team;
    for (unsigned t = 0; t < block; ++t)
        team.emplace_back([=] {
            for (unsigned b = 0; b < grid; ++b) {
                blockIdx = {b, 0, 0};
                threadIdx = {t, 0, 0};
                if (shared > 0) {
                    if (t == 0) std::memset(block_memory.data(), 0xff, shared);  // a block finds no zeros there
                    __syncthreads();
                }
                kernel();
                __syncthreads();  // the next block has a shared memory of its own
            }
        });
    for (auto &thread : team) thread.join();
}
