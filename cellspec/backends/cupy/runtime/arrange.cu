// Rows of given in the order that is named, a row of zeros for -1.
template <typename number>
__device__ inline void arranged(
    long long count, long long columns, const long long* order, const number* given, number* out)
{
    const long long k = (long long)blockIdx.x*blockDim.x + threadIdx.x;
    if (k >= count) return;
    const long long row = order[k/columns];
    if (row >= 0) out[k] = given[row*columns + k%columns];
    else out[k] = real(0);
}

extern "C" __global__ void arrange(
    const long long count, const long long columns, const long long* order, const stored* given, stored* out)
{
    arranged(count, columns, order, given, out);
}

#ifdef HALF
extern "C" __global__ void arrange_real(
    const long long count, const long long columns, const long long* order, const real* given, real* out)
{
    arranged(count, columns, order, given, out);
}
#endif
