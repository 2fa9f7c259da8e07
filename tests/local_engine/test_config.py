"""config.json against what transformers makes of it, in both spellings, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file

from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.errors import EngineError, ModelFilesError, UnsupportedModelError
from lcdoc.tests.local_engine.checkpoints import FAMILIES, SHAPE, model_config, reference_model, rope

ARCHITECTURES = {family: model_config(family).architectures[0] for family in FAMILIES}
# What every file has; the rest is left to the family.
BASE = {
    **{name: SHAPE[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")},
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}


def written(tmp_path, family="llama", **fields):
    content = {"architectures": [ARCHITECTURES[family]], "model_type": family, **BASE, **fields}
    tmp_path.joinpath("config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    return tmp_path


def both(tmp_path, family="llama", **fields):
    folder = written(tmp_path, family, **fields)
    return read_config(folder), transformers.AutoConfig.from_pretrained(folder)


def refusal(folder, kind):
    with pytest.raises(kind) as raised:
        read_config(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert "config.json" in message
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_out_is_as_transformers_has_it(tmp_path, family):
    left_out = {"rms_norm_eps": ...}
    ours, theirs = both(tmp_path, family, **left_out)
    assert ours.architecture == ARCHITECTURES[family]
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.tied_embeddings == theirs.tie_word_embeddings
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 16)
    assert ours.rotary_dim == ours.head_dim
    assert ours.context_window == 512
    assert ours.rope.kind == "default"
    assert ours.dtype == torch.bfloat16
    assert ours.mlp_bias == ours.output_bias is False
    windows = theirs.sliding_window if family in {"mistral", "phi3"} else None
    assert ours.windows == (windows,) * ours.layers


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_transformers_weights(checkpoint, family):
    """Biases, norms of heads, the number of heads: read off the tensors of a real model."""
    folder = checkpoint(family)
    ours = read_config(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in reference_model(folder).state_dict().items()}
    layer = "model.layers.0."
    assert shapes["model.embed_tokens.weight"] == (ours.vocab_size, ours.hidden_size)
    assert shapes[f"{layer}self_attn.o_proj.weight"] == (ours.hidden_size, ours.heads * ours.head_dim)
    if ours.fused_projections:
        rows = (ours.heads + 2 * ours.kv_heads) * ours.head_dim
        assert shapes[f"{layer}self_attn.qkv_proj.weight"] == (rows, ours.hidden_size)
        assert shapes[f"{layer}mlp.gate_up_proj.weight"] == (2 * ours.intermediate_size, ours.hidden_size)
    else:
        assert shapes[f"{layer}self_attn.k_proj.weight"] == (ours.kv_heads * ours.head_dim, ours.hidden_size)
        assert ours.qkv_bias == (f"{layer}self_attn.v_proj.bias" in shapes)
        assert ours.mlp_bias == (f"{layer}mlp.up_proj.bias" in shapes)
    assert ours.output_bias == (f"{layer}self_attn.o_proj.bias" in shapes)
    assert ours.qk_norm == (f"{layer}self_attn.q_norm.weight" in shapes)
    assert ours.groups == 2
    assert ours.cache_bytes_per_token(torch.float16) == 2 * ours.layers * 2 * 16 * 2


@pytest.mark.parametrize("family", ["llama", "qwen3", "smollm3"])
def test_attention_biases(checkpoint, family):
    folder = checkpoint(family, attention_bias=True)
    ours, names = read_config(folder), reference_model(folder).state_dict()
    assert ours.qkv_bias == ("model.layers.0.self_attn.q_proj.bias" in names) is True
    assert ours.output_bias == ("model.layers.0.self_attn.o_proj.bias" in names) is True


@pytest.mark.parametrize("family", ["llama", "smollm3"])
def test_mlp_biases(checkpoint, family):
    folder = checkpoint(family, mlp_bias=True)
    assert read_config(folder).mlp_bias == ("model.layers.0.mlp.up_proj.bias" in reference_model(folder).state_dict())


# ---- heads


@pytest.mark.parametrize(("family", "expected"), [("llama", 4), ("phi3", 4), ("mistral", None), ("qwen2", None)])
def test_key_value_heads_left_out(tmp_path, family, expected):
    """Two families mean as many as there are heads; the others' defaults are those of one model of theirs."""
    folder = written(tmp_path, family, num_key_value_heads=...)
    if expected is None:
        assert "num_key_value_heads" in refusal(folder, ModelFilesError)
    else:
        assert read_config(folder).kv_heads == expected
    assert read_config(written(tmp_path, family, num_key_value_heads=None)).kv_heads == 4


def test_head_sizes(tmp_path):
    assert read_config(written(tmp_path, "llama")).head_dim == 16
    assert read_config(written(tmp_path, "llama", head_dim=None)).head_dim == 16
    assert read_config(written(tmp_path, "mistral", head_dim=48)).head_dim == 48
    assert read_config(written(tmp_path, "qwen2", head_dim=24)).head_dim == 24
    assert read_config(written(tmp_path, "qwen3")).head_dim == 128
    assert read_config(written(tmp_path, "qwen3", head_dim=32)).head_dim == 32


def test_heads_that_do_not_divide(tmp_path):
    assert "num_key_value_heads 3" in refusal(written(tmp_path, num_key_value_heads=3), ModelFilesError)
    folder = written(tmp_path, hidden_size=66, num_attention_heads=4)
    assert "hidden_size 66" in refusal(folder, ModelFilesError)
    assert read_config(written(tmp_path, hidden_size=66, head_dim=16)).head_dim == 16


# ---- windows


WINDOWS = [
    ("mistral", {}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 100}),
    ("phi3", {"sliding_window": 100}),
    ("phi3", {"sliding_window": None}),
    ("qwen2", {"sliding_window": 100}),
    ("qwen2", {"sliding_window": 100, "use_sliding_window": False, "max_window_layers": 1}),
    ("qwen2", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 1}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}),
    ("qwen2", {"sliding_window": 100, "use_sliding_window": True}),
    ("qwen2", {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0}),
    ("qwen3", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 2}),
    (
        "qwen3",
        {
            "sliding_window": 100,
            "use_sliding_window": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    ("smollm3", {"sliding_window": 100, "use_sliding_window": True, "no_rope_layers": [1, 0, 1]}),
    ("smollm3", {"sliding_window": 100, "use_sliding_window": False, "no_rope_layers": [1, 0, 1]}),
    ("smollm3", {"sliding_window": None, "use_sliding_window": True, "no_rope_layers": [1, 0, 1]}),
]


@pytest.mark.parametrize(("family", "fields"), WINDOWS)
def test_windows_are_those_of_transformers(tmp_path, family, fields):
    ours, theirs = both(tmp_path, family, **fields)
    types = getattr(theirs, "layer_types", None) or ["sliding_attention"] * 3
    window = theirs.sliding_window
    assert ours.windows == tuple(window if each == "sliding_attention" else None for each in types)


def test_windows_that_contradict_each_other(tmp_path):
    sliding = ["sliding_attention", "full_attention", "full_attention"]
    assert "set no window" in refusal(written(tmp_path, "qwen2", layer_types=sliding), ModelFilesError)
    folder = written(tmp_path, "mistral", sliding_window=8, layer_types=sliding)
    assert "mixes windows" in refusal(folder, UnsupportedModelError)
    assert "list of 3" in refusal(written(tmp_path, "qwen2", layer_types=sliding[:2]), ModelFilesError)
    folder = written(tmp_path, "qwen3", layer_types=["linear_attention", "full_attention", "full_attention"])
    assert "linear_attention" in refusal(folder, UnsupportedModelError)
    assert "sliding_window is 4096" in refusal(written(tmp_path, "llama", sliding_window=4096), UnsupportedModelError)
    assert read_config(written(tmp_path, "llama", sliding_window=None)).windows == (None,) * 3


# ---- rotation


@pytest.mark.parametrize("fields", [{}, {"no_rope_layer_interval": 2}, {"no_rope_layers": [0, 1, 1, 0, 1]}])
def test_layers_that_do_not_rotate(tmp_path, fields):
    ours, theirs = both(tmp_path, "smollm3", num_hidden_layers=5, **fields)
    assert ours.rotates == tuple(map(bool, theirs.no_rope_layers))
    assert False in ours.rotates


def test_lists_of_layers_that_are_wrong(tmp_path):
    assert "no_rope_layers" in refusal(written(tmp_path, "smollm3", no_rope_layers=[1, 0]), ModelFilesError)
    assert "no_rope_layers" in refusal(written(tmp_path, "smollm3", no_rope_layers=[1, 2, 1]), ModelFilesError)


KINDS = ["linear", "dynamic", "llama3", "yarn", "longrope"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["rope_type", "type"])
def test_both_spellings_say_the_same(tmp_path, kind, name):
    parameters = rope(kind, rope_theta=50_000.0)
    newer = read_config(written(tmp_path, rope_parameters=parameters))
    scaling = {name: kind, **{k: v for k, v in parameters.items() if k not in {"rope_type", "rope_theta"}}}
    older = read_config(written(tmp_path, rope_scaling=scaling, rope_theta=50_000.0))
    assert newer == older
    assert newer.rope.kind == kind
    assert newer.rope_theta == 50_000.0


def test_what_goes_before_what(tmp_path):
    """As in transformers: the older field where it says something, and the base within before the one beside."""
    fields = {
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 7.0},
        "rope_theta": 9.0,
    }
    ours, theirs = both(tmp_path, **fields)
    assert (ours.rope.factor, ours.rope_theta) == (2.0, 9.0)
    assert (theirs.rope_parameters["factor"], theirs.rope_parameters["rope_theta"]) == (2.0, 9.0)
    ours, theirs = both(tmp_path, **{**fields, "rope_scaling": None})
    assert (ours.rope.factor, ours.rope_theta) == (3.0, 7.0)
    assert (theirs.rope_parameters["factor"], theirs.rope_parameters["rope_theta"]) == (3.0, 7.0)


@pytest.mark.parametrize("spelled", ["su", "yarn", "longrope"])
def test_phi3_has_names_of_its_own(tmp_path, spelled):
    factors = {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    fields = {"rope_scaling": {"type": spelled, **factors}, "partial_rotary_factor": 0.75}
    ours = read_config(written(tmp_path, "phi3", original_max_position_embeddings=64, **fields))
    assert ours.rope.kind == "longrope"
    assert (ours.rope.original_context, ours.rope.factor) == (64, 8.0)
    assert ours.rotary_dim == 12
    assert ours.rope.long_factor == (2.0,) * 6


def test_what_a_phi3_file_leaves_out(tmp_path):
    scaling = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    ours, theirs = both(tmp_path, "phi3", max_position_embeddings=8192, rope_scaling=scaling)
    assert ours.rope.original_context == theirs.original_max_position_embeddings == 4096


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({}, 512),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 2048),
        ({"rope_scaling": {"type": "linear", "factor": 4.0, "original_max_position_embeddings": 128}}, 512),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 1024),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}, 2048),
        ({"rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}}, 512),
        ({"rope_parameters": rope("llama3")}, 512),
        ({"rope_parameters": rope("longrope")}, 512),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}, "max_sequence_length": 1000}, 1000),
    ],
)
def test_how_long_a_context_may_be(tmp_path, fields, window):
    assert read_config(written(tmp_path, **fields)).context_window == window


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rope_scaling": {"type": "ntk-by-parts", "factor": 2}}, "ntk-by-parts"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2, 3]}}, "mrope_section"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differs by layer"),
        ({"partial_rotary_factor": 0.5}, "rotate whole heads"),
        ({"head_dim": 15}, "even number"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "head_dim": 2}, "divides by zero"),
    ],
)
def test_rotations_that_are_not_done(tmp_path, fields, said):
    assert said in refusal(written(tmp_path, **fields), UnsupportedModelError)


@pytest.mark.parametrize(
    "scaling",
    [
        "linear",
        {"type": "linear"},
        {"type": "linear", "factor": 0},
        {"type": "linear", "factor": "4"},
        {"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0},
        {"type": "llama3", "factor": 8.0, "high_freq_factor": 1.0},
        {"type": "yarn", "factor": 4.0, "truncate": "no"},
        {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 7},
        {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [0.0] * 8},
        {"type": "longrope", "short_factor": [1.0] * 8},
    ],
)
def test_scalings_that_are_incomplete(tmp_path, scaling):
    assert "rope_scaling" in refusal(written(tmp_path, rope_scaling=scaling), ModelFilesError)


# ---- the rest


def test_models_that_are_not_run(tmp_path):
    message = refusal(written(tmp_path, architectures=["GemmaForCausalLM"]), UnsupportedModelError)
    assert "GemmaForCausalLM" in message
    assert all(name in message for name in ARCHITECTURES.values())
    message = refusal(written(tmp_path, architectures=None, model_type="mamba"), UnsupportedModelError)
    assert "mamba" in message
    assert read_config(written(tmp_path, architectures=None)).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "stored",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "awq"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"compression_config": {"format": "int-quantized"}},
    ],
)
def test_quantized_checkpoints_are_refused(tmp_path, stored):
    message = refusal(written(tmp_path, **stored), UnsupportedModelError)
    assert stored.get("quantization_config", {}).get("quant_method", "compression_config") in message
    assert "unquantized" in message


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"hidden_act": "gelu"}),
        ("mistral", {"attention_bias": True}),
        ("phi3", {"attention_bias": True}),
        ("qwen2", {"mlp_bias": True}),
        ("llama", {"torch_dtype": "float8_e4m3fn"}),
    ],
)
def test_fields_that_would_change_the_model_are_not_passed_over(tmp_path, family, fields):
    assert refusal(written(tmp_path, family, **fields), UnsupportedModelError)


def test_activations_by_their_other_name(tmp_path):
    assert read_config(written(tmp_path, hidden_act="swish"))


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({"torch_dtype": "float16"}, torch.float16),
        ({"torch_dtype": "torch.bfloat16"}, torch.bfloat16),
        ({"torch_dtype": ..., "dtype": "float32"}, torch.float32),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, torch.bfloat16),
    ],
)
def test_dtypes(tmp_path, fields, dtype):
    assert read_config(written(tmp_path, **fields)).dtype == dtype


@pytest.mark.parametrize("stated", [..., None, "auto"])
def test_a_dtype_left_out_is_that_of_the_weights(tmp_path, stated):
    save_file({"x": torch.ones(9).to(torch.float16), "y": torch.ones(1)}, tmp_path / "model.safetensors")
    assert read_config(written(tmp_path, torch_dtype=stated)).dtype == torch.float16


@pytest.mark.parametrize(
    ("fields", "eos", "bos"),
    [
        ({}, (), None),
        ({"eos_token_id": 2, "bos_token_id": 1}, (2,), 1),
        ({"eos_token_id": [5, 0], "bos_token_id": 0}, (5, 0), 0),
        ({"eos_token_id": None, "bos_token_id": None}, (), None),
        ({"eos_token_id": [5, 128_001], "bos_token_id": 128_000}, (5,), None),
    ],
)
def test_ends_and_beginnings(tmp_path, fields, eos, bos):
    ours = read_config(written(tmp_path, **fields))
    assert (ours.eos_ids, ours.bos_id) == (eos, bos)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": ...},
        {"hidden_size": "64"},
        {"hidden_size": -1},
        {"hidden_size": True},
        {"num_hidden_layers": 0},
        {"max_position_embeddings": None},
        {"vocab_size": 1.5},
        {"rms_norm_eps": 0},
        {"rms_norm_eps": "small"},
        {"tie_word_embeddings": "yes"},
        {"eos_token_id": "</s>"},
        {"eos_token_id": [-1]},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [3]},
    ],
)
def test_fields_of_another_type(tmp_path, fields):
    assert next(iter(fields)) in refusal(written(tmp_path, **fields), ModelFilesError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_damaged_files(tmp_path, content):
    tmp_path.joinpath("config.json").write_bytes(content)
    assert "download the file again" in refusal(tmp_path, ModelFilesError)


def test_no_file(tmp_path):
    assert "no such file" in refusal(tmp_path, ModelFilesError)
    tmp_path.joinpath("config.json").mkdir()
    assert "cannot be read" in refusal(tmp_path, ModelFilesError)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_one_field_removed_or_broken_is_an_error_or_a_default(tmp_path, checkpoint, family):
    whole = json.loads(checkpoint(family).joinpath("config.json").read_text())
    for name in whole:
        for value in (..., None, [], {}, "x", -1, 1e300):
            fields = {key: each for key, each in {**whole, name: value}.items() if each is not ...}
            tmp_path.joinpath("config.json").write_text(json.dumps(fields))
            try:
                read_config(tmp_path)
            except EngineError as error:
                assert str(tmp_path) in str(error)
