"""A provider on this machine for scripts/image-test: it counts what it bills, and holds its second answer back.

    python shop.py FOLDER       # FOLDER has tests/openai_server.py, too

writes into FOLDER: `port`, then `asked` when the second request has come, and after each answer `bill.json`. The second
answer waits for a file called `go`, and the shop closes at a file called `closed`.
"""

import json
import sys
import time
from pathlib import Path

from openai_server import OpenAIServer


def main(folder: Path) -> None:
    """Sell until told to close."""
    with OpenAIServer("ok") as server:
        server.before = lambda number: wait(folder) if number == 2 else None  # noqa: PLR2004 - one is paid, one in flight
        server.after = lambda _: write(folder / "bill.json", bill(server))
        write(folder / "port", str(server.http.server_address[1]))
        while not (folder / "closed").exists():
            time.sleep(0.2)


def bill(server: OpenAIServer) -> str:
    """What has been billed, and how much of it more than once."""
    return json.dumps({"texts": server.billed, "twice": server.twice})


def wait(folder: Path) -> None:
    """Say that the request has come; until it may be answered."""
    write(folder / "asked", "")
    while not (folder / "go").exists():
        time.sleep(0.05)


def write(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
