"""Artifacts: written whole or not at all, never used damaged; the embeddings among them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
import pytest

from newsfuse import artifact
from newsfuse.artifact import MANIFEST, verified, write_text, writing
from newsfuse.embeddings import Embeddings, vectors_of
from newsfuse.errors import AuthenticationError, DataError, IntegrityError, PluginError, StorageError
from newsfuse.words import Words

SETTINGS = {"fields": ["title"], "dimensions": 2}
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np, polars as pl
from newsfuse.embeddings import Embeddings
from newsfuse.errors import StorageError
from newsfuse.words import Words

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: write() fails instead of killing us
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    Embeddings(Words.of(map(str, range(1000))), np.zeros((1000, 8), np.float32)).write(Path(sys.argv[1]), {})
except StorageError as error:
    sys.exit(f"{error.exit_code} {error}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole artifact."""
    folder = tmp_path / "thing"
    write(folder, b"first")
    return folder


def write(folder: Path, content: bytes) -> None:
    with writing(folder, kind="embed", settings=SETTINGS) as draft:
        (draft / "data.bin").write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_verified_and_gives_its_settings_back(folder: Path) -> None:
    assert verified(folder, kind="embed") == SETTINGS


def test_the_manifest_lists_the_sha256_and_size_of_each_file_and_nothing_of_the_moment(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = {"data.bin": {"bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest()}}
    assert len(manifest.pop("sha256")) == 64
    assert manifest == {"schema": 1, "kind": "embed", "settings": SETTINGS, "files": files}


def test_two_writes_of_the_same_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    with writing(tmp_path / "again", kind="embed", settings=dict(reversed(SETTINGS.items()))) as draft:
        (draft / "data.bin").write_bytes(b"first")
    assert tree(tmp_path / "again") == tree(folder)


def test_a_new_artifact_takes_the_place_of_the_old_one_whole(folder: Path) -> None:
    with writing(folder, kind="embed", settings={}) as draft:
        (draft / "other.bin").write_bytes(b"second")
    assert sorted(tree(folder.parent)) == ["thing/manifest.json", "thing/other.bin"]


@pytest.mark.parametrize("mishap", [RuntimeError, AuthenticationError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_artifact_and_no_draft(folder: Path, mishap: type[BaseException]) -> None:
    before = tree(folder.parent)

    def stop(draft: Path) -> NoReturn:
        (draft / "data.bin").write_bytes(b"half")
        raise mishap

    with pytest.raises(mishap), writing(folder, kind="embed", settings={}) as draft:
        stop(draft)
    assert tree(folder.parent) == before


def test_the_draft_of_a_killed_run_is_no_part_of_the_next_artifact(folder: Path) -> None:
    left = folder.with_name(".thing.draft")
    left.mkdir()
    (left / "stale.bin").write_bytes(b"stale")
    write(folder, b"second")
    assert sorted(tree(folder.parent)) == ["thing/data.bin", "thing/manifest.json"]


def test_a_failing_flush_is_a_storage_error_and_leaves_the_old_artifact(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(folder.parent)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"thing: could not be written: No space left on device\. Nothing was left"):
        write(folder, b"second")
    assert tree(folder.parent) == before


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "embeddings")]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.stderr.startswith(f"8 {tmp_path}/embeddings: could not be written: "), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be written: Not a directory") as caught:
        write(tmp_path / "file" / "thing", b"")
    assert caught.value.exit_code == 8


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2] ^= 1
    path.write_bytes(content)


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda folder: flip(folder / "data.bin"), "data.bin: missing or damaged", id="flipped bit"),
        pytest.param(lambda folder: os.truncate(folder / "data.bin", 3), "data.bin: missing or", id="truncated"),
        pytest.param(lambda folder: (folder / "data.bin").unlink(), "data.bin: missing or damaged", id="missing file"),
        pytest.param(lambda folder: (folder / MANIFEST).unlink(), "no readable manifest.json", id="no manifest"),
        pytest.param(lambda folder: os.truncate(folder / MANIFEST, 9), "no readable manifest", id="half a manifest"),
        pytest.param(lambda folder: flip(folder / MANIFEST), "no readable manifest.json", id="flipped manifest"),
        pytest.param(
            lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), "no readable manifest", id="manifest of no text"
        ),
        pytest.param(lambda folder: (folder / MANIFEST).write_text("[]"), "no readable manifest", id="a list"),
        pytest.param(edit(files=[]), "no readable manifest.json", id="files are a list"),
        pytest.param(edit(files={"data.bin": 1}), "no readable manifest.json", id="a file is a number"),
        pytest.param(edit(kind="graph"), "holds 'graph' of schema 1, expected 'embed' of schema 1", id="other kind"),
        pytest.param(edit(schema=2), "holds 'embed' of schema 2, expected 'embed' of schema 1", id="newer schema"),
    ],
)
def test_damage_is_refused_with_the_command_that_mends_it(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(IntegrityError) as caught:
        verified(folder, kind="embed")
    assert message in str(caught.value)
    again = "dvc repro --single-item embed"
    assert f'rm -rf {folder} && chmod -R u+w "$(dvc cache dir)" && {again}' in str(caught.value)
    assert caught.value.exit_code == 7


def test_no_bit_of_a_manifest_can_change_what_it_says(folder: Path) -> None:
    path = folder / MANIFEST
    whole = path.read_bytes()
    for place, bit in ((place, bit) for place in range(len(whole)) for bit in range(8)):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(IntegrityError):
            verified(folder, kind="embed")


def test_what_an_older_version_wrote_is_read(folder: Path) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["sha256"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert verified(folder, kind="embed") == SETTINGS


def test_an_artifact_that_no_stage_makes_is_made_again_by_whatever_wrote_it(folder: Path) -> None:
    with writing(folder, kind="ensemble", settings={}) as draft:
        (draft / "data.bin").write_bytes(b"content")
    flip(folder / "data.bin")
    with pytest.raises(IntegrityError, match=r"Make it again: rm -rf .*/thing, and run what wrote it"):
        verified(folder, kind="ensemble")


def test_a_missing_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"none: no readable manifest\.json"):
        verified(tmp_path / "none", kind="embed")


def test_a_text_file_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("one\n", "zwei \u00e9\n"):
        write_text(tmp_path / "new" / "text.json", text)
        assert tree(tmp_path) == {"new/text.json": text.encode()}


def test_a_text_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "text.json", "old")

    def full(path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(artifact, "flush", full)
    told = rf"^{tmp_path}/text\.json: could not be written: No space left on device\. What was there is as it was; free"
    with pytest.raises(StorageError, match=told):
        write_text(tmp_path / "text.json", "new")
    assert tree(tmp_path) == {"text.json": b"old"}


def test_a_text_file_in_a_place_that_can_have_none_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/text\.json: could not be written: File exists\. "):
        write_text(tmp_path / "file" / "text.json", "")


@pytest.fixture
def embeddings(tmp_path: Path) -> Embeddings:
    """Of N1, N2 and N3, as read from a file."""
    vectors = np.array([[1, 1], [2, 2], [3, 3]], dtype=np.float32)
    Embeddings(Words.of(["N1", "N2", "N3"]), vectors).write(tmp_path / "embeddings", SETTINGS)
    return Embeddings.read(tmp_path / "embeddings")


def test_vectors_are_found_by_id_in_whatever_order_they_are_asked_for(embeddings: Embeddings) -> None:
    vectors = embeddings.of(pl.Series(["N3", "N1", "N3"]), [])
    assert vectors.tolist() == [[3, 3], [1, 1], [3, 3]]
    assert vectors.dtype == np.float32


def test_missing_vectors_are_told_with_the_lines_of_the_first_articles(embeddings: Embeddings, tmp_path: Path) -> None:
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_text("N1\tx\nA5\tx\n", encoding="utf-8")
    dev.write_text("N9\tx\nA7\tx\nN8\tx\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        embeddings.of(pl.Series(["A5", "A7", "N1", "N8", "N9"]), [train, dev])
    places = f"{train}:2 (A5), {dev}:2 (A7), {dev}:3 (N8)"
    cause = "the embeddings are older than the news. Make them: dvc repro embed (without `frozen: true` in dvc.yaml)"
    assert str(caught.value) == f"4 articles have no vector, first {places}: {cause}"


def test_two_writes_of_the_same_embeddings_are_the_same_bytes(embeddings: Embeddings, tmp_path: Path) -> None:
    embeddings.write(tmp_path / "again", SETTINGS)
    assert tree(tmp_path / "again") == tree(tmp_path / "embeddings")


def test_embeddings_of_another_length_than_their_ids_are_refused(tmp_path: Path) -> None:
    Embeddings(Words.of(["N1"]), np.zeros((2, 2), dtype=np.float32)).write(tmp_path / "odd", {})
    with pytest.raises(IntegrityError, match=r"odd: 1 ids for 2 vectors\. Make it again: dvc repro --force"):
        Embeddings.read(tmp_path / "odd")


def test_each_distinct_text_is_embedded_once_and_the_order_is_kept() -> None:
    calls: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        calls.append(texts)
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    vectors = vectors_of(["ccc", "a", "ccc", "bb", "a"], embed, dimensions=1, origin="plugins/embedders/x.py")
    assert vectors.tolist() == [[3], [1], [3], [2], [1]]
    assert [sorted(call) for call in calls] == [["a", "bb", "ccc"]]


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        pytest.param(np.zeros((2, 3), dtype=np.float32), "returned float32 (2, 3), 0", id="wrong dimension"),
        pytest.param(np.zeros((3, 2), dtype=np.float32), "returned float32 (3, 2), 0", id="a vector too many"),
        pytest.param(np.zeros((2, 2)), "returned float64 (2, 2), 0", id="wrong precision"),
        pytest.param(np.array([[1, np.nan], [np.inf, 1]], dtype=np.float32), "2 values not finite", id="not finite"),
        pytest.param(np.array([["a", "b"]] * 2), "returned <U1 (2, 2)", id="text"),
        pytest.param(None, "returned object ()", id="nothing"),
    ],
)
def test_unusable_vectors_are_blamed_on_the_embedder(returned: np.ndarray, found: str) -> None:
    with pytest.raises(PluginError) as caught:
        vectors_of(["a", "b"], lambda _: returned, dimensions=2, origin="plugins/embedders/x.py")
    assert str(caught.value).startswith("plugins/embedders/x.py: ")
    assert found in str(caught.value)
    assert str(caught.value).endswith("expected finite float32 (2, 2)")


def test_what_an_embedder_raises_is_told_with_its_line() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        message = "no such word"
        raise KeyError(message)

    with pytest.raises(
        PluginError, match=r"^plugins/embedders/x\.py: KeyError: 'no such word' \(.*test_artifact\.py:\d+\)$"
    ):
        vectors_of(["a"], embed, dimensions=2, origin="plugins/embedders/x.py")


def test_an_embedder_s_own_explanation_is_left_alone() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        message = "no key"
        raise AuthenticationError(message)

    with pytest.raises(AuthenticationError, match=r"^no key$"):
        vectors_of(["a"], embed, dimensions=2, origin="plugins/embedders/x.py")
