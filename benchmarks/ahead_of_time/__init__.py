"""Compile the GPU kernels for GPUs that are not there, and read what they use."""
