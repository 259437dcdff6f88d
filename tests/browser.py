"""A page in a real browser: Debian's Chromium without a window, driven by selenium over its own protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
"""No sandbox: Chromium refuses to start with one as root, as which a container runs. It sees our own pages only."""
LOGS = {"browser": "ALL", "performance": "ALL"}
WANTED = "TESTS_BROWSER"
"""`required`: a missing browser is a failure, no reason to skip. Not NEWSFUSE_...: newsfuse refuses unknown ones."""


@dataclass(frozen=True)
class Browser:
    """A started Chromium."""

    driver: Chrome

    def open(self, url: str, *, width: int = 1000, dark: bool = False, media: str = "screen") -> None:
        """Show a page as a window of that width (CSS pixels) does; what was logged before is forgotten."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": scheme})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        for log in LOGS:
            self._log(log)
        self.driver.get(url)

    def value(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page has
        """What a JavaScript expression is in the page, even in one that may run no script of its own."""
        return self.driver.execute_script(f"return {expression}")

    def console(self) -> list[str]:
        """What the page has written to the console, its errors and refusals."""
        return [entry["message"] for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """The addresses that were asked for since the page was opened, that of the page among them."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since this was last asked."""
        log: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call] # selenium has it so
        return log

    def photograph(self, path: Path) -> None:
        """The whole page as a PNG."""
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in the folder `profile`. Skips the test where there is none."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if absent := [name for name, path in programs.items() if path is None]:
        _without(f"not installed: {', '.join(absent)} (Debian: apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = str(programs["chromium"])
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", LOGS)
    driver = Chrome(options=options, service=Service(programs["chromedriver"]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _without(reason: str) -> None:
    if os.environ.get(WANTED) == "required":
        pytest.fail(f"{WANTED} is set, and a browser is {reason}")
    pytest.skip(reason)
