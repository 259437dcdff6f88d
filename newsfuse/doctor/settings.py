"""params.yaml, the plugins that it asks for, and what the chosen embedder would still cost."""

from collections.abc import Iterator

from newsfuse.doctor.finding import Finding, failure, ok, warning
from newsfuse.doctor.tree import SPLITS, Tree
from newsfuse.environment import Environment
from newsfuse.errors import AuthenticationError, ParamsError, QuotaError
from newsfuse.paid.seller import Seller
from newsfuse.params import Params
from newsfuse.plan import Goods, Quote, quote
from newsfuse.plugin import Cost, Embedder
from newsfuse.registry import noun
from newsfuse.terminal import dollars


def settings(tree: Tree) -> Iterator[Finding]:
    """Every mistake of params.yaml by itself. Raises PluginError for a chosen plugin that is broken."""
    Environment.read()
    try:
        params, registry = tree.loaded
    except ParamsError as error:
        for mistake in str(error).splitlines():
            yield failure(ParamsError, mistake)
        return
    yield ok(f"params.yaml: all settings are known; the data set is {params.dataset}")
    chosen = ", ".join(f"{noun(kind)} {name}" for kind, name in params.chosen)
    yield ok(f"plugins load: {chosen}")
    if registry.shut_out:
        yield ok(f"packages that are not looked at, as NEWSFUSE_NO_PLUGINS says: {', '.join(registry.shut_out)}")


def bill(tree: Tree) -> Iterator[Finding]:
    """Whether the next embed stage would have to pay, and then whether it could. The key itself is never looked at."""
    if tree.registry is None or tree.params is None:
        return
    embedder = tree.registry.load(Embedder, tree.params.embed.provider)
    if embedder.cost is Cost.NOTHING:
        yield ok(f"{embedder.name} costs nothing: no key is needed")
    elif tree.missing:
        yield ok(f"{embedder.name}: what it would cost is known once the data set is there")
    else:
        yield from _offered(quote(tree.params, tree.registry, Goods.read(tree.news_files, SPLITS)), tree.params)


def _offered(offer: Quote, params: Params) -> Iterator[Finding]:
    name, texts = offer.embedder.name, sum(line.texts for line in offer.lines)
    if offer.to_pay == 0:
        waiting = f", {offer.on_order:,} of them are on order" if offer.on_order else ""
        yield ok(f"{name}: all {texts:,} texts are in the ledger{waiting}: nothing is to be paid")
    elif offer.seller.cost is Cost.TIME:
        yield ok(f"{name} runs on this machine: {offer.to_pay:,} of {texts:,} texts have no vector yet")
    else:
        yield from _to_pay(offer, params)


def _to_pay(offer: Quote, params: Params) -> Iterator[Finding]:
    budget = offer.seller.budget(Environment.read(), params.embed.mode)
    usd = dollars(budget.forecast_usd(offer.tokens))
    told = f"{offer.embedder.name}: {offer.to_pay:,} texts are to be paid, about {usd}"
    if without := _key(offer.seller):
        fix = "export the key, or take the free embedder: dvc exp run -S embed.provider=lsa"
        yield warning(f"{told}, and {without.partition('. ')[0]}", fix)
    else:
        yield ok(f"{told}; the key is present")
    try:
        budget.require(offer.tokens)
    except QuotaError as error:
        yield warning(f"{offer.embedder.name}: {error}", "")


def _key(seller: Seller) -> str:
    """What the plugin says about a key that is not there; "" where it misses none.

    It is asked for a connection, which is not opened: whoever looks for the key only then says nothing here.
    """
    try:
        seller.service.connect()
    except AuthenticationError as error:
        return str(error)
    return ""
