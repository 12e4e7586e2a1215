// Philox4x32-10 and the frame of every kernel: one text for NVRTC, nvcc and a C++ compiler, without any include.
//
// A kernel whose items are independent is written once: RANDLA_EACH is a grid-stride loop on the device and a plain loop
// on the host, where the same source is built as C++ and tested without a GPU.
#ifndef RANDLA_PHILOX_H
#define RANDLA_PHILOX_H

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define RANDLA_KERNEL extern "C" __global__ void
#ifdef __CUDACC__
#define RANDLA_FN static __device__ __forceinline__
#define RANDLA_EACH(i, n) \
    for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < (n); i += gridDim.x * (i64)blockDim.x)
#ifndef RANDLA_SHARED
#define RANDLA_SHARED(name) extern __shared__ double name[]  // as many doubles as the launch says
#endif
#else
#ifndef __global__
#define __global__
#endif
#define RANDLA_FN static inline
#define RANDLA_EACH(i, n) for (i64 i = 0; i < (n); ++i)
#define sqrtf __builtin_sqrtf
#endif

// The real type of the arrays.  No macro may be called T: compilers put templates of their own before the source.
#ifndef RANDLA_REAL
#define RANDLA_REAL float
#endif
typedef RANDLA_REAL T;

// The four words of (index, lane): counter words 0 and 1 are the index, word 2 the lane, word 3 the stream.
RANDLA_FN void draw(u32 *w, u32 k0, u32 k1, u32 stream, u64 index, u32 lane) {
    u32 c0 = (u32)index, c1 = (u32)(index >> 32), c2 = lane, c3 = stream;
    for (int r = 0; r < 10; ++r) {
        u64 p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    w[0] = c0;
    w[1] = c1;
    w[2] = c2;
    w[3] = c3;
}

// Word q of a block, by selection: an array that is indexed by a variable leaves the registers.
RANDLA_FN u32 pick(const u32 *w, u32 q) { return q & 2 ? (q & 1 ? w[3] : w[2]) : (q & 1 ? w[1] : w[0]); }

// The word that holds the sign bit of `index` in its place index % 32: 128 indices share a block of four words.
RANDLA_FN u32 sign_word(u32 k0, u32 k1, u32 stream, u64 index, u32 lane) {
    u32 w[4];
    draw(w, k0, k1, stream, index / 128, lane);
    return pick(w, (u32)(index / 32 % 4));
}

// Column `index` of a sparse sign matrix: an entry 2 * row + sign in each of nnz bands of rows.  It owns `owned` words
// of the stream, a power of two: whole blocks, or a half or quarter of one.
RANDLA_FN void sparse_sign_column(u64 index, u32 k0, u32 k1, u32 stream, i64 nnz, i64 owned, i64 sketch_size, int *out) {
    i64 band = 0;
    for (i64 t = 0; t < nnz; t += 4) {
        u64 address = index * (u64)owned + (u64)t;
        u32 w[4];
        draw(w, k0, k1, stream, address / 4, 0);
        for (int j = 0; j < 4 && t + j < nnz; ++j) {
            u32 word = pick(w, (u32)(address + j) % 4);
            i64 next = (t + j + 1) * sketch_size / nnz;
            i64 row = band + (((i64)(word >> 1) * (next - band)) >> 31);
            out[t + j] = (int)(2 * row + (word & 1));
            band = next;
        }
    }
}

#endif
