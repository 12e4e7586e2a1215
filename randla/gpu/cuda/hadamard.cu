// Walsh-Hadamard transforms along the first axis of row-major arrays, a group of index bits at each pass.
//
// A batch of blocks of 2**block_bits rows with `columns` entries is, for the pass over the bits low .. low + bits - 1 of
// the row index, an array (outer, 2**bits, inner) with inner = columns * 2**low, transformed along its middle axis.  A
// thread block takes tiles of 2**bits by 2**width_bits entries through shared memory.  Random signs are applied where
// the pass with low == 0 loads (apply) or stores (adjoint); the sampling of rows where the last pass stores or, in the
// adjoint, the first one loads.
#include "philox.h"

#define TILE (32768 / (int)sizeof(T))  // entries of a tile: 32 KiB
#define WORDS 256                      // 2**13 signs, those of the tallest tile, in words of 32

// The transform of 2**radix (at most 8) entries at distance 2**at, in registers; `radix` is a literal at every call.
RANDLA_FN void butterflies(T *tile, int size, int at, const int radix) {
    for (int g = threadIdx.x; g < size >> radix; g += blockDim.x) {
        int q = (g >> at << (at + radix)) | (g & ((1 << at) - 1));
        T v[8];
#pragma unroll
        for (int j = 0; j < 1 << radix; ++j) v[j] = tile[q + (j << at)];
#pragma unroll
        for (int b = 0; b < radix; ++b) {
#pragma unroll
            for (int j = 0; j < 1 << radix; ++j)
                if (!(j >> b & 1)) {
                    T sum = v[j] + v[j | 1 << b];
                    v[j | 1 << b] = v[j] - v[j | 1 << b];
                    v[j] = sum;
                }
        }
#pragma unroll
        for (int j = 0; j < 1 << radix; ++j) tile[q + (j << at)] = v[j];
    }
}

// Where an entry of a tile lies in the batch.
struct place {
    i64 block, row, column;
};

RANDLA_FN struct place locate(i64 middle, i64 w, i64 columns, i64 low, i64 block_bits) {
    i64 lower = w >> 32 ? w / columns : (i64)((u32)w / (u32)columns);  // division of 64-bit numbers is slow
    i64 row = (middle << low) + lower;
    struct place at = {row >> block_bits, row & (((i64)1 << block_bits) - 1), w - lower * columns};
    return at;
}

// sampled: 1 stores the sampled rows only, -1 loads them, 0 neither; row r is sampled as items[starts[r]] ...
// flip: 1 applies the signs of `lane` on loading, -1 on storing, 0 neither.
// The entry at f of the batch is source[f - source_shift], or zero outside of the source; likewise for the target.
RANDLA_KERNEL fwht_pass(i64 n_tiles, u32 k0, u32 k1, u32 stream, i64 lane, i64 flip, i64 first_row, i64 columns,
                        i64 block_bits, i64 low, i64 bits, i64 width_bits, i64 sampled, i64 n_sampled,
                        const i64 *starts, const i64 *items, i64 source_shift, i64 source_size, const T *source,
                        i64 target_shift, i64 target_size, T *target) {
    __shared__ T tile[TILE];
    __shared__ u32 words[WORDS];
    i64 inner = columns << low, across = (inner + ((i64)1 << width_bits) - 1) >> width_bits;
    int size = 1 << (bits + width_bits), width_mask = (1 << width_bits) - 1;
    for (i64 number = blockIdx.x; number < n_tiles; number += gridDim.x) {
        i64 first_middle = number / across << bits, first_w = number % across << width_bits;
        i64 top = first_row + first_middle;  // the row of the tile's first sign, where low == 0
        if (flip)
            for (int t = threadIdx.x; 32 * t < 1 << bits; t += blockDim.x)
                words[t] = sign_word(k0, k1, stream, (u64)(top + 32 * t), (u32)lane);
        __syncthreads();
        for (int q = threadIdx.x; q < size; q += blockDim.x) {
            i64 j = q >> width_bits, middle = first_middle + j, w = first_w + (q & width_mask);
            i64 from = middle * inner + w - source_shift;
            T value = 0;
            if (w >= inner) {
            } else if (sampled < 0) {
                struct place at = locate(middle, w, columns, low, block_bits);
                for (i64 e = starts[at.row]; e < starts[at.row + 1]; ++e)
                    value += source[(at.block * n_sampled + items[e]) * columns + at.column];
            } else if (0 <= from && from < source_size) {
                value = source[from];
            }
            tile[q] = flip > 0 && words[j / 32] >> (top + j) % 32 & 1 ? -value : value;
        }
        __syncthreads();
        for (int b = 0; b < bits; b += 3) {
            if (bits - b == 1) butterflies(tile, size, width_bits + b, 1);
            else if (bits - b == 2) butterflies(tile, size, width_bits + b, 2);
            else butterflies(tile, size, width_bits + b, 3);
            __syncthreads();
        }
        for (int q = threadIdx.x; q < size; q += blockDim.x) {
            i64 j = q >> width_bits, middle = first_middle + j, w = first_w + (q & width_mask);
            i64 to = middle * inner + w - target_shift;
            T value = flip < 0 && words[j / 32] >> (top + j) % 32 & 1 ? -tile[q] : tile[q];
            if (w >= inner) {
            } else if (sampled > 0) {
                struct place at = locate(middle, w, columns, low, block_bits);
                for (i64 e = starts[at.row]; e < starts[at.row + 1]; ++e)
                    target[(at.block * n_sampled + items[e]) * columns + at.column] = value;
            } else if (0 <= to && to < target_size) {
                target[to] = value;
            }
        }
        __syncthreads();  // the next tile overwrites this one
    }
}
