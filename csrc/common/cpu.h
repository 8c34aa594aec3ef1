// The instruction set that the kernels use.
#pragma once

#include <string>
#include <vector>

namespace dynal {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

const char* isa_name(Isa isa);

// What this binary has kernels for and this CPU and its operating system can run, slowest first.
std::vector<Isa> supported_isas();

// The fastest supported one, unless set_isa chose another.
Isa active_isa();

// Throws std::invalid_argument for a name that is unknown or that this CPU cannot run.
void set_isa(const std::string& name);

}  // namespace dynal
