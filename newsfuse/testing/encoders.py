"""What an encoder promises."""

import torch
from torch import Tensor, nn

from newsfuse.inputs import Inputs
from newsfuse.plugin import Encoder, Need
from newsfuse.testing import settings
from newsfuse.testing.contract import Check, breach, leave_out
from newsfuse.testing.modules import (
    load_strictly,
    require_close,
    require_finite,
    require_gradients,
    require_module,
    require_parity,
    require_redrawn,
    require_rows_stand_alone,
    require_same_after_saving,
    require_same_seed_same_bits,
    require_vectors,
    started,
    stirred,
)
from newsfuse.testing.tables import Watched, differ
from newsfuse.testing.world import EARLY, fresh, world

DIM = 8


def it_can_be_built(plugin: Encoder) -> None:
    """build(inputs, dim, options) returns a torch.nn.Module, reading only what `needs` declares."""
    require_module(_build(plugin, fresh(world().train)))


def its_prior_is_positive(plugin: Encoder) -> None:
    """`prior` is a weight: more than zero."""
    if not plugin.prior > 0:
        breach(f"prior is {plugin.prior}", "1 for a view that ranks well untrained, .1 for random numbers")


def each_article_gets_a_vector(plugin: Encoder) -> None:
    """forward takes int64 (M,), rows of articles, and returns float32 (M, dim), in train() and in eval()."""
    module, news = _seeded(plugin)
    require_vectors(module.train()(news), len(news), DIM, "in train()")
    require_vectors(module.eval()(news), len(news), DIM, "in eval()")


def every_number_is_finite(plugin: Encoder) -> None:
    """No vector has NaN or infinity, not even that of an article without text, links or category."""
    module, news = _seeded(plugin)
    require_finite(module.train()(news), "the output in train()")
    require_finite(module.eval()(news), "the output in eval()")
    require_finite(stirred(module)(news), "the output with other weights")


def one_article_or_none_is_a_batch_too(plugin: Encoder) -> None:
    """forward takes one article in train() and in eval(), and none in eval()."""
    module, news = _seeded(plugin)
    require_vectors(module.train()(news[:1]), 1, DIM, "for one article in train()")
    require_vectors(module.eval()(news[:1]), 1, DIM, "for one article in eval()")
    require_vectors(module(news[:0]), 0, DIM, "for no article")


def articles_are_encoded_apart(plugin: Encoder) -> None:
    """In eval() the vector of an article depends on that article alone."""
    require_rows_stand_alone(*_seeded(plugin))


def articles_are_told_apart(plugin: Encoder) -> None:
    """Not all articles have the same vector."""
    module, news = _seeded(plugin)
    if len(module.eval()(news).unique(dim=0)) == 1:
        breach("all articles get the same vector", "Read something that differs between articles")


def every_parameter_gets_a_gradient(plugin: Encoder) -> None:
    """Training reaches every parameter."""
    module, news = _seeded(plugin)
    require_gradients(started(module), news)


def start_leaves_a_working_module(plugin: Encoder) -> None:
    """start(), called once on the untrained module, changes weights only: vectors stay finite, names stay the same."""
    module, news = _seeded(plugin)
    if not hasattr(module, "start"):
        leave_out("it has no start()")
    before = {name: value.shape for name, value in module.state_dict().items()}
    output = started(module).eval()(news)
    require_vectors(output, len(news), DIM, "after start()")
    require_finite(output, "the output after start()")
    if before != {name: value.shape for name, value in module.state_dict().items()}:
        remedy = "Make all weights in __init__: start() is not called where trained weights are loaded"
        breach("start() changes names or shapes of the weights", remedy)


def the_same_seed_gives_the_same_numbers(plugin: Encoder) -> None:
    """What is random comes from torch's own generator, which newsfuse seeds."""
    require_same_seed_same_bits(lambda: started(_build(plugin, fresh(world().train))), _all(world().train))


def a_key_decides_what_is_drawn_for_an_article(plugin: Encoder) -> None:
    """redraw(key), if a module has it, decides what train() leaves to chance, for each article by itself."""
    require_redrawn(*_seeded(plugin))


def weights_can_be_saved_and_loaded(plugin: Encoder) -> None:
    """The state dict is all there is to a trained module."""
    module, news = _seeded(plugin)
    torch.manual_seed(1)
    require_same_after_saving(started(module), _build(plugin, fresh(world().train)), news)


def weights_fit_later_articles(plugin: Encoder) -> None:
    """A trained module's weights load into one over more articles, with words and entities that training never saw."""
    module, news = _later(plugin), _all(world().later)
    output = module(news)
    require_vectors(output, len(news), DIM, "over later articles")
    require_finite(output, "the output over later articles")
    require_rows_stand_alone(module, news)


def an_article_keeps_its_vector_when_others_come(plugin: Encoder) -> None:
    """The vector of an article is the same at training and at evaluation, where there are more articles."""
    if Need.GRAPH in plugin.needs:
        leave_out("in the graph new articles are new neighbours")
    before = stirred(started(_seeded(plugin)[0]))(_all(world().train))
    problem = "an article has another vector at evaluation than at training"
    remedy = "What is measured over all articles, such as a mean or word counts, must be saved as a persistent buffer"
    require_close(_later(plugin)(torch.tensor(EARLY)), before, problem, remedy)


def every_need_is_declared_and_read(plugin: Encoder) -> None:
    """`needs` names just what build, start and forward read: what is declared is loaded, and takes its time."""
    tables = Watched(fresh(world().train).tables)
    module = started(_build(plugin, Inputs(world().train.n_articles, tables)))
    module(_all(world().train))
    if undeclared := tables.read - plugin.needs:
        breach(f"reads {_listed(undeclared)} without declaring it", f"Add {_listed(undeclared)} to its needs")
    if unread := plugin.needs - tables.read:
        breach(f"never reads {_listed(unread)}", f"Take {_listed(unread)} out of its needs")


def tables_are_left_as_they_are(plugin: Encoder) -> None:
    """Other encoders read the same tables: nobody writes into them."""
    inputs = fresh(world().train)
    module, news = _build(plugin, inputs), _all(inputs)
    require_gradients(started(module), news)
    stirred(module)(news)
    for need in sorted(plugin.needs):
        if differ(inputs.tables[need], world().train.tables[need]):
            remedy = "Work on a copy (.clone()), and make no nn.Parameter of a table or of a part of one"
            breach(f"writes into inputs.{need}", remedy)


def cpu_and_cuda_agree(plugin: Encoder) -> None:
    """The module can be moved to a GPU and computes the same there."""
    require_parity(*_seeded(plugin))


CHECKS = (
    *settings.CHECKS,
    Check(its_prior_is_positive),
    Check(it_can_be_built, gate=True),
    Check(each_article_gets_a_vector, gate=True),
    Check(every_number_is_finite, gate=True),
    Check(one_article_or_none_is_a_batch_too),
    Check(articles_are_encoded_apart),
    Check(articles_are_told_apart),
    Check(every_parameter_gets_a_gradient),
    Check(start_leaves_a_working_module),
    Check(the_same_seed_gives_the_same_numbers),
    Check(a_key_decides_what_is_drawn_for_an_article),
    Check(weights_can_be_saved_and_loaded),
    Check(weights_fit_later_articles),
    Check(an_article_keeps_its_vector_when_others_come),
    Check(every_need_is_declared_and_read),
    Check(tables_are_left_as_they_are),
    Check(cpu_and_cuda_agree),
)


def _build(plugin: Encoder, inputs: Inputs) -> nn.Module:
    return plugin.build(inputs.only(plugin.needs, f"encoder '{plugin.name}'"), DIM, plugin.params())


def _all(inputs: Inputs) -> Tensor:
    return torch.arange(inputs.n_articles)


def _seeded(plugin: Encoder) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return _build(plugin, fresh(world().train)), _all(world().train)


def _later(plugin: Encoder) -> nn.Module:
    """As evaluation has it: over more articles, with the weights of a module that was trained on the early ones."""
    trained = stirred(started(_seeded(plugin)[0]))
    module = _build(plugin, fresh(world().later))
    load_strictly(module, trained.state_dict())
    return module.eval()


def _listed(needs: set[Need] | frozenset[Need]) -> str:
    return ", ".join(f"Need.{need.name}" for need in sorted(needs))
