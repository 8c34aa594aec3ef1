// Which instruction set the kernels run on: detected once, lowered on request.
#pragma once

#include <string>
#include <vector>

namespace dynal {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

const char* isa_name(Isa isa);

// What this binary was compiled with and this CPU (and its operating system) can run, slowest
// first.
std::vector<Isa> supported_isas();

// The instruction set the kernels use: the fastest supported one, unless set_isa lowered it.
Isa active_isa();

// Throws std::invalid_argument for a name that is unknown or that this CPU cannot run.
void set_isa(const std::string& name);

// True when the extension was built with OpenMP.
bool has_openmp();

}  // namespace dynal
