"""What every plugin promises, whatever its kind: a name and settings that params.yaml can hold."""

import re

from pydantic import ValidationError

from newsfuse.offers import BUILDS, is_kept
from newsfuse.plugin import Encoder, Need, Options, Plugin
from newsfuse.testing.contract import Check, breach

UNKNOWN = "no_such_setting"


def its_name_can_be_used(plugin: Plugin) -> None:
    """A name of letters, digits, - and _, as it stands in params.yaml."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(plugin.name)):
        found = f"{plugin.name!r} cannot be written in params.yaml or on DVC's command line"
        breach(found, "Begin with a letter, and use letters, digits, - and _ only")
    if isinstance(plugin, Encoder) and is_kept(plugin.name):
        found = f"'{plugin.name}' is a name that the model keeps for itself"
        breach(found, f"Choose another, such as 'my_{plugin.name}'")


def it_is_described_in_the_types_asked_for(plugin: Plugin) -> None:
    """It is a newsfuse.Encoder, Fusion, UserEncoder or Embedder itself, and an encoder's `needs` is a frozenset."""
    if type(plugin) not in BUILDS:
        kind = next(each for each in BUILDS if isinstance(plugin, each)).__name__
        found = f"it is of a subclass of newsfuse.{kind}, '{type(plugin).__name__}'"
        breach(found, f"Offer a newsfuse.{kind} itself: what is special about it belongs in build")
    if isinstance(plugin, Encoder) and not isinstance(plugin.needs, frozenset):
        known = ", ".join(f"Need.{need.name}" for need in Need)
        breach(f"needs is {plugin.needs!r}, expected a frozenset of {known}", "Write needs=frozenset({...})")


def its_settings_have_valid_defaults(plugin: Plugin) -> None:
    """`params` is a subclass of newsfuse.Options whose every field has a default that its own rules accept."""
    if not (isinstance(plugin.params, type) and issubclass(plugin.params, Options)):
        breach(f"params is {plugin.params!r}", "Hand over the class itself, a subclass of newsfuse.Options")
    try:
        plugin.params.model_validate(plugin.params().model_dump(by_alias=True))
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        breach(mistakes, "Give every setting a default that is among its allowed values")


def unknown_settings_are_refused(plugin: Plugin) -> None:
    """A misspelt setting is an error, not a default in silence."""
    try:
        plugin.params.model_validate({UNKNOWN: 1})
    except ValidationError as error:
        if any(each["type"] == "extra_forbidden" for each in error.errors()):
            return
    breach("a setting that there is not is taken without a word", 'Leave extra="forbid" as Options has it')


def settings_stay_as_they_are(plugin: Plugin) -> None:
    """Settings are frozen: what params.yaml says is what the run used."""
    if not plugin.params.model_config.get("frozen"):
        breach("the settings can be changed after reading", "Leave frozen=True as Options has it")


CHECKS = (
    Check(its_name_can_be_used),
    Check(it_is_described_in_the_types_asked_for),
    Check(its_settings_have_valid_defaults, gate=True),
    Check(unknown_settings_are_refused),
    Check(settings_stay_as_they_are),
)
