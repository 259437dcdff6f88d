"""The embedder "sentence_transformers", with a model of a few kilobytes and a hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import ROOT, plugins

from newsfuse import Cost, Embedder, Service
from newsfuse.errors import ParamsError, PluginError, ProviderError
from newsfuse.stage import guarded

PLUGIN = plugins().load(Embedder, "sentence_transformers")
WIDTH = 8
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ship", "harbour", "storm", "bread", "milk", "query", ":"]
TEXTS = [" ".join(WORDS[5 + i % 5 : 7 + i % 5] * (1 + i % 4)) for i in range(20)] * 2
"""Forty, so that the library has two batches of its own, of several lengths each."""
LOAD = torch.load
HUB_NAME, COMMIT = "somebody/tiny", "1" * 40


@pytest.fixture(scope="module", autouse=True)
def silence() -> None:
    """Before a test imports the hub's client, which calls home; in a user's process the plugin sees to that."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights and a layer behind it, as sentence-transformers saves them."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - the other tests of a run need not wait
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer  # noqa: PLC0415
    from transformers import BertConfig, BertModel, BertTokenizer  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("model")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=1.0,  # of the usual 0.02, all texts would have nearly the same vector
    )
    BertModel(config).save_pretrained(folder / "bert")
    layers = [Transformer(str(folder / "bert")), Pooling(WIDTH), Dense(WIDTH, WIDTH)]
    SentenceTransformer(modules=layers, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model, for changing."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the settings of whoever runs the tests."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEWSFUSE_DEVICE", "cpu")


def service(model: Path | str, dimensions: int = WIDTH, prompt: str = "", revision: str = "") -> Service:
    options = PLUGIN.params.model_validate({"prompt": prompt, "revision": revision})
    made = PLUGIN.build([], str(model), dimensions, options)
    assert isinstance(made, Service)
    return made


def embedded(model: Path | str, texts: Sequence[str] = TEXTS, prompt: str = "", revision: str = "") -> np.ndarray:
    with service(model, prompt=prompt, revision=revision).connect() as connection:
        return connection.embed(texts).vectors


def tell(model: str, revision: str = "") -> None:
    """Print the vectors, or a mistake as a stage tells it."""

    def work() -> None:
        sys.stdout.write(embedded(model, revision=revision).tobytes().hex())

    guarded(work, verbose=False)


def refused(model: Path | str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        embedded(model)
    assert "\n" not in str(caught.value)


# --- vectors


def test_the_order_of_the_texts_is_kept(saved: Path) -> None:
    together = embedded(saved)
    apart = np.concatenate([embedded(saved, [text]) for text in TEXTS[:20]])
    np.testing.assert_allclose(together, np.tile(apart, (2, 1)), atol=1e-5)
    distances = np.linalg.norm(apart[:, None] - apart[None], axis=2)[~np.eye(20, dtype=bool)]
    assert distances.min() > 1e-3  # else the order would show in nothing


def test_the_same_batch_gives_the_same_bytes(saved: Path) -> None:
    assert embedded(saved).tobytes() == embedded(saved).tobytes()


def test_vectors_are_float32_also_from_a_model_in_half_precision(model: Path) -> None:
    weights = model / "model.safetensors"
    save_file({name: values.half() for name, values in load_file(weights).items()}, weights, {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    vectors = embedded(model)
    assert vectors.dtype == np.float32
    assert (vectors == vectors.astype(np.float16)).all()  # or it was not a model in half precision


def test_a_prompt_is_put_in_front_of_every_text(saved: Path) -> None:
    prompted = embedded(saved, TEXTS, prompt="query: ")
    assert not np.allclose(prompted, embedded(saved), atol=1e-3)
    np.testing.assert_allclose(prompted, embedded(saved, [f"query: {text}" for text in TEXTS]), atol=1e-5)


def test_without_a_prompt_the_models_own_is_used(model: Path) -> None:
    config = model / "config_sentence_transformers.json"
    own = {"prompts": {"news": "query: "}, "default_prompt_name": "news"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    np.testing.assert_allclose(embedded(model), embedded(model, prompt="query: "), atol=1e-6)


def test_a_text_that_is_too_long_for_the_model_is_cut_by_the_model(saved: Path) -> None:
    long = "storm bread " * 1000
    np.testing.assert_allclose(embedded(saved, [long]), embedded(saved, [long[: 15 * len("storm bread ")]]), atol=1e-6)


def test_vectors_that_are_not_finite_are_refused(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][0] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    refused(model, ProviderError, "not finite")


# --- the service


def test_it_costs_nothing_but_time_and_takes_one_request_at_once() -> None:
    made = service("somewhere/else")
    assert PLUGIN.cost == Cost.TIME
    assert (made.usd_per_million_tokens, made.max_in_flight, made.host) == (0.0, 1, "")
    assert made.max_inputs * made.max_text_bytes <= made.max_tokens  # so that only the number of texts cuts a request


def test_the_default_model_is_taken_where_none_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = PLUGIN.build([], None, WIDTH, PLUGIN.params())
    assert isinstance(made, Service)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ParamsError, match=f"'{PLUGIN.default_model}'"), made.connect():
        pass


def test_loading_the_plugin_loads_neither_torch_nor_sentence_transformers() -> None:
    program = (
        "import sys; from pathlib import Path; from newsfuse import Embedder; from newsfuse.registry import Registry;"
        "plugin = Registry(Path('plugins'), {}).load(Embedder, 'sentence_transformers');"
        "plugin.build([], None, 384, plugin.params());"
        "print({'torch', 'transformers', 'sentence_transformers', 'huggingface_hub'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


# --- mistakes


def test_other_dimensions_than_the_models_are_refused(saved: Path) -> None:
    for asked in (WIDTH - 1, WIDTH + 1):
        told = f"embed.dimensions: .* {WIDTH} numbers, found {asked}. Set it: -S embed.dimensions={WIDTH}$"
        with pytest.raises(ParamsError, match=told), service(saved, asked).connect():
            pass


@pytest.mark.parametrize("name", ["/nowhere/at/all", "models/of/mine", "./model", "a model"])
def test_a_folder_that_is_not_there_is_told_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tell(name)
    assert ended.value.code == ParamsError.exit_code
    told = capsys.readouterr().err
    assert told.startswith(f"ERROR: params.yaml: embed.model: '{name}' cannot be loaded from this disk: ")
    assert "there is no such folder. Set embed.model to a folder" in told
    assert "Traceback" not in told


def test_offline_a_model_that_is_not_on_this_disk_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused(HUB_NAME, ParamsError, "neither a folder nor in the hub's cache. HF_HUB_OFFLINE forbids the download")
    refused("tiny", ParamsError, "'sentence-transformers/tiny' cannot be loaded")


def test_a_folder_without_modules_is_refused_because_pooling_would_be_a_guess(model: Path) -> None:
    (model / "modules.json").unlink()
    refused(model, ParamsError, "has no modules.json")


@pytest.mark.parametrize("part", ["", "2_Dense"])
def test_pickled_weights_are_not_read(model: Path, part: str) -> None:
    weights = model / part / "model.safetensors"
    torch.save(load_file(weights), model / part / "pytorch_model.bin")
    weights.unlink()
    refused(model, ParamsError, "can run code" if part else r"no file named model\.safetensors")
    assert torch.load is LOAD


def test_code_that_comes_with_a_model_is_not_run(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    (model / "modules.json").write_text(json.dumps([*modules[:2], {**modules[2], "type": "own.Dense"}]))
    (model / "own.py").write_text(f"from pathlib import Path; Path({str(model / 'ran')!r}).touch()")
    refused(model, ParamsError, r"own\.Dense")
    assert not (model / "ran").exists()


def test_a_damaged_file_is_told_in_words(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"not weights")
    refused(model, ParamsError, "cannot be loaded from this disk")


def test_a_wrong_device_is_told_in_words(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_DEVICE", "abacus")
    refused(saved, ParamsError, "^NEWSFUSE_DEVICE: .*'abacus'")


def test_a_missing_package_is_told_with_how_to_install_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    refused(saved, PluginError, r"pip install 'newsfuse\[local\]'$")


def test_running_out_of_memory_passes_as_it_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> NoReturn:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("sentence_transformers.SentenceTransformer.__init__", full)
    with pytest.raises(torch.OutOfMemoryError):
        embedded(saved)


# --- the hub, its cache, and what is written: its client reads its variables once, so each in a process of its own


class Hub(ThreadingHTTPServer):
    """As much of the Hugging Face hub as loading one model asks for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.asked: list[str] = []


class Answers(BaseHTTPRequestHandler):
    """The files of somebody/tiny, whatever the revision, and a list of them."""

    server: Hub

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self.server.asked.append(self.path)
        _, _, file = self.path.partition(f"/{HUB_NAME}/resolve/")
        body = self.server.files.get(file.partition("/")[2])
        if self.path.startswith(f"/api/models/{HUB_NAME}"):
            body = json.dumps(self.listing()).encode()
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound" if HUB_NAME in self.path else "RepoNotFound")
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.path.rpartition("/")[2]}-{len(body or b"")}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def listing(self) -> object:
        if "/tree/" in self.path:
            sizes = {name: len(body) for name, body in self.server.files.items()}
            return [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
        return {"id": HUB_NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.server.files]}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture(scope="module")
def hub(saved: Path) -> Iterator[Hub]:
    with Hub(saved) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def run(home: Path, hub: Hub, name: Path | str, revision: str = "") -> subprocess.CompletedProcess[str]:
    """Embed in a process whose home, working and temporary folder is `home`."""
    program = (
        f"import logging, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}];"
        "logging.basicConfig(format='%(levelname)s: %(message)s');"
        "from test_sentence_transformers import tell; tell(*sys.argv[1:])"
    )
    hidden = ("HF_", "TRANSFORMERS_", "SENTENCE_TRANSFORMERS_", "XDG_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    own = {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}
    own["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
    hub.asked.clear()
    command = [sys.executable, "-c", program, str(name), revision]
    return subprocess.run(command, cwd=home, env={**kept, **own}, capture_output=True, text=True, check=False)


def test_a_model_is_downloaded_once_and_with_one_warning(saved: Path, hub: Hub, tmp_path: Path) -> None:
    first = run(tmp_path, hub, HUB_NAME, revision="v1")
    assert bytes.fromhex(first.stdout) == embedded(saved).tobytes()
    (warning,) = [line for line in first.stderr.splitlines() if "WARNING" in line]
    assert f"'{HUB_NAME}'" in warning
    assert "To avoid that: HF_HUB_OFFLINE=1" in warning
    assert f"/{HUB_NAME}/resolve/v1/modules.json" in hub.asked
    again = run(tmp_path, hub, HUB_NAME, revision="v1")
    assert again.stdout == first.stdout
    assert "WARNING" not in again.stderr
    assert hub.asked == []
    assert [path.name for path in tmp_path.iterdir()] == [".cache"]


def test_a_model_that_the_hub_does_not_have_is_told_in_words(hub: Hub, tmp_path: Path) -> None:
    outcome = run(tmp_path, hub, "somebody/nothing")
    assert outcome.returncode == ProviderError.exit_code
    assert "\nERROR: 'somebody/nothing' cannot be loaded from the Hugging Face hub: " in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_folder_is_read_without_asking_the_hub_and_without_writing_anything(hub: Hub, model: Path) -> None:
    home = model.parent / "home"
    home.mkdir()
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    outcome = run(home, hub, model)
    assert bytes.fromhex(outcome.stdout) == embedded(model).tobytes()
    assert hub.asked == []
    assert list(home.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


# --- what its vectors are kept under


def test_a_folder_trained_anew_is_another_model(model: Path) -> None:
    before, weights = service(model).host, next(model.rglob("*.safetensors"))
    assert service(model).host == before
    assert before.startswith("sha256 ")
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    assert service(model).host != before
    assert service("somebody/tiny").host == ""
