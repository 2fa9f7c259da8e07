"""The compiled part: everything else is said in pyproject.toml.

It is optional. Without a compiler, or where it does not compile, the package installs all the same, and the local
engine takes PyTorch's own products on a CPU, which decode more slowly.
"""

from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "lcdoc.local_engine.kernels.cpu_compiled",
            ["local_engine/kernels/cpu/module.c"],
            depends=sorted(map(str, Path("local_engine/kernels/cpu").glob("*.h"))),
            extra_compile_args=["-O3", "-g0"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            optional=True,
        )
    ]
)
