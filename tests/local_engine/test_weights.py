"""Reading weights: what is read, what is refused, and how much memory it takes."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lcdoc.local_engine.errors import EngineError, ModelFilesError, UnsupportedModelError
from lcdoc.local_engine.weights import Checkpoint

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def written(folder, tensors):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return Checkpoint(folder)


def raw(path, header, data=b"", *, length=None):
    """A file with any header at all."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)


@pytest.fixture
def copied(tmp_path, checkpoint):
    """A checkpoint in several files that a test may damage."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama", shard_size="60KB"), folder)
    return folder


def test_all_tensors_equal_the_librarys(checkpoint):
    folder = checkpoint("qwen2")
    expected, ours = load_file(folder / "model.safetensors"), Checkpoint(folder)
    assert set(ours.names) == set(expected)
    for name, tensor in expected.items():
        assert name in ours
        assert ours.shapes[name] == tuple(tensor.shape)
        assert torch.equal(ours.view(name), tensor)
        assert torch.equal(ours.get(name, torch.float32), tensor)
    assert ours.nbytes == sum(tensor.nbytes for tensor in expected.values())
    assert ours.dtype == torch.float32


def test_several_files_equal_one(checkpoint):
    one, many = Checkpoint(checkpoint("llama")), Checkpoint(checkpoint("llama", shard_size="60KB"))
    assert len(list(many.folder.glob("*.safetensors"))) > 3
    assert set(one.names) == set(many.names)
    for name in one.names:
        assert torch.equal(one.get(name, torch.float32), many.get(name, torch.float32))


@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("wanted", FLOATS)
def test_tensors_come_in_the_wanted_dtype(tmp_path, stored, wanted):
    tensor = torch.randn(33, 7, dtype=torch.float64).to(stored)
    ours = written(tmp_path / "m", {"x": tensor})
    got = ours.get("x", wanted)
    assert got.dtype == wanted
    assert torch.equal(got, tensor.to(wanted))
    assert ours.view("x").dtype == ours.dtype == stored


def test_a_copy_is_ones_own_and_a_view_is_the_file(tmp_path):
    ours = written(tmp_path / "m", {"x": torch.arange(8.0)})
    copy = ours.get("x", torch.float32)
    copy.zero_()
    assert ours.view("x").tolist() == list(range(8))
    assert ours.view("x").data_ptr() == ours.view("x").data_ptr() != copy.data_ptr()


def test_views_outlive_their_checkpoint(tmp_path):
    view = written(tmp_path / "m", {"x": torch.arange(1000.0)}).view("x")
    assert view.sum() == 499_500


def test_tensors_longer_than_one_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("lcdoc.local_engine.weights._COPIED_AT_ONCE", 1000)
    tensors = {"a": torch.randn(3), "b": torch.randn(70, 101, dtype=torch.float32), "c": torch.randn(2000)}
    ours = written(tmp_path / "m", tensors)
    for name, tensor in tensors.items():
        assert torch.equal(ours.get(name, torch.bfloat16), tensor.to(torch.bfloat16))


def test_empty_and_scalar_tensors(tmp_path):
    ours = written(tmp_path / "m", {"none": torch.empty(0, 5), "one": torch.tensor(3.5)})
    assert ours.get("none", torch.float32).shape == ours.view("none").shape == (0, 5)
    assert ours.get("one", torch.float32) == ours.view("one") == 3.5


@given(ids=st.lists(st.integers(0, 511), max_size=30))
def test_rows_equal_the_matrixs(checkpoint, ids):
    ours = Checkpoint(checkpoint("llama", shard_size="60KB"))
    name = "model.embed_tokens.weight"
    rows = ours.rows(name, torch.tensor(ids, dtype=torch.int64), torch.bfloat16)
    assert rows.shape == (len(ids), 64)
    assert torch.equal(rows, ours.get(name, torch.bfloat16)[ids])


def test_rows_keep_the_stored_dtype_unless_told(tmp_path):
    ours = written(tmp_path / "m", {"x": torch.randn(5, 3).to(torch.float16)})
    assert ours.rows("x", torch.tensor([4])).dtype == torch.float16


# ---- what is not there, or damaged


def refusal(folder, kind=ModelFilesError):
    with pytest.raises(kind) as raised:
        Checkpoint(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_shape_that_is_not_the_models_names_tensor_and_file(checkpoint):
    ours = Checkpoint(checkpoint("llama"))
    name = "model.norm.weight"
    assert ours.get(name, torch.float32, shape=(64,)).shape == ours.view(name, shape=(64,)).shape == (64,)
    for read in (lambda: ours.get(name, torch.float32, shape=(65,)), lambda: ours.view(name, shape=(8, 8))):
        with pytest.raises(ModelFilesError, match=r"model\.safetensors: model\.norm\.weight is \[64\] where"):
            read()


def test_a_tensor_that_is_not_there(checkpoint):
    ours = Checkpoint(checkpoint("llama"))
    assert "model.nothing" not in ours
    with pytest.raises(ModelFilesError, match=r"no model\.nothing"):
        ours.get("model.nothing", torch.float32)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
    tmp_path.joinpath(name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    message = refusal(tmp_path)
    assert name in message
    assert "save_pretrained" in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_formats_and_empty_folders(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "has no model.safetensors" in refusal(tmp_path)
    tmp_path.joinpath("model-q4.gguf").write_bytes(b"GGUF")
    assert "GGUF" in refusal(tmp_path)
    tmp_path.joinpath("model-q4.gguf").unlink()
    tmp_path.joinpath("adapter_config.json").write_text("{}")
    assert "merge it" in refusal(tmp_path)


def test_safetensors_are_taken_where_pickles_lie_beside_them(copied):
    copied.joinpath("pytorch_model.bin").write_bytes(b"x")
    assert Checkpoint(copied).names


def test_a_shard_that_is_missing(copied):
    shard = sorted(copied.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(copied)


@pytest.mark.parametrize("kept", [0, 4, 8, 40, 2000, -1])
def test_a_shard_that_is_cut_off(copied, kept):
    shard = sorted(copied.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:kept])
    message = refusal(copied)
    assert shard.name in message
    assert "download it again" in message


def test_a_shard_with_something_behind_it(copied):
    shard = sorted(copied.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes() + b"x")
    assert shard.name in refusal(copied)


def test_a_pointer_of_git_lfs(copied):
    shard = sorted(copied.glob("*.safetensors"))[1]
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refusal(copied)


def entry(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        [1, 2],
        "text",
        {"x": []},
        {"x": {"dtype": "F32", "shape": [2]}},
        {"x": entry(0, 7)},
        {"x": entry(0, 8, shape=(3,))},
        {"x": entry(0, 8, dtype="F13")},
        {"x": entry(0, 8, shape=(-1, -2))},
        {"x": entry(0, 8, shape=(True, 2))},
        {"x": entry(0, 8, shape=("2",))},
        {"x": entry(-8, 0)},
        {"x": entry(8, 0)},
        {"x": entry(0.0, 8.0)},
        {"x": entry(4, 12)},
        {"x": entry(0, 8), "y": entry(0, 8)},
        {"x": entry(0, 8), "y": entry(4, 12)},
        {"x": entry(0, 8), "y": entry(12, 20)},
        {"x": entry(0, 10**15, shape=(25 * 10**13,))},
    ],
)
def test_headers_that_lie(tmp_path, header):
    raw(tmp_path / "model.safetensors", header, b"\0" * 8)
    assert "model.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 5])
def test_headers_of_a_false_length(tmp_path, length):
    raw(tmp_path / "model.safetensors", {"x": entry(0, 8)}, b"\0" * 8, length=length)
    assert "model.safetensors" in refusal(tmp_path)


@given(st.data())
def test_any_damage_to_a_header_is_an_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    save_file({"x": torch.ones(2, 3), "y": torch.ones(4)}, folder / "model.safetensors")
    content = bytearray(folder.joinpath("model.safetensors").read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    folder.joinpath("model.safetensors").write_bytes(content)
    try:
        ours = Checkpoint(folder)
        for name in ours.names:
            ours.get(name, torch.float32)
    except EngineError as error:
        assert "model.safetensors" in str(error)


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": {}},
        {"weight_map": []},
        {"weight_map": {"x": 3}},
        {"weight_map": {"x": "../model.safetensors"}},
        {"weight_map": {"x": "/etc/passwd"}},
        {"weight_map": {"x": "pytorch_model.bin"}},
    ],
)
def test_an_index_that_names_no_file_beside_it(tmp_path, index):
    written(tmp_path, {"x": torch.ones(2)})
    tmp_path.joinpath("model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json" in refusal(tmp_path)


def test_an_index_that_is_wrong_about_a_file(copied):
    index = copied / "model.safetensors.index.json"
    fields = json.loads(index.read_text())
    fields["weight_map"]["model.more"] = sorted(fields["weight_map"].values())[0]
    index.write_text(json.dumps(fields))
    assert "model.more" in refusal(copied)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.float8_e4m3fn])
def test_quantized_tensors_are_refused(tmp_path, dtype):
    ours = written(tmp_path / "m", {"x": torch.ones(4).to(dtype), "y": torch.ones(1)})
    assert torch.equal(ours.get("y", torch.float32), torch.ones(1))
    with pytest.raises(UnsupportedModelError, match="x is stored as"):
        ours.get("x", torch.float32)


def test_a_checkpoint_of_integers_alone_has_no_dtype(tmp_path):
    with pytest.raises(UnsupportedModelError, match="unquantized"):
        _ = written(tmp_path / "m", {"x": torch.ones(4, dtype=torch.int32)}).dtype


# Not getrusage: its peak starts at that of the process that started this one.
MEASURE = """
import sys, torch
from pathlib import Path
from lcdoc.local_engine.weights import Checkpoint

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

torch.set_num_threads(1)
checkpoint = Checkpoint(Path(sys.argv[1]))
checkpoint.get("warm", torch.float32)
before = peak()
held = [checkpoint.get(name, torch.bfloat16) for name in checkpoint.names]
print(peak() - before, sum(tensor.nbytes for tensor in held))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mapped pages are given back on Linux")
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_loading_takes_little_more_than_the_weights(tmp_path, stored):
    """The whole model would be twice in memory if its pages stayed mapped."""
    tensors = {f"layer{i}": torch.ones(2048, 4096, dtype=stored) for i in range(8)}
    written(tmp_path / "m", {**tensors, "warm": torch.ones(2)})
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "m"], capture_output=True, text=True, check=True
    )
    grown, weights = map(int, process.stdout.split())
    assert weights == 2 * (8 * 2048 * 4096 + 2)
    assert grown < 1.15 * weights + 16 * 2**20
