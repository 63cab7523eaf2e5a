// A stand-in for libcublas with the few functions that are called without CuPy, by their C names and types. It does nothing
// itself: fake/cublas.py gives it the functions that do.

#include <cstddef>

typedef int (*SetStream)(void* handle, void* stream);
typedef int (*SetWorkspace)(void* handle, void* memory, size_t size);
typedef int (*GemmEx)(
    void* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
    const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int algorithm);

static SetStream set_stream;
static SetWorkspace set_workspace;
static GemmEx gemm;

extern "C" {

void cuda_host_cublas(SetStream first, SetWorkspace second, GemmEx third)
{
    set_stream = first;
    set_workspace = second;
    gemm = third;
}

int cublasSetStream_v2(void* handle, void* stream) { return set_stream(handle, stream); }

int cublasSetWorkspace_v2(void* handle, void* memory, size_t size) { return set_workspace(handle, memory, size); }

int cublasGemmEx(
    void* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
    const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int algorithm)
{
    return gemm(
        handle, turn_a, turn_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, compute, algorithm);
}

}
