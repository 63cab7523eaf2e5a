# Linked into every kernel library: where `__shared__` (thread_local to the compiler) lies.
#
# The compiler asks `__tls_get_addr` for such an address; this one, found before the C library's, answers with the memory of the
# block that runs. An `extern __shared__` array has no definition in the text: compile.py names it at the end of this file, so
# that it lies behind the static ones, as long as the launch says.

        .text
        .globl  __tls_get_addr
        .hidden __tls_get_addr
        .type   __tls_get_addr, @function
__tls_get_addr:
        movq    cuda_host_arena@GOTPCREL(%rip), %rax
        movq    (%rax), %rax
        addq    8(%rdi), %rax
        ret
        .size   __tls_get_addr, .-__tls_get_addr
        .section .note.GNU-stack,"",@progbits

        .section .tbss.cuda_host_dynamic,"awT",@nobits
        .balign 1024
        .globl  cuda_host_dynamic
        .hidden cuda_host_dynamic
        .type   cuda_host_dynamic, @object
cuda_host_dynamic:
