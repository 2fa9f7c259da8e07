"""From a checkpoint's files to a model's weights, each tensor straight into its final dtype, layout and device."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.decoder import Layer, Weights
from lcdoc.local_engine.large_pages import LargePages
from lcdoc.local_engine.linear import Linear, PackedLinear, linear, stays_as_it_is
from lcdoc.local_engine.quantization import Quantization, quantized_linear
from lcdoc.local_engine.weights import Checkpoint

_ROWS_KEPT = 64
"""Rows of the mapped input table that may be read at once without giving its pages back."""
OnProgress = Callable[[int, int], None]
"""Is told how many of how many parts are loaded."""


def load_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    quantize: Quantization | None = None,
    on_progress: OnProgress | None = None,
) -> Weights:
    """The weights of `config`'s model. Raises ModelFilesError for a tensor that is missing or of another shape.

    The largest matrix comes first, while little else is in memory, so that the peak stays near the sum of the weights
    where it is worked on besides.
    """
    loader = _Loader(checkpoint, config, dtype, device, quantize)
    parts = config.layers + 1
    head = loader.head()
    layers = []
    for index in range(config.layers):
        if on_progress is not None:
            on_progress(index + 1, parts)
        layers.append(loader.layer(index))
    norm = loader.vector("model.norm.weight", config.hidden_size)
    if on_progress is not None:
        on_progress(parts, parts)
    return Weights(embed=loader.embedding(), layers=tuple(layers), norm=norm, head=head)


def give_back_freed() -> None:
    """Let glibc return what was freed between the weights that stay; it would keep a tenth of their size for later."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


class _Loader:
    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ModelConfig,
        dtype: torch.dtype,
        device: torch.device,
        quantize: Quantization | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._dtype = dtype
        self._device = device
        self._quantize: Quantization | None = quantize
        self._table: Tensor | None = None
        self._pages = LargePages()

    def vector(self, name: str, size: int) -> Tensor:
        return self._checkpoint.get(name, self._dtype, self._device, shape=(size,))

    def head(self) -> Linear:
        """The output layer. It is never quantized: its few wrong bits would choose other words."""
        config = self._config
        name = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        weight = self._read({name: config.vocab_size}, config.hidden_size, to_stay=True)
        kept = linear(weight)
        # oneDNN keeps a copy of its own: the rows are then read from the file.
        if config.tied_embeddings and not isinstance(kept, PackedLinear):
            self._table = weight
        return kept

    def embedding(self) -> Callable[[Tensor], Tensor]:
        """The input table: that of the output layer, where they are one; on a GPU its own; on a CPU in the mapped file,
        where only rows in use take memory."""
        name, dtype = "model.embed_tokens.weight", self._dtype
        shape = (self._config.vocab_size, self._config.hidden_size)
        table = self._table
        if table is None and self._device.type != "cpu":
            table = self._checkpoint.get(name, dtype, self._device, shape=shape)
        if table is not None:
            return lambda ids: table.index_select(0, ids)
        mapped = self._checkpoint.view(name, shape=shape)

        def rows(ids: Tensor) -> Tensor:
            found = mapped.index_select(0, ids).to(dtype)
            if len(ids) > _ROWS_KEPT:
                # Around each row the system maps a dozen pages more: after a prompt, that is most of the table.
                self._checkpoint.give_back(name)
            return found

        return rows

    def layer(self, index: int) -> Layer:
        config = self._config
        prefix = f"model.layers.{index}."
        hidden, dim = config.hidden_size, config.head_dim
        q, kv = config.heads * dim, config.kv_heads * dim
        return Layer(
            attention_norm=self.vector(f"{prefix}input_layernorm.weight", hidden),
            qkv=self._matrix(
                prefix + "self_attn.", {"q_proj": q, "k_proj": kv, "v_proj": kv}, "qkv_proj", hidden, config.qkv_bias
            ),
            head_norm=self._head_norm(prefix) if config.qk_norm else None,
            output=self._matrix(prefix + "self_attn.", {"o_proj": hidden}, "o_proj", q, config.output_bias),
            mlp_norm=self.vector(f"{prefix}post_attention_layernorm.weight", hidden),
            gate_up=self._matrix(
                prefix + "mlp.",
                {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size},
                "gate_up_proj",
                hidden,
                config.mlp_bias,
            ),
            down=self._matrix(
                prefix + "mlp.", {"down_proj": hidden}, "down_proj", config.intermediate_size, config.mlp_bias
            ),
        )

    def _matrix(self, prefix: str, parts: dict[str, int], fused: str, inputs: int, bias: bool) -> Linear:
        """The rows of `parts` under each other; families with fused projections store them so already."""
        if self._config.fused_projections:
            parts = {fused: sum(parts.values())}
        named = {f"{prefix}{name}.weight": rows for name, rows in parts.items()}
        weight = self._read(named, inputs, to_stay=self._quantize is None)
        biases = [self.vector(f"{prefix}{name}.bias", rows) for name, rows in parts.items()] if bias else []
        together = torch.cat(biases) if biases else None
        if self._quantize is None:
            kept = linear(weight, together)
        else:
            kept = quantized_linear(weight, together, self._quantize, self._pages)
        del weight
        give_back_freed()
        return kept

    def _read(self, parts: dict[str, int], inputs: int, *, to_stay: bool) -> Tensor:
        """The rows of `parts` (name: rows) under each other; where they are `to_stay`, in the memory for weights."""
        shape = (sum(parts.values()), inputs)
        if self._device.type == "cpu" and to_stay and stays_as_it_is(self._dtype):
            weight = self._pages.empty(shape, self._dtype)
        else:
            weight = torch.empty(shape, dtype=self._dtype, device=self._device)
        places = torch.split(weight, list(parts.values()))
        for (name, rows), place in zip(parts.items(), places, strict=True):
            self._checkpoint.get(name, self._dtype, shape=(rows, inputs), out=place)
        return weight

    def _head_norm(self, prefix: str) -> Tensor:
        """A row for each query head, then one for each key head: they are normalised in one go."""
        dim = self._config.head_dim
        q = self.vector(f"{prefix}self_attn.q_norm.weight", dim)
        k = self.vector(f"{prefix}self_attn.k_norm.weight", dim)
        return torch.cat((q.expand(self._config.heads, dim), k.expand(self._config.kv_heads, dim)))
