"""The compiled module; see cpu/module.c. Addresses are those of contiguous tensors, 0 for none."""

def linear(
    x: int,
    weight: int,
    bias: int,
    y: int,
    tokens: int,
    inputs: int,
    outputs: int,
    bf16: bool,
    loops: int,
    threads: int,
    /,
) -> None: ...
def norm(
    x: int, residual: int, weight: int, y: int, tokens: int, size: int, eps: float, bf16: bool, loops: int, /
) -> None: ...
def gate(x: int, y: int, tokens: int, size: int, bf16: bool, loops: int, /) -> None: ...
def attend(*arguments: float) -> None: ...
def sets() -> list[tuple[int, str]]: ...
def shares_threads() -> bool: ...
