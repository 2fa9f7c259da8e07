"""What kvpress keeps of a random text's cache, and what it had before it; see `kvpress_agreement.py`."""

from __future__ import annotations

import json
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from kvpress_methods import METHODS, PIECE, TOKENS
from safetensors.torch import save_file
from torch import Tensor


def record(file: Path) -> None:
    """Writes, for each model and layer, what scorers see, and for each method what kvpress kept: bool [L, H, n]."""
    import kvpress
    import transformers

    transformers.logging.disable_progress_bar()
    logging.getLogger("kvpress").setLevel(logging.ERROR)
    tensors: dict[str, Tensor] = {}
    shared = {
        "vocab_size": 1024,
        "hidden_size": 96,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        # kvpress asks Qwen2's configuration for it, which has none by itself.
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.12,
    }
    for seed, family in enumerate(("Llama", "Qwen2")):
        torch.manual_seed(seed)
        made = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**shared))
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            made.save_pretrained(folder)
            _tokenizer().save_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
            # No token twice: in the first layer its keys would be equally long, and ties fall as they may.
            ids = torch.randperm(1024)[None, :TOKENS]
            seen = _seen(model, ids)
            tensors |= {f"{family}/{name}": tensor for name, tensor in seen.items()}
            for name, method in METHODS.items():
                model.set_attn_implementation("eager" if method.eager else "sdpa")
                # A little above, so that kvpress, which rounds down, keeps just as many.
                share = 1 - (method.kept + 0.001) / TOKENS
                press = method.press(kvpress, share)
                repeated = _watched(press) if method.repeats else {}
                tensors[f"{family}/kept/{name}"] = _kept(model, ids, press, seen["keys"])
                tensors |= {f"{family}/{piece}": tensor for piece, tensor in repeated.items()}
    versions = {"kvpress": version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"versions": json.dumps(versions)})
    print(f"{len(tensors)} tensors written to {file}")


def _tokenizer() -> Any:
    """A token for each byte: KVzip writes its prompts with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=bytewise)


def _watched(press: Any) -> dict[str, Tensor]:
    """Filled while `press` (KVzip) works: for each piece of the text and layer, the repeating tokens' queries, keys,
    values and inputs, and where the piece begins and ends."""
    from kvpress.utils import get_prerope_query_states
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    found: dict[str, Tensor] = {}
    scored = press.score_kvzip

    def score(*given: Any) -> tuple[Tensor, Tensor]:
        module, hidden, keys, values, _, named = given
        queries = get_prerope_query_states(module, hidden)
        turned, _ = apply_rotary_pos_emb(queries, queries, *named["position_embeddings"])
        count, length = keys.shape[1], hidden.shape[1]
        place = f"repeat/{press.start_idx // PIECE}/{module.layer_idx}"
        found[f"{place}/queries"] = turned.view(count, -1, length, keys.shape[-1])
        found[f"{place}/keys"] = keys[0, :, -length:]
        found[f"{place}/values"] = values[0, :, -length:]
        found[f"{place}/hidden"] = hidden[0]
        found[f"{place}/piece"] = torch.tensor([press.start_idx, press.end_idx])
        return scored(*given)

    press.score_kvzip = score
    return found


def _seen(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Keys and values [L, H, n, D], queries before and after rotation [L, H, G, n, D], and the model's part."""
    from transformers import DynamicCache
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    inputs: list[Tensor] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _, __, named: inputs.append(named["hidden_states"]), with_kwargs=True
        )
        for layer in model.model.layers
    ]
    cache = DynamicCache()
    model.model(ids, past_key_values=cache)
    for hook in hooks:
        hook.remove()
    cosines, sines = model.model.rotary_emb(inputs[0], torch.arange(TOKENS)[None])
    plain, rotated = [], []
    for layer, hidden in zip(model.model.layers, inputs, strict=True):
        heads = layer.self_attn.q_proj(hidden).view(1, TOKENS, -1, layer.self_attn.head_dim).transpose(1, 2)
        turned, _ = apply_rotary_pos_emb(heads, heads, cosines, sines)
        grouped = (2, -1, TOKENS, layer.self_attn.head_dim)
        plain.append(heads.reshape(grouped))
        rotated.append(turned.reshape(grouped))
    return {
        "keys": torch.cat([layer.keys for layer in cache.layers]),
        "values": torch.cat([layer.values for layer in cache.layers]),
        "plain": torch.stack(plain),
        "queries": torch.stack(rotated),
        "hidden": torch.cat(inputs),
        "output": torch.stack([layer.self_attn.o_proj.weight for layer in model.model.layers]),
        "frequencies": model.model.rotary_emb.inv_freq,
    }


def _kept(model: Any, ids: Tensor, press: Any, keys: Tensor) -> Tensor:
    """What `press` leaves of the cache. Some presses leave it whole, and name what attention is to pass over."""
    from transformers import DynamicCache

    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None
    cache = DynamicCache()
    with press(model):
        model.model(input_ids=ids, past_key_values=cache)
    kept = torch.zeros(keys.shape[:3], dtype=torch.bool)
    for number, (layer, of_layer) in enumerate(zip(model.model.layers, cache.layers, strict=True)):
        if layer.self_attn.masked_key_indices is not None:
            _, heads, places = layer.self_attn.masked_key_indices
            kept[number] = True
            kept[number, heads, places] = False
            continue
        for head, left in enumerate(of_layer.keys[0]):
            # Nearly the same keys: attention that is written out rounds otherwise.
            distances, places = torch.cdist(left, keys[number, head]).min(-1)
            kept[number, head, places] = True
            if distances.max() > 0.01 or int(kept[number, head].sum()) != len(left):
                raise RuntimeError(f"{press} left keys that are not those of the model")
    return kept
