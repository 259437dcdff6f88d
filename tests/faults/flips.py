"""Runs embed once for each flipped byte of the ledger: `python flips.py OFFSET...`, in a project that has paid for all.

Prints a line of JSON for each: the exit code (1 for a traceback), whether the ledger's bytes are what they were after
the flip, and the sha256 of the artifact's vectors, if there are any. One process for all, because starting one takes a
hundred times as long as the stage.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import traceback
from pathlib import Path

LEDGER, OUT = Path(".newsfuse/ledger.sqlite"), Path("data/tiny/embeddings")


def main(*offsets: int) -> None:
    whole = LEDGER.read_bytes()
    for offset in offsets:
        damaged = bytearray(whole)
        damaged[offset] ^= 0xFF
        for path in LEDGER.parent.glob("ledger.sqlite-*"):
            path.unlink()
        LEDGER.write_bytes(damaged)
        shutil.rmtree(OUT, ignore_errors=True)
        found = {"offset": offset, "code": exit_code(), "untouched": LEDGER.read_bytes() == damaged}
        sys.stdout.write(f"{json.dumps({**found, 'vectors': sha256(OUT / 'vectors.npy')})}\n")
    LEDGER.write_bytes(whole)


def exit_code() -> int:
    from newsfuse.errors import NewsfuseError  # noqa: PLC0415 - found once the path is set
    from newsfuse.params import load  # noqa: PLC0415
    from stages.embed import embed  # noqa: PLC0415

    try:
        embed(*load(Path()))
    except NewsfuseError as error:
        return error.exit_code
    except Exception:  # noqa: BLE001 - that is what is looked for
        traceback.print_exc()
        return 1
    return 0


def sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    main(*map(int, sys.argv[1:]))
