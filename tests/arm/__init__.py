"""The compiled kernels on an emulated Arm CPU, in place of those of this machine.

``python -m pytest -p tests.arm.plugin tests/test_pool_stats.py`` runs a file of tests with them. It
needs a cross compiler and an emulator, on Debian ``apt-get install g++-aarch64-linux-gnu
qemu-user-static``.
"""
