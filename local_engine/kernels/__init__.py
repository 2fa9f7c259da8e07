"""The engine's kernels: pure functions on tensors, each written twice.

`reference.py` holds them in plain PyTorch, slow and obvious, in any float type up to float64: it is the oracle of the
tests; `compression_reference.py` holds those that cut a cache. The `triton_*.py` files hold them for NVIDIA GPUs
(Ampere and later), under the same names and with the same meaning. Those import triton, which exists on Linux only, so
nothing is imported here: ask for the module that you mean.
"""
