"""Rotations against transformers' own rotary modules."""

from __future__ import annotations

import importlib

import pytest
import torch

from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.rope import Rope
from lcdoc.tests.local_engine.checkpoints import FAMILIES, model_config, rope

YARN = [
    {},
    {"truncate": False},
    {"mscale": 1.0, "mscale_all_dim": 0.7},
    {"mscale": 0.707, "mscale_all_dim": 0.707},
    {"mscale": 1.0},
    {"attention_factor": 1.25},
    {"beta_fast": 8, "beta_slow": 2},
    {"factor": 1.0},
    {"original_max_position_embeddings": 4},
]
LONGROPE = [{}, {"attention_factor": 1.19}, {"factor": 1.0}, {"original_max_position_embeddings": 128}]
CASES = [
    ("default", {}),
    ("linear", {}),
    ("dynamic", {}),
    ("dynamic", {"factor": 1.7, "rope_theta": 500_000.0}),
    ("llama3", {}),
    ("llama3", {"factor": 32.0, "rope_theta": 500_000.0, "original_max_position_embeddings": 256}),
    *(("yarn", changes) for changes in YARN),
    *(("longrope", changes) for changes in LONGROPE),
]


def both(tmp_path, family="llama", **fields):
    """Ours and theirs, from one file."""
    config = model_config(family, **fields)
    config.save_pretrained(tmp_path)
    module = importlib.import_module(f"transformers.models.{config.model_type}.modeling_{config.model_type}")
    name = config.architectures[0].removesuffix("ForCausalLM")
    read = read_config(tmp_path)
    return Rope(read), getattr(module, f"{name}RotaryEmbedding")(config), read


def theirs_at(module, positions):
    """Their cosines and sines of one sequence; each dimension of a pair has the same."""
    cosines, sines = module(torch.zeros(1), positions.unsqueeze(0))
    half = cosines.shape[-1] // 2
    assert torch.equal(cosines[0, :, :half], cosines[0, :, half:])
    return cosines[0, :, :half], sines[0, :, :half]


@pytest.mark.parametrize(("kind", "changes"), CASES)
@pytest.mark.parametrize("head_dim", [16, 48, 80, 128])
def test_every_scaling_equals_transformers(tmp_path, kind, changes, head_dim):
    parameters = rope(kind, rotary_dim=head_dim, **changes)
    ours, theirs, _ = both(tmp_path, head_dim=head_dim, rope_parameters=parameters)
    for length in (1, 7, 63, 64, 65, 300, 512, 513, 3000, 40_000):
        positions = torch.arange(max(0, length - 200), length)
        expected = theirs_at(theirs, positions)
        got = ours.rotation(positions, torch.full_like(positions, length))
        for mine, their in zip(got, expected, strict=True):
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, their, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_transformers(tmp_path, family):
    ours, theirs, _ = both(tmp_path, family)
    positions = torch.randint(0, 100_000, (50,)).sort().values
    for mine, their in zip(ours.rotation(positions, positions + 1), theirs_at(theirs, positions), strict=True):
        torch.testing.assert_close(mine, their, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["default", "longrope"])
def test_phi3_rotates_a_part_of_each_head(tmp_path, kind):
    parameters = rope(kind, rotary_dim=12, partial_rotary_factor=0.75)
    fields = {"rope_parameters": parameters, "original_max_position_embeddings": 64}
    ours, theirs, config = both(tmp_path, "phi3", **fields)
    assert config.rotary_dim == 12
    for length in (50, 200):
        positions = torch.arange(length)
        got = ours.rotation(positions, torch.full_like(positions, length))
        for mine, their in zip(got, theirs_at(theirs, positions), strict=True):
            assert mine.shape == (length, 6)
            torch.testing.assert_close(mine, their, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_each_token_goes_by_its_own_sequence(tmp_path, kind):
    """Tokens of several sequences in one call rotate as each would alone, on either side of the window."""
    ours, _, _ = both(tmp_path, rope_parameters=rope(kind))
    assert ours.depends_on_length
    positions = torch.tensor([0, 5, 5, 600, 700, 5])
    lengths = torch.tensor([6, 6, 900, 601, 9000, 65])
    together = ours.rotation(positions, lengths)
    for row in range(len(positions)):
        alone = ours.rotation(positions[row : row + 1], lengths[row : row + 1])
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[0], many[row])
    # The same position under other lengths is another rotation, or the test shows nothing.
    assert not torch.equal(together[0][1], together[0][2])


def test_kinds_that_do_not_look_at_the_length_do_not(tmp_path):
    for kind in ("default", "linear", "llama3", "yarn"):
        ours, _, _ = both(tmp_path, rope_parameters=rope(kind))
        assert not ours.depends_on_length
        positions = torch.arange(10)
        short, long = (ours.rotation(positions, torch.full_like(positions, length)) for length in (10, 100_000))
        assert torch.equal(short[0], long[0])


def test_no_tokens(tmp_path):
    for kind in ("default", "dynamic", "longrope"):
        ours, _, _ = both(tmp_path, rope_parameters=rope(kind))
        cosines, sines = ours.rotation(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
        assert cosines.shape == sines.shape == (0, 8)
