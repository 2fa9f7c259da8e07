"""Places for entries beyond the trained window, and rotary embeddings stretched to it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from lcdoc.local_engine.compaction import Turn, turn_kept
from lcdoc.local_engine.compression.parts import LayerModel
from lcdoc.local_engine.compression.positions import (
    Capped,
    Compact,
    Original,
    SelfExtend,
    smallest_group,
)
from lcdoc.local_engine.compression.stretched_rope import STRETCHES, Stretching, stretched
from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.rope import Rope
from lcdoc.tests.local_engine.checkpoints import model_config, rope

SCHEMES = [Original(), Compact(), SelfExtend(4, 10), SelfExtend(1, 7), SelfExtend(5, 3), Capped(20), Capped(1)]


def kept_rows(seed=0, rows=(2, 3), n=40, text=300):
    """Rows of entries in ascending order of position, of different lengths; what follows is `text`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(text, generator=generator)[:n] for _ in range(math.prod(rows))])
    lengths = torch.randint(1, n + 1, (*rows, 1), generator=generator)
    return drawn.sort(-1).values.view(*rows, n), torch.arange(n) < lengths


def rotation(dim, theta=10_000.0):
    """Rotation by complex numbers, in float64."""
    frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def rotate(x, positions):
        turned = torch.complex(*x.double().chunk(2, -1)) * torch.exp(1j * positions[..., None] * frequencies)
        return torch.cat((turned.real, turned.imag), -1).to(x.dtype)

    return rotate


def layer_model(dim):
    return LayerModel(0, 1, dim**-0.5, rotation(dim), lambda: torch.empty(0), 1)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("seed", range(4))
def test_places_are_in_order_and_before_what_follows(scheme, seed):
    positions, valid = kept_rows(seed)
    placed = scheme.place(positions, valid, 300)
    assert placed.places.dtype == torch.int64
    assert placed.places.shape == positions.shape
    assert placed.places[valid].min() >= 0
    assert placed.places[valid].max() < placed.next <= 300
    both = valid[..., 1:] & valid[..., :-1]
    assert (placed.places.diff()[both] >= 0).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_an_empty_cache_has_the_next_token_where_it_can_be(scheme):
    nothing = scheme.place(torch.empty(1, 2, 0, dtype=torch.int64), torch.empty(1, 2, 0, dtype=torch.bool), 0)
    assert nothing.next == 0
    assert nothing.places.shape == (1, 2, 0)


def test_compact_packs_rows_towards_their_ends():
    positions = torch.tensor([[3, 8, 9, 40], [5, 41, 0, 0]])
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    placed = Compact().place(positions, valid, 50)
    assert placed.next == 4
    assert placed.places[0].tolist() == [0, 1, 2, 3]
    assert placed.places[1, :2].tolist() == [2, 3]


def test_compact_lets_a_row_that_is_too_long_stand_together_at_its_beginning():
    valid = torch.tensor([[True] * 6, [True, True, True, False, False, False]])
    placed = Compact(reach=4).place(torch.arange(6).expand(2, 6), valid, 50)
    assert placed.next == 4
    assert placed.places[0].tolist() == [0, 0, 0, 1, 2, 3]
    assert placed.places[1, :3].tolist() == [1, 2, 3]


def test_original_leaves_all_as_it_is():
    positions, valid = kept_rows()
    placed = Original().place(positions, valid, 300)
    assert placed.places is positions
    assert placed.next == 300


@pytest.mark.parametrize(("group", "neighbours"), [(1, 7), (4, 16), (4, 10), (5, 3), (8, 1), (3, 1000)])
def test_self_extend_has_the_papers_distances(group, neighbours):
    positions = torch.arange(300).expand(2, 3, 300)
    valid = torch.ones_like(positions, dtype=torch.bool)
    placed = SelfExtend(group, neighbours).place(positions, valid, 300)
    for row in range(2):
        for head in range(3):
            for position, place in zip(
                positions[row, head][valid[row, head]].tolist(),
                placed.places[row, head][valid[row, head]].tolist(),
                strict=True,
            ):
                if 300 - position < neighbours:
                    expected = 300 - position
                else:
                    expected = (300 // group + neighbours - neighbours // group) - position // group
                assert placed.next - place == expected


def test_groups_of_one_and_wide_neighbourhoods_extend_nothing():
    positions, valid = kept_rows()
    for scheme in (SelfExtend(1, 7), SelfExtend(9, 301), Capped(300)):
        placed = scheme.place(positions, valid, 300)
        assert torch.equal((placed.next - placed.places)[valid], (300 - positions)[valid])


@pytest.mark.parametrize("neighbours", [1, 17, 60])
@pytest.mark.parametrize("reach", [61, 100, 128])
@pytest.mark.parametrize("length", [50, 99, 1000, 4096, 100_000])
def test_the_smallest_group_keeps_a_text_within_reach(length, reach, neighbours):
    group = smallest_group(length, reach, neighbours)
    positions = torch.arange(length)[None]

    def furthest(group):
        return SelfExtend(group, neighbours).place(positions, torch.ones_like(positions, dtype=torch.bool), length).next

    assert furthest(group) <= reach
    assert group == 1 or furthest(group - 1) > reach


def test_neighbours_beyond_reach_are_refused():
    with pytest.raises(InvalidRequestError, match="200 neighbours and distances up to 200"):
        smallest_group(1000, 200, 200)


def test_capped_is_exact_up_to_its_reach():
    positions, valid = kept_rows()
    placed = Capped(100).place(positions, valid, 300)
    assert placed.next == 100
    assert torch.equal((placed.next - placed.places)[valid], (300 - positions)[valid].clamp(max=100))


@pytest.mark.parametrize("made", [lambda: SelfExtend(0), lambda: SelfExtend(neighbours=0), lambda: Capped(0)])
def test_schemes_without_extent_are_refused(made):
    with pytest.raises(InvalidRequestError, match="is 0: choose 1 or more"):
        made()


def turned(model, keys, valid, shift):
    """Keys [L, H, n, D], of which rows have so many as are `valid`, turned on in a cache with a page for each row."""
    layers, heads, n, dim = keys.shape
    pool = PagePool(layers * heads, n, dim, keys.dtype)
    pool.keys.copy_(keys.flatten(0, 1))
    pages = np.arange(layers * heads, dtype=np.int32).reshape(layers, heads, 1)
    turn = Turn(shift, lambda _, x, by: model.rotate(x, by), torch.empty(0))
    turn_kept(pool, valid.sum(-1).numpy().astype(np.int32), pages, turn)
    return pool.keys.view_as(keys)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_keys_moved_twice_are_keys_rotated_once(scheme):
    model, (positions, valid) = layer_model(16), kept_rows()
    before = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1))
    placed = scheme.place(positions, valid, 300)
    first = turned(model, model.rotate(before, positions), valid, torch.full_like(positions, 1000))
    keys = turned(model, first, valid, placed.places - positions - 1000)
    expected = model.rotate(before, placed.places)
    torch.testing.assert_close(keys[valid], expected[valid], rtol=1e-4, atol=1e-5)


def test_keys_that_stay_are_not_rounded():
    model, (positions, valid) = layer_model(16), kept_rows()
    keys = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    shift = torch.where(positions % 2 == 0, 0, -positions)
    moved = turned(model, keys, valid, shift)
    stays = (shift == 0) | ~valid
    assert torch.equal(moved[stays], keys[stays])
    assert (moved != keys).any(-1)[~stays].all()


@pytest.fixture
def config(tmp_path):
    model_config("llama", max_position_embeddings=64, head_dim=16, rope_parameters=rope("default")).save_pretrained(
        tmp_path
    )
    return read_config(tmp_path)


def cosines(config, length):
    positions = torch.arange(length)
    return torch.stack(Rope(config).rotation(positions, torch.full_like(positions, length)))


@pytest.mark.parametrize("kind", STRETCHES)
def test_a_text_that_fits_is_read_as_trained(config, kind):
    assert stretched(config, kind, 64) is config
    assert stretched(config, kind, 65).context_window == 65


@pytest.mark.parametrize("kind", STRETCHES)
def test_the_slowest_frequency_stays_within_what_it_turned_in_the_window(config, kind):
    """A text s times as long turns it as far as the window did; the fastest stay, but for linear."""
    factor = 8
    ours, trained = Rope(stretched(config, kind, 64 * factor)), Rope(config)

    def frequencies(rope):
        cosines, sines = rope.rotation(torch.tensor([1]), torch.tensor([64 * factor]))
        return torch.atan2(sines, cosines)[0].double()

    share = frequencies(trained) / frequencies(ours)
    assert share[-1].item() == pytest.approx(factor, rel=1e-3)
    assert share[0].item() == pytest.approx(factor if kind == "linear" else 1, rel=1e-3)
    assert (share.diff() > -1e-3).all()


def test_dynamic_is_ntk_at_the_length_of_each_text(config):
    dynamic = stretched(config, "dynamic", 5000)
    for length in (10, 64):
        assert torch.equal(cosines(dynamic, length), cosines(config, length))
    for length in (128, 300):
        expected = cosines(stretched(config, "ntk", length), length)
        torch.testing.assert_close(cosines(dynamic, length), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scalings_that_files_name_are_theirs(config, kind, tmp_path):
    """As if the checkpoint's own file asked for it."""
    parameters = {
        "rope_type": kind,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": config.rope_theta,
    }
    model_config("llama", max_position_embeddings=64, head_dim=16, rope_parameters=parameters).save_pretrained(tmp_path)
    assert torch.equal(cosines(stretched(config, kind, 256), 256), cosines(read_config(tmp_path), 256))


def test_models_stretched_already_are_refused(tmp_path):
    model_config("llama", rope_parameters=rope("yarn")).save_pretrained(tmp_path)
    with pytest.raises(InvalidRequestError, match=r"is yarn for .* cannot be stretched to 1000000"):
        stretched(read_config(tmp_path), "ntk", 1_000_000)


def test_unknown_ways_are_refused(config):
    with pytest.raises(InvalidRequestError, match="choose linear, ntk, dynamic or yarn"):
        stretched(config, "magic", 100)


@pytest.mark.parametrize("spelled", ["yarn:length=256", "linear:factor=4", "ntk:factor=2.5", "dynamic:length=1000"])
def test_a_stretching_is_written_as_it_is_read(config, spelled):
    made = Stretching.parse(spelled)
    assert str(made) == spelled
    length = made.length or round(made.factor * 64)
    assert made.applied(config) == stretched(config, made.kind, length)
    assert made.applied(config).context_window == length


@pytest.mark.parametrize(
    ("spelled", "problem"),
    [
        ("magic:length=100", "'magic' is none of linear, ntk, dynamic or yarn"),
        ("yarn", "as in yarn:length=32768 or yarn:factor=4"),
        ("yarn:width=5", "as in yarn:length=32768 or yarn:factor=4"),
        ("yarn:length=", "as in yarn:length=32768 or yarn:factor=4"),
        ("yarn:length=many", "length is 'many': give a whole number"),
        ("yarn:length=0", "length is 0: give 1 or more"),
        ("linear:factor=nan", "factor is nan: give 1 or more"),
        ("linear:factor=inf", "factor is inf: give 1 or more"),
    ],
)
def test_what_names_no_stretching_is_refused(spelled, problem):
    with pytest.raises(InvalidRequestError, match=re.escape(problem)) as refused:
        Stretching.parse(spelled)
    assert "\n" not in str(refused.value)
