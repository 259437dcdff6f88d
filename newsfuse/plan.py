"""What the embed stage would cost. Reads news, params.yaml and the ledger; needs no key, sends and writes nothing."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from newsfuse.environment import Environment
from newsfuse.errors import NewsfuseError, ParamsError, nearest
from newsfuse.news import News
from newsfuse.paid.jobs import on_order
from newsfuse.paid.ledger import Ledger, location, project
from newsfuse.paid.lot import BYTES_PER_TOKEN
from newsfuse.paid.order import Order
from newsfuse.paid.seller import Seller
from newsfuse.params import FILE, Embed, Params, load
from newsfuse.plugin import Cost, Embedder, Mode
from newsfuse.registry import Registry
from newsfuse.terminal import dollars, show, tell

SPLITS = ("train", "dev")
COUNTS = ("articles", "distinct texts", "already paid", "to pay", "tokens", "dollars")
ESTIMATE = f"a token is {BYTES_PER_TOKEN} bytes of UTF-8, rounded up for each text; what is billed comes back exact"


@dataclass(frozen=True)
class Wish:
    """What the command line asks for instead of what params.yaml says; None is as in params.yaml."""

    provider: str | None = None
    model: str | None = None
    dimensions: int | None = None
    mode: Mode | None = None

    def settings(self) -> Mapping[str, object]:
        """As in params.yaml."""
        given = {"provider": self.provider, "model": self.model, "dimensions": self.dimensions, "mode": self.mode}
        return {name: value for name, value in given.items() if value is not None}

    def command(self) -> str:
        """What to run to get it."""
        changes = "".join(f" -S embed.{name}={value}" for name, value in self.settings().items())
        return f"dvc exp run{changes}" if changes else "dvc repro embed"


@dataclass(frozen=True)
class Goods:
    """The articles that are planned for, and where they stand."""

    news: News
    files: Sequence[Path]
    labels: Sequence[str]
    origin: np.ndarray
    """int64 (articles,): the first of the files that has the article."""

    @classmethod
    def read(cls, files: Sequence[Path], labels: Sequence[str]) -> "Goods":
        """The articles of all files, as the embed stage reads them. Raises DataError."""
        news = News.read(*files)
        origin = np.zeros(len(news), np.int64)
        for number in reversed(range(len(files)) if len(files) > 1 else ()):
            origin[news.rows(News.read(files[number]).ids).to_numpy()] = number
        return cls(news, files, labels, origin)


@dataclass(frozen=True)
class Line:
    """What one file adds to those before it."""

    label: str
    articles: int
    texts: int
    to_pay: int
    """Texts that have no vector and are not on order."""
    tokens: int
    """Of the texts to pay, by estimate."""


@dataclass(frozen=True)
class Quote:
    """What an embedder would cost."""

    embedder: Embedder
    seller: Seller
    lines: Sequence[Line]
    on_order: int
    """Texts of jobs that have not been collected; they count as paid."""

    @property
    def to_pay(self) -> int:
        """Texts."""
        return sum(line.to_pay for line in self.lines)

    @property
    def tokens(self) -> int:
        """Of the texts to pay, by estimate."""
        return sum(line.tokens for line in self.lines)


def plan(wish: Wish, files: Sequence[Path], *, compare: bool) -> None:
    """Print what it would cost to embed the files, or else the data set of this project. Raises NewsfuseError."""
    root = Path(os.path.relpath(project(Path.cwd())))
    params, registry = load(root)
    data = root / "data" / params.dataset
    found = files or [data / split / "news.tsv" for split in SPLITS]
    goods = Goods.read(found, [str(path) for path in files] or SPLITS)
    if compare and (given := wish.settings().keys() - {"dimensions"}):
        message = f"--compare shows all of them; it does not go with {', '.join(f'--{name}' for name in sorted(given))}"
        raise ParamsError(message)
    if compare:
        _compare(params, registry, wish, goods)
    else:
        _one(wanted(params, registry, wish), registry, wish, goods)


def wanted(params: Params, registry: Registry, wish: Wish) -> Params:
    """params.yaml with the wish put in. Raises ParamsError for what the embedder does not know."""
    if wish.provider and (mistake := registry.unknown(Embedder, wish.provider, "--provider")):
        raise ParamsError(mistake)
    provider = wish.provider or params.embed.provider
    kept = params.embed.model if provider == params.embed.provider else None  # a model is one of its provider's
    embed = Embed.model_validate({**params.embed.model_dump(), "model": kept, **wish.settings()})
    embedder = registry.load(Embedder, provider)
    if embed.model and not embedder.default_model:
        message = f"--model: '{provider}' has no models to choose from, found '{embed.model}'"
        raise ParamsError(message)
    if embed.mode not in embedder.modes:
        where = "--mode" if wish.mode else f"{FILE}: embed.mode"
        message = f"{where}: '{provider}' has no mode '{embed.mode}'. Known: {', '.join(sorted(embedder.modes))}"
        raise ParamsError(message)
    return params.model_copy(update={"embed": embed})


def quote(params: Params, registry: Registry, goods: Goods) -> Quote:
    """What the embedder that `params` choose would cost."""
    seller = Seller.of(params, registry)
    order = Order.of(goods.news, params.embed.texts, seller, goods.files)
    with Ledger.reading(location(Environment.read())) as ledger:
        missing, ordered = ledger.missing(order.lot.keys), on_order(ledger, seller.space)
    to_pay = np.zeros(len(order.lot), np.bool_)
    to_pay[[text for text in missing if order.lot.keys[text] not in ordered]] = True
    lines = list(_lines(goods, order, to_pay))
    return Quote(registry.load(Embedder, params.embed.provider), seller, lines, len(missing) - int(to_pay.sum()))


def _lines(goods: Goods, order: Order, to_pay: np.ndarray) -> Iterator[Line]:
    origin = np.full(len(order.lot), len(goods.files))  # of a text: the first file with an article that has it
    np.minimum.at(origin, order.rows, np.repeat(goods.origin, order.views))
    for number, label in enumerate(goods.labels):
        here = origin == number
        lot = order.lot.at(np.flatnonzero(here & to_pay).tolist())
        yield Line(label, int((goods.origin == number).sum()), int(here.sum()), len(lot), lot.tokens)


# --- one embedder


def _one(params: Params, registry: Registry, wish: Wish, goods: Goods) -> None:
    embedder = registry.load(Embedder, params.embed.provider)
    if embedder.cost is Cost.NOTHING:
        tell(f"{embedder.name} costs nothing and is made anew where it is needed: nothing to pay, nothing to keep")
        tell("What others would cost: newsfuse plan --compare")
        return
    environment = Environment.read()
    offer = quote(params, registry, goods)
    _require_price(offer, environment, "--model" if wish.model else f"{FILE}: embed.model")
    budget = offer.seller.budget(environment, params.embed.mode)
    show(_table(offer, budget.usd_per_token))
    usd = offer.tokens * budget.usd_per_token
    notes = {
        "Estimate": ESTIMATE,
        "Price": _price(offer, environment, params.embed.mode),
        "Budget": _budget(usd, environment.budget_usd),
        "Ledger": _ledger(environment),
    }
    if offer.on_order:
        notes["On order"] = f"{offer.on_order:,} of the texts counted as paid are in open jobs: newsfuse ledger status"
    if goods.labels == SPLITS:
        notes["Next"] = wish.command()
    tell("\n".join(f"{name + ':':10}{text}" for name, text in notes.items()))


def _table(offer: Quote, usd_per_token: float) -> Table:
    table = Table("news", title=str(offer.seller.space), title_justify="left")
    for name in COUNTS:
        table.add_column(name, justify="right")
    for line in offer.lines:
        table.add_row(*_cells(line, usd_per_token))
    if len(offer.lines) > 1:
        table.add_section()
        sums = (sum(getattr(line, name) for line in offer.lines) for name in ("articles", "texts", "to_pay", "tokens"))
        table.add_row(*_cells(Line("total", *sums), usd_per_token))
    return table


def _cells(line: Line, usd_per_token: float) -> list[str]:
    counts = (line.articles, line.texts, line.texts - line.to_pay, line.to_pay, line.tokens)
    return [line.label, *(f"{count:,}" for count in counts), dollars(line.tokens * usd_per_token)]


def _require_price(offer: Quote, environment: Environment, where: str) -> None:
    """Raise ParamsError for a model whose price is not known, if the embedder knows those of others."""
    known, model = offer.embedder.models, offer.seller.space.model
    if offer.seller.service.usd_per_million_tokens is None and environment.usd_per_million_tokens is None and known:
        names = f"{nearest(model, known)} Known: {', '.join(known)}"
        say = "Or say the price: export NEWSFUSE_USD_PER_MILLION_TOKENS=0.02"
        message = f"{where}: the price of '{model}' is not known.{names}. {say}"
        raise ParamsError(message)


def _price(offer: Quote, environment: Environment, mode: Mode) -> str:
    service, said = offer.seller.service, environment.usd_per_million_tokens
    if offer.embedder.cost is Cost.TIME:
        return "nothing but time on this machine"
    source = offer.embedder.price_source or offer.seller.origin
    full, source = (
        (service.usd_per_million_tokens, source) if said is None else (said, "NEWSFUSE_USD_PER_MILLION_TOKENS")
    )
    share = f", {service.batch_discount:g} of it in batch mode" if mode is Mode.BATCH else ""
    return f"${full:g} per million tokens{share} ({source})"


def _budget(usd: float, limit_usd: float) -> str:
    told = f"${limit_usd:g} for one run (NEWSFUSE_BUDGET_USD)"
    if usd <= limit_usd:
        return told
    allow = f"export NEWSFUSE_BUDGET_USD={math.ceil(usd * 110) / 100:g}"
    return f"{told}: too little, nothing would be sent. Allow it: {allow}"


def _ledger(environment: Environment) -> str:
    path = location(environment)
    return f"{path}{'' if path.exists() else ' (not there yet)'}"


# --- all of them


def _compare(params: Params, registry: Registry, wish: Wish, goods: Goods) -> None:
    dimensions = wish.dimensions or params.embed.dimensions
    table = Table(title=f"{len(goods.news):,} articles, {dimensions} dimensions", title_justify="left")
    table.add_column("provider and model", overflow="fold")
    for name in ("to pay", "tokens", "$ per\nmillion", "dollars", "in batch\nmode"):
        table.add_column(name, justify="right")
    broken = []
    for name in registry.names(Embedder):
        try:
            for row in _offers(params, registry, replace(wish, provider=name, mode=Mode.DIRECT), goods):
                table.add_row(*row)
        except NewsfuseError as error:
            broken.append(f"{name}: {error}")
    show(table)
    tell("\n".join([f"Estimate: {ESTIMATE}", *broken]))


def _offers(params: Params, registry: Registry, wish: Wish, goods: Goods) -> Iterator[Sequence[str]]:
    name = str(wish.provider)
    embedder = registry.load(Embedder, name)
    if embedder.cost is Cost.NOTHING:
        yield (name, "", "", "", dollars(0))
        return
    chosen = params.embed.model if name == params.embed.provider else None
    for model in dict.fromkeys(filter(None, (*embedder.models, chosen, embedder.default_model))):
        yield _offer(quote(wanted(params, registry, replace(wish, model=model)), registry, goods))


def _offer(offer: Quote) -> Sequence[str]:
    service, space = offer.seller.service, offer.seller.space
    price = service.usd_per_million_tokens
    row = [f"{space.provider}\n  {space.model}", f"{offer.to_pay:,}", f"{offer.tokens:,}"]
    if price is None:
        return [*row, "not known"]
    usd = offer.tokens * price / 1e6
    batch = dollars(usd * service.batch_discount) if Mode.BATCH in offer.embedder.modes else ""
    return [*row, f"{price:g}", dollars(usd), batch]
