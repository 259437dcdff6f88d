"""A synthetic data set in MIND's format, of which it is known what each source of information is worth.

Every article has a topic, which its words show, and a community, which its entities show; neither says anything
about the other. Some articles are popular. Users like a few topics and a few communities, and click accordingly. So
text alone, entities alone and popularity alone each explain a part of the clicks, and all together explain most.

The same arguments give the same bytes on any machine: what is written are integers, words, and the outcomes of
comparisons between random numbers, never the last digits of a sum whose order a machine may choose.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import log10
from pathlib import Path

import numpy as np

from newsfuse.artifact import unwritten
from newsfuse.csr import gather, offsets, owners

TOPICS, COMMUNITIES = 9, 6
LIKED_TOPICS, LIKED_COMMUNITIES = 2, 2
"""Of a user: few enough to have a taste, enough that an impression usually shows something of it."""

# logits: exp(strength) is how much more likely a click becomes; chosen so that on the default set a plain cosine
# of texts with the history ranks dev with an AUC of about .66, of entities .67, their sum .73 (six seeds)
TOPIC_STRENGTH = 4.5
COMMUNITY_STRENGTH = 4.5
POPULAR_STRENGTH = 2.5
POPULAR = 0.2
"""Share of articles that are popular with everybody."""

FIRST_DAY = datetime(2019, 11, 9)  # noqa: DTZ001 - MIND's times have no zone; its own training week begins here
TRAIN_DAYS = 5
ARCHIVE, DAILY = 0.35, 0.09
"""Shares of articles: those older than the first day, then those of each training day; the rest is dev's own."""
OLD = 0.25
"""Share of candidates that are from an earlier day, so that few of dev's were seen in training."""
OLD_DAYS = 3
"""So many days back at most: the day before dev validates, and only what is older is seen in training."""
DEV = 0.3
"""Share of impressions that are dev's, as in MIND-small."""
RECURRING = 0.6
"""Train has the first 60 % of users and dev the last: some are new in dev, as most are in MIND-small."""
NEWCOMERS = 0.04
"""Share of users without a history."""
PASSED_BY = 6
"""Articles a user saw per click of the history: as picky as with the candidates of an impression."""

TITLE, ABSTRACT = (6, 12), (20, 30)
"""Fewest and most words."""
TOPIC_WORDS, COMMON_WORDS = 40, 200
ON_TOPIC = 0.7
"""Share of words that are the topic's own: enough to find the topic, not to read it off a single word."""
LABELLED = 0.5
"""Share of articles whose category is that of their topic, the others' is any: categories say little."""
CATEGORIES = ("news", "sports", "lifestyle")
SUBCATEGORIES = ("newsworld", "newspolitics", "football", "tennis", "lifestylehealth", "lifestylefood")
"""Each topic belongs to one of these, and these to the categories, in equal shares and in order."""
EMPTY_ABSTRACT, NO_ENTITIES, BROKEN, QUOTED = 0.1, 0.1, 0.015, 0.01
"""Shares of articles with each of the oddities that MIND has: the last is a title that begins with a quote."""

ARTICLES_PER_ENTITY = 6
MOST_ENTITIES = 4
"""Of an article."""
STRAY = 0.05
"""Share of mentions that are of any entity, whatever the community."""
WITHOUT_VECTOR = 0.05
"""Share of entities that entity_embedding.vec lacks."""
WIDTH = 100
CENTRE, SPREAD = 1000, 800
"""Vectors are whole ten-thousandths, evenly spread around the community's centre: two of the same community have a
cosine of about 1000^2 / (1000^2 + 800^2) = .6, of two communities 0."""

SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
SECONDS = 24 * 60 * 60
CHUNK = 10_000
"""Impressions, or users, that are drawn at a time: what bounds the memory."""


@dataclass(frozen=True)
class Size:
    """How much of everything there is."""

    news: int = 500
    """Distinct articles, train and dev together."""
    impressions: int = 2000
    """Impressions, train and dev together."""

    @property
    def users(self) -> int:
        """MIND-small has 4.6 impressions per user."""
        return self.impressions // 5

    @property
    def dev(self) -> int:
        """Impressions of dev; the others are train's."""
        return int(DEV * self.impressions)

    @property
    def entities(self) -> int:
        """At least two of each community."""
        return max(2 * COMMUNITIES, self.news // ARTICLES_PER_ENTITY)

    @property
    def history(self) -> int:
        """Mean clicks of a history: 12 on the default set, 32 on one of MIND-small's size, by the logarithm between."""
        return 12 + round(20 * self._decades / 2)

    @property
    def candidates(self) -> int:
        """Mean candidates of an impression: 12 on the default set, 37 on one of MIND-small's size."""
        return 12 + round(25 * self._decades / 2)

    @property
    def days(self) -> np.ndarray:
        """int64 (TRAIN_DAYS + 3,): where each day's articles begin; the archive is day 0, dev the last."""
        shares = np.array([ARCHIVE] + [DAILY] * TRAIN_DAYS)
        counts = np.floor(shares * self.news).astype(np.int64)
        return offsets(np.append(counts, self.news - counts.sum()))

    @property
    def _decades(self) -> float:
        return max(0.0, log10(self.news / 500))


@dataclass(frozen=True)
class World:
    """What is true and cannot be seen. Articles are numbered in the order of their publication."""

    topic: np.ndarray
    """int64 (articles,)."""
    community: np.ndarray
    """int64 (articles,)."""
    popular: np.ndarray
    """bool (articles,)."""
    likes_topic: np.ndarray
    """bool (users, TOPICS)."""
    likes_community: np.ndarray
    """bool (users, COMMUNITIES)."""

    @classmethod
    def draw(cls, rng: np.random.Generator, size: Size) -> "World":
        """Topics and communities are independent of each other and of popularity."""
        return cls(
            topic=rng.integers(TOPICS, size=size.news),
            community=rng.integers(COMMUNITIES, size=size.news),
            popular=rng.random(size.news) < POPULAR,
            likes_topic=_likes(rng, size.users, TOPICS, LIKED_TOPICS),
            likes_community=_likes(rng, size.users, COMMUNITIES, LIKED_COMMUNITIES),
        )

    def attraction(self, users: np.ndarray, news: np.ndarray) -> np.ndarray:
        """float64 (n,): how much each of the `users` (n,) wants to read the article beside it in `news` (n,)."""
        topic = TOPIC_STRENGTH * self.likes_topic[users, self.topic[news]]
        community = COMMUNITY_STRENGTH * self.likes_community[users, self.community[news]]
        return np.asarray(topic + community + POPULAR_STRENGTH * self.popular[news])


@dataclass(frozen=True)
class Articles:
    """The lines of news.tsv and of entity_embedding.vec."""

    ids: list[str]
    lines: list[str]
    mentions: list[list[int]]
    """The entities of each article."""
    vectors: list[str]
    """A line per entity, empty for one without a vector."""


@dataclass(frozen=True)
class Lists:
    """A list of articles for each of n users or impressions, in CSR (see newsfuse.csr)."""

    starts: np.ndarray
    """int64 (n + 1,)."""
    news: np.ndarray
    """int64."""
    clicked: np.ndarray
    """bool, as long as `news`."""


@dataclass(frozen=True)
class Scene:
    """All that train and dev have in common."""

    size: Size
    world: World
    articles: Articles
    histories: Lists


def synth(folder: Path, *, news: int = 500, impressions: int = 2000, seed: int = 0) -> None:
    """Write folder/train and folder/dev: news.tsv, behaviors.tsv and entity_embedding.vec of each.

    `news` and `impressions` count train and dev together; at least 100 of each. Raises ValueError below, and OSError.
    """
    if min(news, impressions) < 100:  # noqa: PLR2004 - fewer leave a day without enough articles to choose from
        message = f"{news} news and {impressions} impressions; expected at least 100 of each"
        raise ValueError(message)
    size = Size(news, impressions)
    streams = np.random.default_rng(seed).spawn(5)
    world = World.draw(streams[0], size)
    scene = Scene(size, world, _articles(streams[1], world, size), _histories(streams[2], world, size))
    _write_split(folder / "train", streams[3], scene, dev=False)
    _write_split(folder / "dev", streams[4], scene, dev=True)


# --- articles


def _articles(rng: np.random.Generator, world: World, size: Size) -> Articles:
    # numbered at random: neither the day nor anything else may be read off an id
    ids = [f"N{number}" for number in rng.permutation(size.news) + 1]
    titles, abstracts = _texts(rng, world)
    mentions = _mentions(rng, world.community, size)
    labels = _words(rng, size.entities, syllables=3)
    entities, vectors = _entities(rng, labels)
    lists = _entity_lists(rng, mentions, entities, abstracts)
    urls = [f"https://news.example/{news_id}.html" for news_id in ids]
    columns = (ids, *_categories(rng, world.topic), titles, abstracts, urls, *lists)
    lines = ["\t".join(row) + "\n" for row in zip(*columns, strict=True)]
    return Articles(ids, lines, mentions, vectors)


def _categories(rng: np.random.Generator, topic: np.ndarray) -> tuple[list[str], list[str]]:
    other = rng.integers(TOPICS, size=len(topic))
    shown = np.where(rng.random(len(topic)) < LABELLED, topic, other)
    names = [CATEGORIES[i] for i in shown * len(CATEGORIES) // TOPICS]
    return names, [SUBCATEGORIES[i] for i in shown * len(SUBCATEGORIES) // TOPICS]


def _texts(rng: np.random.Generator, world: World) -> tuple[list[str], list[str]]:
    vocabulary = _words(rng, TOPICS * TOPIC_WORDS + COMMON_WORDS, syllables=2)
    titles = _sentences(rng, vocabulary, world.topic, TITLE)
    abstracts = _sentences(rng, vocabulary, world.topic, ABSTRACT)
    quoted = rng.random(len(titles)) < QUOTED
    empty = rng.random(len(titles)) < EMPTY_ABSTRACT
    titles = [f'"{title}' if odd else title for title, odd in zip(titles, quoted, strict=True)]
    return titles, ["" if odd else f"{text}." for text, odd in zip(abstracts, empty, strict=True)]


def _sentences(
    rng: np.random.Generator, vocabulary: Sequence[str], topic: np.ndarray, words: tuple[int, int]
) -> list[str]:
    ends = offsets(rng.integers(words[0], words[1] + 1, size=len(topic)))
    owner = owners(ends)
    # the square makes the first words of a vocabulary frequent and the last ones rare, as in a language
    rank = rng.random(len(owner)) ** 2
    own = topic[owner] * TOPIC_WORDS + (rank * TOPIC_WORDS).astype(np.int64)
    common = TOPICS * TOPIC_WORDS + (rank * COMMON_WORDS).astype(np.int64)
    drawn = np.where(rng.random(len(owner)) < ON_TOPIC, own, common).tolist()
    texts = (drawn[start:end] for start, end in pairwise(ends.tolist()))
    return [" ".join(vocabulary[word] for word in text).capitalize() for text in texts]


def _words(rng: np.random.Generator, n: int, *, syllables: int) -> list[str]:
    """Distinct words that can be spoken; those of different lengths never coincide."""
    numbers = rng.permutation(len(SYLLABLES) ** syllables)[:n]
    digits = [numbers // len(SYLLABLES) ** place % len(SYLLABLES) for place in range(syllables)]
    return ["".join(SYLLABLES[digit] for digit in word) for word in zip(*digits, strict=True)]


# --- entities


def _mentions(rng: np.random.Generator, community: np.ndarray, size: Size) -> list[list[int]]:
    """Entity e is of community e % COMMUNITIES."""
    counts = rng.integers(1, MOST_ENTITIES + 1, size=len(community))
    counts[rng.random(len(community)) < NO_ENTITIES] = 0
    ends = offsets(counts)
    theirs = community[owners(ends)] + COMMUNITIES * rng.integers(size.entities // COMMUNITIES, size=ends[-1])
    stray = rng.random(ends[-1]) < STRAY
    drawn = np.where(stray, rng.integers(size.entities, size=ends[-1]), theirs).tolist()
    return [list(dict.fromkeys(drawn[start:end])) for start, end in pairwise(ends.tolist())]


def _entities(rng: np.random.Generator, labels: Sequence[str]) -> tuple[list[dict[str, object]], list[str]]:
    """The JSON object and the vector's line of each entity."""
    ids = [f"Q{number}" for number in 1000 + rng.permutation(len(labels))]
    kinds = [("P", "O", "G")[kind] for kind in rng.integers(3, size=len(labels))]
    certain = (rng.integers(900, 1001, size=len(labels)) / 1000).tolist()
    rows = zip(labels, kinds, ids, certain, strict=True)
    return [_entity(*row) for row in rows], _vectors(rng, ids)


def _entity(label: str, kind: str, wikidata_id: str, confidence: float) -> dict[str, object]:
    # no occurrences: a text that named its entities would show the community
    return {
        "Label": label.capitalize(),
        "Type": kind,
        "WikidataId": wikidata_id,
        "Confidence": confidence,
        "OccurrenceOffsets": [],
        "SurfaceForms": [],
    }


def _vectors(rng: np.random.Generator, ids: Sequence[str]) -> list[str]:
    centres = rng.integers(-CENTRE, CENTRE + 1, size=(COMMUNITIES, WIDTH))
    lacking = rng.random(len(ids)) < WITHOUT_VECTOR
    noise = rng.integers(-SPREAD, SPREAD + 1, size=(len(ids), WIDTH), dtype=np.int16)
    rows = [(row + centres[entity % COMMUNITIES]).tolist() for entity, row in enumerate(noise)]
    lines = ["\t".join([name, *(f"{x / 10_000:.4f}" for x in row)]) + "\n" for name, row in zip(ids, rows, strict=True)]
    return ["" if odd else line for line, odd in zip(lines, lacking, strict=True)]


def _entity_lists(
    rng: np.random.Generator,
    mentions: Sequence[Sequence[int]],
    entities: Sequence[dict[str, object]],
    abstracts: Sequence[str],
) -> tuple[list[str], list[str]]:
    """The columns title_entities and abstract_entities; without an abstract all entities are the title's."""
    in_title = rng.integers(MOST_ENTITIES + 1, size=len(mentions)).tolist()
    ends = [many if text else MOST_ENTITIES for many, text in zip(in_title, abstracts, strict=True)]
    titles = [json.dumps([entities[e] for e in row[:end]]) for row, end in zip(mentions, ends, strict=True)]
    others = [json.dumps([entities[e] for e in row[end:]]) for row, end in zip(mentions, ends, strict=True)]
    return _broken(rng, titles), _broken(rng, others)


def _broken(rng: np.random.Generator, lists: Sequence[str]) -> list[str]:
    odd = rng.random(len(lists)) < BROKEN
    return [text[: len(text) // 2] if wrong and text != "[]" else text for text, wrong in zip(lists, odd, strict=True)]


# --- clicks


def _likes(rng: np.random.Generator, users: int, kinds: int, liked: int) -> np.ndarray:
    likes = np.zeros((users, kinds), dtype=np.bool_)
    likes[:, :liked] = True
    return rng.permuted(likes, axis=1)


def _skewed(rng: np.random.Generator, low: int, mean: int, n: int) -> np.ndarray:
    """int64 (n,) of about the `mean`, many near `low` and few large; the square of an even draw has mean 1/3."""
    return low + (3 * (mean - low + 0.5) * rng.random(n) ** 2).astype(np.int64)


def _histories(rng: np.random.Generator, world: World, size: Size) -> Lists:
    """What each user clicked before the first day, oldest first."""
    chunks = [_history(rng, world, size, users) for users in _chunks(size.users)]
    lengths = np.concatenate([np.diff(chunk.starts) for chunk in chunks])
    news = np.concatenate([chunk.news for chunk in chunks])
    return Lists(offsets(lengths), news, np.ones(len(news), dtype=np.bool_))


def _history(rng: np.random.Generator, world: World, size: Size, users: np.ndarray) -> Lists:
    archive = size.days[1]
    clicks = np.minimum(_skewed(rng, 4, size.history, len(users)), archive // 2)
    clicks[rng.random(len(users)) < NEWCOMERS] = 0
    seen = offsets(np.minimum(PASSED_BY * clicks, archive))
    news = _distinct(rng, np.zeros_like(clicks), np.full_like(clicks, archive), np.diff(seen))
    news = news[np.lexsort((news, owners(seen)))]  # a user reads in the order of publication
    clicked = _clicks(rng, world.attraction(users[owners(seen)], news), seen, clicks)
    return Lists(offsets(clicks), news[clicked], clicked[clicked])


def _impressions(rng: np.random.Generator, world: World, size: Size, users: np.ndarray, days: np.ndarray) -> Lists:
    """One impression for each of the `users` (n,) at the `days` (n,), which count from 1."""
    starts, pools = size.days, np.diff(size.days)
    shown = _skewed(rng, 4, size.candidates, len(users))
    before = np.maximum(days - rng.integers(1, OLD_DAYS + 1, size=len(users)), 0)
    old = np.minimum(rng.binomial(shown, OLD), pools[before])
    new = np.minimum(shown - old, pools[days])
    news = np.concatenate(
        [_distinct(rng, starts[before], pools[before], old), _distinct(rng, starts[days], pools[days], new)]
    )
    owner = np.concatenate([np.repeat(np.arange(len(users)), many) for many in (old, new)])
    news = news[np.lexsort((rng.random(len(news)), owner))]  # no place among the candidates says anything
    ends = offsets(old + new)
    clicks = rng.integers(1, 3, size=len(users))
    return Lists(ends, news, _clicks(rng, world.attraction(users[owners(ends)], news), ends, clicks))


def _distinct(rng: np.random.Generator, first: np.ndarray, pool: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int64 (sum of counts,): for each i, counts[i] different numbers of first[i] ... first[i] + pool[i] - 1.

    One out of each of counts[i] equal stretches of the pool, of which the first begins anywhere: no number comes
    twice, without drawing again and without an array of the size of users times articles.
    """
    ends = offsets(counts)
    owner = owners(ends)
    place = np.arange(ends[-1]) - ends[owner]
    low, high = (place * pool[owner] // counts[owner], (place + 1) * pool[owner] // counts[owner])
    drawn = low + (rng.random(len(owner)) * (high - low)).astype(np.int64)
    return np.asarray(first[owner] + (drawn + rng.integers(pool)[owner]) % pool[owner])


def _clicks(rng: np.random.Generator, attraction: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Clicks, bool (candidates,): counts[i] of them in list i, one after the other, each by a softmax of what is left.

    Adding Gumbel noise and taking the largest is that very draw (Plackett-Luce; https://arxiv.org/abs/1903.06059).
    """
    owner = owners(ends)
    order = np.lexsort((-(attraction + rng.gumbel(size=len(attraction))), owner))
    clicked = np.empty(len(order), dtype=np.bool_)
    clicked[order] = np.arange(len(order)) - ends[owner] < counts[owner]
    return clicked


# --- files


def _write_split(folder: Path, rng: np.random.Generator, scene: Scene, *, dev: bool) -> None:
    """Train has all articles of its days and before; dev those of its day and what its behaviors mention."""
    folder.mkdir(parents=True, exist_ok=True)
    articles, first_of_dev = scene.articles, scene.size.days[-2]
    there = (np.arange(scene.size.news) >= first_of_dev) == dev
    _write(folder / "behaviors.tsv", _behaviors(rng, scene, there, dev=dev))
    rows = np.flatnonzero(there).tolist()
    _write(folder / "news.tsv", (articles.lines[row] for row in rows))
    entities = sorted({entity for row in rows for entity in articles.mentions[row]})
    _write(folder / "entity_embedding.vec", (articles.vectors[entity] for entity in entities))


def _behaviors(rng: np.random.Generator, scene: Scene, there: np.ndarray, *, dev: bool) -> Iterator[str]:
    """The lines of behaviors.tsv; marks in `there` (articles,) the articles that they mention."""
    size, histories, ids = scene.size, scene.histories, scene.articles.ids
    clicks_of = _histories_as_text(histories, ids)
    for rows in _chunks(size.dev if dev else size.impressions - size.dev):
        users = _visitors(rng, size.users, len(rows), dev=dev)
        days = np.full(len(rows), TRAIN_DAYS + 1) if dev else rng.integers(1, TRAIN_DAYS + 1, size=len(rows))
        shown = _impressions(rng, scene.world, size, users, days)
        there[shown.news] = True
        there[histories.news[gather(histories.starts, np.unique(users))]] = True
        columns = (rows.tolist(), users.tolist(), _times(rng, days), _candidates(shown, ids))
        for row, user, time, candidates in zip(*columns, strict=True):
            yield f"{row + 1}\tU{user + 1}\t{time}\t{clicks_of[user]}\t{candidates}\n"


def _histories_as_text(histories: Lists, ids: Sequence[str]) -> list[str]:
    names = [ids[row] for row in histories.news.tolist()]
    return [" ".join(names[start:end]) for start, end in pairwise(histories.starts.tolist())]


def _candidates(shown: Lists, ids: Sequence[str]) -> Iterator[str]:
    labelled = zip(shown.news.tolist(), shown.clicked.tolist(), strict=True)
    tokens = [f"{ids[row]}-{clicked:d}" for row, clicked in labelled]
    return (" ".join(tokens[start:end]) for start, end in pairwise(shown.starts.tolist()))


def _visitors(rng: np.random.Generator, users: int, n: int, *, dev: bool) -> np.ndarray:
    some = int(RECURRING * users)
    return rng.integers(some, size=n) + (users - some if dev else 0)


def _times(rng: np.random.Generator, days: np.ndarray) -> list[str]:
    """Such as 11/15/2019 8:55:22 AM, hours, days and months without zeros in front, as in MIND."""
    seconds = rng.integers(SECONDS, size=len(days)).tolist()
    moments = [FIRST_DAY + timedelta(days=day - 1, seconds=s) for day, s in zip(days.tolist(), seconds, strict=True)]
    # not strftime, whose AM and PM depend on the machine's language
    return [f"{at.month}/{at.day}/{at.year} {at.hour % 12 or 12}:{at:%M:%S} {'AP'[at.hour // 12]}M" for at in moments]


def _chunks(n: int) -> list[np.ndarray]:
    """0 ... n - 1 in pieces of at most CHUNK."""
    return [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def _write(path: Path, lines: Iterable[str]) -> None:
    """A text file that is there whole or not at all, line by line, since millions of them would fill the memory."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise unwritten(path, error, "Nothing was left behind") from error
    finally:
        draft.unlink(missing_ok=True)
