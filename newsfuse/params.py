"""params.yaml: what a user sets, checked as a whole before any work is done."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError, nearest
from newsfuse.plugin import Embedder, Encoder, Fusion, Mode, Plugin, UserEncoder
from newsfuse.registry import Registry

FILE = Path("params.yaml")


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        message = "each may be named once"
        raise ValueError(message)
    return values


def _some(values: tuple[str, ...]) -> tuple[str, ...]:
    # not Field(min_length=1), which calls a list of one wrong name too short as well
    if not values:
        message = "at least one is needed"
        raise ValueError(message)
    return values


class Section(BaseModel):
    """Part of params.yaml: no other keys than these, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Embed(Section):
    """What the text of an article becomes. But for `mode`, only what changes a vector stands here."""

    provider: str
    model: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    dimensions: int = Field(gt=0, strict=True)  # else true would be a dimension
    mode: Mode = Mode.DIRECT
    fields: Annotated[tuple[Literal["title", "abstract"], ...], AfterValidator(_some), AfterValidator(_distinct)]
    views: Literal["together", "apart"] = "together"

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The fields of each of the texts that an article is: one of all fields, or one of each."""
        return (self.fields,) if self.views == "together" else tuple((field,) for field in self.fields)


class Graph(Section):
    """Which relations the news graph has."""

    relations: Annotated[tuple[Literal["entity", "category", "co_click"], ...], AfterValidator(_distinct)]


class Model(Section):
    """Sizes of the model."""

    dim: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    history: int = Field(gt=0)


class Train(Section):
    """How the model is trained."""

    pretrain_epochs: int = Field(ge=0)
    pretrain_negatives: int = Field(gt=0)
    epochs: int = Field(ge=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    negatives: int = Field(gt=0)
    loss: Literal["softmax", "binary"]
    label_smoothing: float = Field(ge=0, lt=1)
    clip_norm: float = Field(gt=0)
    patience: int = Field(gt=0)
    precision: Literal["float32", "bfloat16"]
    refit: StrictBool
    processes: int = Field(gt=0)


class Evaluate(Section):
    """How dev is scored."""

    unknown_candidates: Literal["last", "drop"]
    cold_mask: float = Field(ge=0, le=1, strict=True)  # else true would hide everything

    @property
    def drop_unknown(self) -> bool:
        """Whether candidates without a line in news.tsv count in no metric."""
        return self.unknown_candidates == "drop"


class Packages(Section):
    """Which installed packages may bring plugins: distribution name to exact version."""

    plugin_packages: dict[str, str]


class Params(Packages):
    """All of params.yaml."""

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = Field(ge=0)
    fusion: str
    user_encoder: str
    encoders: dict[str, StrictBool]  # "off" in quotes would pass for on when we ask whether any is
    embed: Embed
    graph: Graph
    model: Model
    train: Train
    evaluate: Evaluate
    options: dict[str, dict[str, Any]]

    @property
    def chosen_encoders(self) -> tuple[str, ...]:
        """The encoders that are switched on, sorted: the order of the views."""
        return tuple(sorted(name for name, on in self.encoders.items() if on))

    @property
    def chosen(self) -> tuple[tuple[type[Plugin], str], ...]:
        """Kind and name of every plugin that this run uses."""
        encoders = ((Encoder, name) for name in self.chosen_encoders)
        return ((Embedder, self.embed.provider), *encoders, (Fusion, self.fusion), (UserEncoder, self.user_encoder))


def load(root: Path, file: Path | None = None) -> tuple[Params, Registry]:
    """params.yaml of the project at `root` and the plugins it may use, everything checked.

    `file`: another one in its place, which messages call params.yaml as well. Raises ParamsError with all mistakes at
    once, PluginError for a chosen plugin that cannot be loaded and for a listed package that is not installed in the
    listed version.
    """
    values = _read(file or root / FILE)
    registry = _registry(root, values)
    mistakes = _mistakes(Params, values, "")
    if not any(each.startswith(f"{FILE}: plugin_packages.") for each in mistakes):  # else what they offer is not known
        mistakes += _name_mistakes(values, registry)
    if not mistakes:
        mistakes = _option_mistakes(Params.model_validate(values), registry)
    if mistakes:
        raise ParamsError("\n".join(mistakes))
    return Params.model_validate(values), registry


def plugins(root: Path) -> Registry:
    """The plugins that the project at `root` may use. Raises as `load` does for its packages."""
    return _registry(root, _read(root / FILE))


def packages(root: Path) -> dict[str, str]:
    """The installed plugin packages that params.yaml lets load, by version; {} where that part of it is wrong."""
    return _packages(_read(root / FILE))


def package_mistakes(root: Path) -> list[str]:
    """What `load` says to that part of params.yaml, [] where it is right."""
    return _mistakes(Packages, _listed(_read(root / FILE)), "")


def options(registry: Registry, kind: type[Plugin], name: str, given: Mapping[str, Mapping[str, Any]]) -> BaseModel:
    """The settings of one plugin, as its own model; `given` are all options by plugin name.

    A fusion and a user encoder may share a name, and then `options.<name>` holds the settings of both.
    Raises ParamsError for a setting that is none of theirs.
    """
    model, own = registry.load(kind, name).params, dict(given.get(name, {}))
    known = sorted(model.model_fields)
    if not own.keys() <= model.model_fields.keys():  # only then load the namesakes: a broken one hurts nobody else
        known = sorted({field for plugin in registry.namesakes(name, kind) for field in plugin.params.model_fields})
        own = {key: value for key, value in own.items() if key not in known or key in model.model_fields}
    if mistakes := _mistakes(model, own, f"options.{name}.", known):
        raise ParamsError("\n".join(mistakes))
    return model.model_validate(own)


def _registry(root: Path, values: Mapping[str, Any]) -> Registry:
    return Registry(root / "plugins", _packages(values), shut=Environment.read().no_plugins)


def _packages(values: Mapping[str, Any]) -> dict[str, str]:
    listed = _listed(values)
    return {} if _mistakes(Packages, listed, "") else Packages.model_validate(listed).plugin_packages


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in Packages.model_fields}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path.name}: not found in {path.parent.resolve()}; run this in the root of a newsfuse project"
        raise ParamsError(message) from error
    except (yaml.YAMLError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a date such as 2024-13-45
        message = f"{path.name}: not readable as YAML: {error}"
        raise ParamsError(message) from error
    if not isinstance(values, dict):
        message = f"{path.name}: holds {values!r}, expected lines such as 'dataset: tiny'"
        raise ParamsError(message)
    return values


def _mistakes(model: type[BaseModel], values: object, where: str, known: list[str] | None = None) -> list[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [_explain(model, where, dict(mistake), known) for mistake in error.errors()]
    return []


def _explain(model: type[BaseModel], where: str, mistake: dict[str, Any], known: list[str] | None) -> str:
    path = where + ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = known or _keys(model, mistake["loc"][:-1])
        close = nearest(str(mistake["loc"][-1]), known)
        return f"{FILE}: {path}: no such setting.{close} Known: {', '.join(known) or 'none'}"
    if mistake["type"] == "string_type" and path.startswith("plugin_packages."):
        remedy = "write the exact version, in quotes, or YAML takes it for something else"
        return f"{FILE}: {path}: found {mistake['input']!r}, which is no text: {remedy}"
    if mistake["type"] == "missing":
        return f"{FILE}: {path}: is missing"
    return f"{FILE}: {path or 'the file'}: {mistake['msg']}, found {mistake['input']!r}"


def _keys(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def _name_mistakes(raw: dict[str, Any], registry: Registry) -> list[str]:
    """Of the raw file, so that a wrong name is reported beside a wrong number; what is no name is passed over."""
    encoders, embed = (raw[key] if isinstance(raw.get(key), dict) else {} for key in ("encoders", "embed"))
    named: list[tuple[str, type[Plugin] | None, object]]
    named = [("embed.provider", Embedder, embed.get("provider")), ("fusion", Fusion, raw.get("fusion"))]
    named.append(("user_encoder", UserEncoder, raw.get("user_encoder")))
    named += [(f"encoders.{name}", Encoder, name) for name in encoders]
    options = raw.get("options")
    named += [(f"options.{name}", None, name) for name in (options if isinstance(options, dict) else {})]
    if registry.shut_out:  # what is off, and its options, may be a package's that is not looked at
        named = [each for each in named if each[1] and (each[1] is not Encoder or encoders[each[2]])]
    unknown = [registry.unknown(kind, name, where) for where, kind, name in named if isinstance(name, str)]
    unknown.append(_unlinked(embed.get("provider"), registry))
    return [f"{FILE}: {mistake}" for mistake in unknown if mistake] + _none_on(encoders)


def _unlinked(provider: object, registry: Registry) -> str | None:
    unlinked = registry.unlinked(provider) if isinstance(provider, str) else None
    return unlinked and f"embed.provider: {unlinked}"


def _none_on(encoders: Mapping[str, object]) -> list[str]:
    if any(encoders.values()):
        return []
    off = ", ".join(sorted(map(str, encoders))) or "none is named"
    remedy = "Switch one on: -S encoders.llm=true"
    return [f"{FILE}: encoders: at least one encoder is needed, all are off ({off}). {remedy}"]


def _option_mistakes(params: Params, registry: Registry) -> list[str]:
    mistakes = []
    for kind, name in params.chosen:
        try:
            options(registry, kind, name, params.options)
        except ParamsError as error:
            mistakes += [line for line in str(error).splitlines() if line not in mistakes]
    embedder = registry.load(Embedder, params.embed.provider)
    if params.embed.model and not embedder.default_model:
        no_models = f"'{embedder.name}' has no models to choose from, found {params.embed.model!r}. Set it to null"
        mistakes.append(f"{FILE}: embed.model: {no_models}")
    if params.embed.mode not in embedder.modes:
        known = ", ".join(sorted(embedder.modes))
        mistakes.append(f"{FILE}: embed.mode: '{embedder.name}' has no mode '{params.embed.mode}'. Known: {known}")
    return mistakes
