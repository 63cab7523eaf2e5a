// Sums of columns, [rows, columns] to [gridDim.y, columns]: a tile of threads takes every eighth row of its part, in order.
template <typename from, typename to>
__device__ inline void sum_columns(long long rows, long long columns, const from* source, to* sums)
{
    __shared__ real tile[8][33];
    const long long column = (long long)blockIdx.x*32 + threadIdx.x;
    const long long first = rows*blockIdx.y/gridDim.y, last = rows*(blockIdx.y + 1)/gridDim.y;
    real total = 0;
    if (column < columns)
        for (long long row = first + threadIdx.y; row < last; row += 8) total += real(source[row*columns + column]);
    tile[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int y = 1; y < 8; y++) total += tile[y][threadIdx.x];
        sums[blockIdx.y*columns + column] = total;
    }
}

extern "C" __global__ void sum_rows(const long long rows, const long long columns, const stored* source, real* parts)
{
    sum_columns(rows, columns, source, parts);
}

extern "C" __global__ void sum_parts(const long long rows, const long long columns, const real* parts, stored* sums)
{
    sum_columns(rows, columns, parts, sums);
}
