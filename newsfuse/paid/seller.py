"""The chosen embedder, if its vectors cost something: its service, and the space of its vectors."""

from dataclasses import dataclass

from newsfuse.blame import blame
from newsfuse.environment import Environment
from newsfuse.errors import PluginError
from newsfuse.news import TEXT_VERSION
from newsfuse.paid.budget import Budget, price
from newsfuse.paid.space import Space
from newsfuse.params import Params, options
from newsfuse.plugin import Cost, Embedder, Mode
from newsfuse.registry import Registry
from newsfuse.service import Service


@dataclass(frozen=True)
class Seller:
    """A chosen embedder that goes through the ledger."""

    service: Service
    space: Space
    origin: str
    cost: Cost = Cost.MONEY

    @classmethod
    def of(cls, params: Params, registry: Registry) -> "Seller":
        """The one that `params` choose. Raises PluginError if it offers no service, and what its `build` raises."""
        wanted = params.embed
        embedder, origin = registry.load(Embedder, wanted.provider), registry.origin(Embedder, wanted.provider)
        own, model = options(registry, Embedder, embedder.name, params.options), wanted.model or embedder.default_model
        with blame(origin):
            service = embedder.build((), model, wanted.dimensions, own)
        if not isinstance(service, Service):
            message = (
                f"{origin}: its cost is {embedder.cost}, so build must return a newsfuse.Service, found {service!r}"
            )
            raise PluginError(message)
        chosen = own.model_dump(mode="json")
        space = Space(embedder.name, service.host, model or "", wanted.dimensions, TEXT_VERSION, chosen)
        return cls(service, space, origin, embedder.cost)

    def budget(self, environment: Environment, mode: Mode) -> Budget:
        """Of one run. Raises ParamsError where the price is not known."""
        known, said = self.service.usd_per_million_tokens, environment.usd_per_million_tokens
        if self.cost is Cost.TIME:
            known, said = 0.0, None  # what is said is another provider's price
        share = self.service.batch_discount if mode is Mode.BATCH else 1.0
        return Budget(environment.budget_usd, share * price(known, said, str(self.space)))
