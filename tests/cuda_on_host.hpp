// Runs CUDA C kernels on the CPU from their device text, blocks one after another.
//
// Each CUDA thread has a stack of its own, and runs to a barrier before the next one does: one thread of the CPU takes
// them in turn.  Under a sanitizer each is a thread of the CPU, so that what no barrier orders is seen.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define PARALLEL
#include <barrier>
#include <thread>
#include <vector>
#define OWN thread_local
#else  // headers are few: most of the time of a build is theirs
#include <ucontext.h>
#define OWN
#endif
#define __CUDACC__
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
struct dim {
    unsigned x, y, z;
};
static dim blockDim, gridDim;
static OWN dim threadIdx, blockIdx;
static double *block_memory;  // what RANDLA_SHARED names
#define RANDLA_SHARED(name) double *name = block_memory

static inline void begin_launch(unsigned grid, unsigned block, unsigned shared) {
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    std::free(block_memory);
    block_memory = static_cast<double *>(std::malloc(shared));  // no more, so that a sanitizer sees its end
}
static inline void begin_block(unsigned shared) {  // it finds no zeros in its memory
    if (shared > 0) std::memset(block_memory, 0xff, shared);
}

#ifdef PARALLEL

// That of pthreads would hide races: it orders a thread that is slow to wake after all that others did meanwhile.
static std::barrier<> *block_barrier;
static inline void __syncthreads() { block_barrier->arrive_and_wait(); }

// Always 0: threads that wait for different barriers would do so for ever.
template <class Kernel> int launch(unsigned grid, unsigned block, Kernel kernel, unsigned shared = 0) {
    begin_launch(grid, block, shared);
    std::barrier<> barrier(block);
    block_barrier = &barrier;
    std::vector<std::thread> team;
    for (unsigned t = 0; t < block; ++t)
        team.emplace_back([=] {
            for (unsigned b = 0; b < grid; ++b) {
                blockIdx = {b, 0, 0};
                threadIdx = {t, 0, 0};
                if (shared > 0) {
                    if (t == 0) begin_block(shared);
                    __syncthreads();
                }
                kernel();
                __syncthreads();  // the next block has a shared memory of its own
            }
        });
    for (auto &thread : team) thread.join();
    return 0;
}

#else

const unsigned STACK = 1 << 17;
static struct member {
    ucontext_t context;
    void *stack;
    bool waits;
} team[1024];  // as many threads as a block may have
static ucontext_t scheduler;
static struct member *running;
static void (*run_kernel)(const void *);
static const void *kernel_to_run;

static inline void __syncthreads() {
    running->waits = true;
    swapcontext(&running->context, &scheduler);
}
static inline void run_member() { run_kernel(kernel_to_run); }  // then it returns to the scheduler

// 1 if some threads of a block waited at a barrier that others never came to, else 0.
template <class Kernel> int launch(unsigned grid, unsigned block, Kernel kernel, unsigned shared = 0) {
    begin_launch(grid, block, shared);
    run_kernel = [](const void *text) { (*static_cast<const Kernel *>(text))(); };
    kernel_to_run = &kernel;
    int strayed = 0;
    for (unsigned b = 0; b < grid; ++b) {
        begin_block(shared);
        blockIdx = {b, 0, 0};
        for (unsigned t = 0; t < block; ++t) {
            if (!team[t].stack) team[t].stack = std::malloc(STACK);
            getcontext(&team[t].context);
            team[t].context.uc_stack.ss_sp = team[t].stack;
            team[t].context.uc_stack.ss_size = STACK;
            team[t].context.uc_link = &scheduler;
            makecontext(&team[t].context, run_member, 0);
            team[t].waits = true;
        }
        for (unsigned waiting = block, before = block; waiting > 0; before = waiting) {
            waiting = 0;
            for (unsigned t = 0; t < block; ++t) {
                if (!team[t].waits) continue;
                team[t].waits = false;
                threadIdx = {t, 0, 0};
                running = &team[t];
                swapcontext(&scheduler, &running->context);
                waiting += team[t].waits;
            }
            if (waiting > 0 && waiting < before) strayed = 1;
        }
    }
    return strayed;
}

#endif
