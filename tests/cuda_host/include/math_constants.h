// Stand-in for CUDA's header: runtime.h has all of it.
#pragma once
