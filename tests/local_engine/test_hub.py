"""Where a model is found: folders, the hub's cache, and a hub on loopback that gives out what a real one would."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.errors import ModelFilesError
from lcdoc.local_engine.hub import locate
from lcdoc.local_engine.weights import Checkpoint

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The four answers of the hub that fetching a model takes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, *, body):
        path = unquote(urlsplit(self.path).path)
        files, refused = self.server.files, self.server.refused
        self.server.asked.append(path)
        if refused:
            status, code = refused
            return self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body)
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._send(200, json.dumps(entries).encode(), {}, body)
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in files]
            return self._send(200, json.dumps({"id": "org/small", "sha": SHA, "siblings": siblings}).encode(), {}, body)
        name = path.split(f"/resolve/{SHA}/")[-1]
        if name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        headers = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": SHA}
        return self._send(200, files[name], headers, body)

    def _send(self, status, content, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def point(monkeypatch, endpoint):
    """What HF_ENDPOINT sets when the library is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    point(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, checkpoint, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    whole = {path.name: path.read_bytes() for path in checkpoint("llama", shard_size="60KB").iterdir()}
    more = {
        "README.md": b"x",
        "pytorch_model.bin": b"x" * 10_000,
        "modeling_custom.py": b"raise SystemExit",
        "original/consolidated.00.safetensors": b"x" * 10_000,
        "consolidated.safetensors": b"x" * 10_000,
        "onnx/model.onnx": b"x",
    }
    server.files, server.refused, server.asked = {**whole, **more}, None, []
    point(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def cached(cache, folder, repository="org/small", revision="main"):
    """A model as the hub's library keeps it."""
    at = cache / f"models--{repository.replace('/', '--')}"
    snapshot = at / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        snapshot.joinpath(path.name).write_bytes(path.read_bytes())
    at.joinpath("refs").mkdir()
    at.joinpath("refs", revision).write_text(SHA)
    return snapshot


def refusal(name):
    with pytest.raises(ModelFilesError) as raised:
        locate(name)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_folder(checkpoint, monkeypatch):
    folder = checkpoint("llama")
    assert locate(str(folder)) == locate(folder) == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate(f"~/{folder.name}") == folder
    monkeypatch.chdir(folder.parent)
    assert locate(folder.name).samefile(folder)


def test_a_folder_goes_before_the_hub(cache, checkpoint, tmp_path):
    cached(cache, checkpoint("qwen2"))
    local = tmp_path / "org" / "small"
    local.mkdir(parents=True)
    local.joinpath("config.json").write_text("{}")
    assert locate("org/small").samefile(local)


def test_folders_and_files_that_are_no_model(tmp_path):
    assert "has no config.json" in refusal(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_text("x")
    assert "name the folder" in refusal(file)


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/such/folder", "a/b/c", "name", "org/na me", "org/name@", "", "../x"]
)
def test_what_is_neither_folder_nor_name(name, cache):
    assert "no" in refusal(name)
    assert not cache.exists()


def test_fetching(hub, cache, checkpoint):
    told = []
    folder = locate("org/small", lambda fetched, total: told.append((fetched, total)))
    assert folder == cache / "models--org--small" / "snapshots" / SHA
    whole = {path.name: path.read_bytes() for path in checkpoint("llama", shard_size="60KB").iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert read_config(folder).architecture == "LlamaForCausalLM"
    assert Checkpoint(folder).names
    total = sum(map(len, whole.values()))
    assert told[-1] == (total, total)
    assert told == sorted(told)
    assert len(told) > 3


def test_what_was_fetched_is_found_without_a_network(hub, monkeypatch):
    folder = locate("org/small")
    point(monkeypatch, "http://127.0.0.1:9")
    assert locate("org/small") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("org/small") == folder


def test_nothing_is_fetched_twice(hub):
    folder = locate("org/small")
    hub.asked.clear()
    assert locate("org/small") == folder
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_revision(hub):
    locate("org/small@v1.0")
    assert any(path.endswith("/org/small/revision/v1.0") for path in hub.asked)


def test_a_model_of_pickles_alone(hub):
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    assert "no safetensors" in refusal("org/small")
    assert not any("pytorch_model.bin" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "neither a folder"),
        (401, "RepoNotFound", "neither a folder"),
        (403, "GatedRepo", "accept"),
        (404, "RevisionNotFound", "no such revision"),
        (500, "x", "cannot be reached"),
    ],
)
def test_what_the_hub_refuses(hub, status, code, said):
    hub.refused = status, code
    message = refusal("org/small@main")
    assert said in message
    assert message.startswith("org/small@main: ")


def test_a_cache_that_was_filled_elsewhere(cache, checkpoint):
    snapshot = cached(cache, checkpoint("qwen2"))
    assert locate("org/small") == snapshot
    assert Checkpoint(locate("org/small")).names


def test_without_a_network_it_says_where_it_looked(cache, tmp_path):
    message = refusal("org/small")
    assert "the hub cannot be reached" in message
    assert str(tmp_path / "org" / "small") in message
    assert str(cache / "models--org--small") in message
    assert "hf download org/small" in message


def test_a_snapshot_that_is_not_whole(hub, monkeypatch):
    folder = locate("org/small")
    folder.joinpath("tokenizer.json").unlink()
    point(monkeypatch, "http://127.0.0.1:9")
    assert "not whole on this machine" in refusal("org/small")


def test_the_librarys_settings_are_heeded(tmp_path):
    """They are read when it is imported, so in a process of its own."""
    code = "from lcdoc.local_engine.hub import locate; locate('org/small')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    message = done.stderr.strip().splitlines()[-1]
    assert "HF_HUB_OFFLINE is set" in message
    assert str(tmp_path / "hub" / "models--org--small") in message
