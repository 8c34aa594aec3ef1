// Every kernel, compiled once per instruction set by the files in isa/.
//
// Everything here lives in namespace dynal::DYNAL_ISA or an anonymous namespace and uses no inline
// function of the C++ library: the linker keeps one copy of such a function for the whole
// extension, and it could be the one compiled for an instruction set that the CPU does not have.
#include "../dense_discrepancy/blocks.inl"
#include "../farthest_first/assign.inl"
#include "../farthest_first/filter.inl"
#include "../farthest_first/measure.inl"
#include "../pool_stats/update.inl"
