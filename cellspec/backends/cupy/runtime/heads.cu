// out = left right for each head. Element [row, i] of a head's left factor lies at row*left_row + i*left_inner, rows of the
// right factor and of the result right_row and out_row apart, and heads left_head, right_head and out_head. A block makes 8
// rows of 32 columns of a head: its 8 warps share the sum over inner, and their shares are added in order.
extern "C" __global__ void multiply_heads(
    const long long rows, const long long inner, const long long columns,
    const long long left_head, const long long left_row, const long long left_inner,
    const long long right_head, const long long right_row, const long long out_head, const long long out_row,
    const stored* left, const stored* right, stored* out)
{
    __shared__ real shares[8][8][32];
    const int lane = threadIdx.x, warp = threadIdx.y;
    const long long row = (long long)blockIdx.x*8, column = (long long)blockIdx.y*32 + lane;
    left += blockIdx.z*left_head;
    right += blockIdx.z*right_head;

    real sums[8] = {};
    if (column < columns)
        for (long long i = warp; i < inner; i += 8) {
            const real weight = right[i*right_row + column];
            #pragma unroll
            for (int r = 0; r < 8; r++)
                if (row + r < rows) sums[r] += real(left[(row + r)*left_row + i*left_inner])*weight;
        }
    #pragma unroll
    for (int r = 0; r < 8; r++) shares[warp][r][lane] = sums[r];
    __syncthreads();

    real total = 0;
    for (int w = 0; w < 8; w++) total += shares[w][warp][lane];
    if (row + warp < rows && column < columns) out[blockIdx.z*out_head + (row + warp)*out_row + column] = total;
}
