"""What `newsfuse check-plugin` prints: a line for each promise, and what the plugin takes beside its siblings."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from newsfuse.blame import is_its_own
from newsfuse.errors import PluginError
from newsfuse.params import FILE
from newsfuse.plugin import Embedder
from newsfuse.terminal import tell, width
from newsfuse.testing.contract import Check, Result, State
from newsfuse.testing.cost import Module, bill, it_works_through_ten_thousand_articles
from newsfuse.testing.found import Found, Kinds, found, siblings
from newsfuse.testing.kit import kind_of, results, title

WIDEST = 80
INDENT = " " * 11


def check(name: str, kinds: Kinds, root: Path) -> None:
    """Print what comes of every check of every plugin that `name` means, seen from the folder `root`.

    Raises ParamsError where it means none, PluginError where one cannot be loaded or breaks a promise.
    """
    wrong = [sentence for each in found(name, kinds, root) if (sentence := _checked(each, root))]
    if wrong:
        raise PluginError("\n".join(wrong))


def _checked(each: Found, root: Path) -> str:
    """What to say of it in the end, "" where all is well."""
    try:
        plugin = each.load()
    except PluginError as error:  # others of the same name may be sound
        return str(error)
    tell(f"{title(plugin)} ({each.origin})")
    last = () if isinstance(plugin, Embedder) else (Check(it_works_through_ten_thousand_articles),)
    done = []
    for result in results(plugin, last):
        tell(_line(result))
        done.append(result)
    if not isinstance(plugin, Embedder) and done[-1].state is State.OK:
        tell("\n".join(_costs(plugin, root)))
    broken = sum(result.state is State.BROKEN for result in done)
    return f"{title(plugin)} breaks {broken} of {len(done)} promises" if broken else ""


def _line(result: Result) -> str:
    head = f"  {result.state:<8} {result.promise}"
    if result.state is State.SKIPPED:
        return _filled(f"{head}: {result.found}")
    return "\n".join([head, *(_filled(INDENT + text) for text in (result.found, result.remedy) if text)])


def _filled(text: str) -> str:
    # a path or a command is not broken: it is there to be copied
    return textwrap.fill(
        text, min(width(), WIDEST), subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )


def _costs(plugin: Module, root: Path) -> Iterator[str]:
    yield f"  {'10,000 articles, forwards and backwards':<42}{'seconds':>9}{'MB':>9}{'to build':>11}"
    yield _row(plugin)
    if not (root / FILE).is_file():
        yield "  outside a newsfuse project there are no built-ins to compare with"
    for other in siblings(kind_of(plugin), root):
        if other.name != plugin.name and not isinstance(other, Embedder):
            yield _row(other)


def _row(plugin: Module) -> str:
    try:
        taken = bill(plugin)
    except BaseException as error:
        if not is_its_own(error):
            raise
        return f"  {plugin.name:<42}{'fails':>9}"
    return f"  {plugin.name:<42}{taken.work_s:>9.2f}{taken.peak_mb:>9.1f}{taken.build_s:>9.2f} s"
