"""A submission is read as somebody else's: what the competition would not take is refused, by line."""

import io
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsfuse import examination
from newsfuse.errors import DataError
from newsfuse.examination import Lines, examine
from newsfuse.submission import lines, write_zip

LINES = ["7 [2,1,3]", "8 [1]", "7a [1,2]", "9 [10,9,8,7,6,5,4,3,2,1]"]
COUNTS = {"7": 3, "8": 1, "7a": 2, "9": 10}


def behave(folder: Path, counts: dict[str, int], label: str = "") -> Path:
    """behaviors.tsv with so many candidates for each impression."""
    path = folder / "behaviors.tsv"
    shown = (" ".join(f"N{number}{label}" for number in range(count)) for count in counts.values())
    rows = (f"{name}\tU1\t11/15/2019 8:55:22 AM\t\t{each}\n" for name, each in zip(counts, shown, strict=True))
    path.write_text("".join(rows), encoding="utf-8")
    return path


def pack(folder: Path, text: str | bytes, member: str = "prediction.txt") -> Path:
    path = folder / "prediction.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr(member, text)
    return path


def examined(folder: Path, text: str | bytes) -> int:
    return examine(pack(folder, text), behave(folder, COUNTS))


@pytest.fixture(params=[1, 3, 100])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many lines are compared at once, unpacked in small pieces."""
    monkeypatch.setattr(examination, "PART", request.param)
    monkeypatch.setattr(examination, "BLOCK_BYTES", 5)
    return int(request.param)


@pytest.mark.parametrize("label", ["", "-0"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_valid_submission_has_as_many_impressions_as_the_file(tmp_path: Path, label: str, end: str) -> None:
    assert examine(pack(tmp_path, "\n".join(LINES) + end), behave(tmp_path, COUNTS, label)) == 4


@pytest.mark.parametrize(
    ("changed", "line", "told"),
    [
        ([*LINES[:2], *LINES[3:]], 3, "impression '9', but line 3 of .*behaviors.tsv has '7a'"),
        ([LINES[1], LINES[0], *LINES[2:]], 1, "impression '8', but line 1 of .* has '7'; expected every .* once"),
        ([LINES[0], *LINES], 2, "impression '7', but line 2 of .* has '8'"),
        (LINES[:3], 4, "the file ends, but impression '9' of .*behaviors.tsv:4 has no ranks yet"),
        ([], 1, "the file ends, but impression '7'"),
        ([*LINES, "10 [1]"], 5, "a line too many: .*behaviors.tsv has 4 impressions"),
        ([*LINES, ""], 5, "a line too many"),
        ([LINES[0], "", *LINES[2:]], 2, "'' is no line of a submission; expected such as `1 \\[3,1,2\\]`"),
        ([LINES[0], "8", *LINES[2:]], 2, "'8' is no line"),
        ([LINES[0], "8 1", *LINES[2:]], 2, "'8 1' is no line"),
        (["7 [2,1]", *LINES[1:]], 1, "2 ranks for 3 candidates; expected one for each"),
        (["7 [2,1,3,4]", *LINES[1:]], 1, "4 ranks for 3 candidates"),
        (["7 [2,2,3]", *LINES[1:]], 1, "\\[2,2,3\\] are not the ranks 1 to 3, each once"),
        (["7 [0,1,2]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,2,4]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,2,03]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,2,+3]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,2,3.0]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1, 2, 3]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,2,x]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [1,,2]", *LINES[1:]], 1, "are not the ranks"),
        (["7 [99999999999999999999,1,2]", *LINES[1:]], 1, "are not the ranks"),
        ([LINES[0] + "\r", *LINES[1:]], 1, "is no line"),
        (["7\t[2,1,3]", *LINES[1:]], 1, "is no line"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(
    changed: list[str], line: int, told: str, part: int, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"prediction.zip/prediction.txt:{line}: .*{told}"):
        examined(tmp_path, "\n".join(changed) + "\n" * bool(changed))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 130), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 300), st.data())
def test_what_is_written_is_valid_and_with_any_two_ranks_made_equal_is_not(
    tmp_path: Path, counts: list[int], part: int, block: int, data: st.DataObject
) -> None:
    behaviors = behave(tmp_path, {f"i{row}": count for row, count in enumerate(counts)})
    ranks = [np.array(data.draw(st.permutations(range(1, count + 1)))) for count in counts]

    def write(ranks: list[np.ndarray]) -> int:
        found = []
        text = lines([([f"i{row}"], own, np.array([0, len(own)])) for row, own in enumerate(ranks)])
        write_zip(tmp_path / "p.zip", text, lambda draft: found.append(examine(draft, behaviors)))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "PART", part)
        patch.setattr(examination, "BLOCK_BYTES", block)
        assert write(ranks) == len(counts)
        row = data.draw(st.integers(0, len(counts) - 1))
        own = ranks[row] = ranks[row].copy()
        own[data.draw(st.integers(0, len(own) - 1))] = data.draw(st.sampled_from([0, len(own) + 1, 1000]))
        with pytest.raises(DataError, match=rf"prediction.txt:{row + 1}: .* are not the ranks 1 to {len(own)}"):
            write(ranks)


@pytest.mark.parametrize(("member", "told"), [("out/prediction.txt", "holds out/prediction.txt"), ("p.txt", "p.txt")])
def test_an_archive_without_the_file_tells_what_it_holds(member: str, told: str, tmp_path: Path) -> None:
    archive = pack(tmp_path, "\n".join(LINES), member)
    with pytest.raises(DataError, match=f"prediction.zip: .*{told}; expected prediction.txt, in no folder"):
        examine(archive, behave(tmp_path, COUNTS))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prediction.zip").write_text("7 [2,1,3]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"prediction\.zip: is no archive that can be read"):
        examine(tmp_path / "prediction.zip", behave(tmp_path, COUNTS))
    with pytest.raises(DataError, match=r"missing\.zip: cannot be read: No such file"):
        examine(tmp_path / "missing.zip", behave(tmp_path, COUNTS))


@pytest.mark.parametrize("place", [50, 60, 70, -300])
def test_a_damaged_archive_is_refused(place: int, tmp_path: Path) -> None:
    counts = {str(row): 20 for row in range(200)}
    rng = np.random.default_rng(0)
    text = "".join(f"{row} [{','.join(map(str, rng.permutation(20) + 1))}]\n" for row in range(200))
    archive = pack(tmp_path, text)
    damaged = bytearray(archive.read_bytes())
    damaged[place] ^= 0xFF
    archive.write_bytes(damaged)
    with pytest.raises(DataError, match=r"prediction\.zip"):
        examine(archive, behave(tmp_path, counts))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prediction\.txt: is not UTF-8"):
        examined(tmp_path, b"7 [2,1,3]\n\xff [1]\n")


class Endless(io.BytesIO):
    """A file that never comes to the end of its line."""

    asked = 0

    def read(self, size: int | None = -1) -> bytes:
        self.asked += 1
        return b"1," * ((size or 0) // 2)


def test_a_line_without_end_is_refused_before_memory_is_full() -> None:
    file = Endless()
    with pytest.raises(DataError, match=r"p: has a line of more than 16,777,216 bytes; expected such as"):
        Lines(Path("p"), file).take(1)
    assert file.asked < 10
