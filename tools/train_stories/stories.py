"""Generates short children's stories in simple English from a seed: a hero, a problem, an end."""

import random
import re
from dataclasses import dataclass

import plots
import words

PRONOUNS = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}
CHOICE = re.compile(r"\[([^\[\]]*)\]")

OPENINGS = [
    "Once upon a time, there was {a_kind} named {name}.",
    "Once upon a time, there was {a_adj} {kind} named {name}.",
    "Once upon a time, there lived {a_adj} {kind} named {name}.",
    "Once upon a time, {a_adj} {kind} named {name} lived {home}.",
    "Once upon a time, there was {a_adj} {kind} named {name}. {He} lived {home}.",
]
OTHER_OPENINGS = [
    "One day, {a_kind} named {name} [woke up early|looked out of the window].",
    "Long ago, {a_adj} {kind} named {name} lived {home}.",
    "There was once {a_adj} {kind} named {name}. {He} lived {home}.",
    "{Name} was {a_adj} {kind} who lived {home}.",
    "{Name} the {kind} lived {home}.",
    "A long time ago, there lived {a_adj} {kind} named {name}.",
    "In a far away land, there lived {a_adj} {kind} named {name}.",
    "This is the story of {a_adj} {kind} named {name}.",
]
HABITS = [
    "Everyone [knew|liked] {name}, because {he} was always ready to help.",
    "{He} had [a big dream|many dreams], and {he} loved to {hobby}.",
    "{He} liked to {hobby}.",
    "Every {time}, {he} liked to {hobby}.",
    "{He} was {age} years old, and {he} loved to {hobby}.",
]
ENDINGS = [
    "{Name} learned that {lesson}.",
    "From that day on, {name} and {friend} were best friends.",
    "From that day on, {name} knew that {lesson}.",
    "And they lived happily ever after.",
    "That night, {name} went to sleep with a smile.",
    "{Name} never forgot that day.",
    "And {name} was happy.",
]


@dataclass(frozen=True)
class Cast:
    """Describes who and what a story is about; a request may fix some of it, chance decides the
    rest."""

    plot: str
    kind: str
    name: str
    he: str
    friend_kind: str
    friend: str
    friend_he: str
    thing: str
    toy: str
    color: str


def with_article(noun: str) -> str:
    """Return the noun after its indefinite article: ``an apple``, ``a fox``."""
    article = "an" if noun[0] in "aeio" else "a"
    return f"{article} {noun}"


def cast_story(rng: random.Random) -> Cast:
    """Draw a hero, a friend of another kind and name, a plot and a thing."""
    animals = list(words.FEATURES)
    kinds = rng.choices([animals, list(words.PEOPLE), words.OTHER_HEROES], [0.5, 0.25, 0.25])[0]
    kind = rng.choice(kinds)
    friend_kind = rng.choice([animal for animal in animals if animal != kind])
    he = words.PEOPLE.get(kind) or rng.choice(["he", "she"])
    friend_he = rng.choice(["he", "she"])
    name = rng.choice(words.BOYS if he == "he" else words.GIRLS)
    friends = words.FRIEND_BOYS if friend_he == "he" else words.FRIEND_GIRLS
    return Cast(
        plot=rng.choice(list(plots.PLOTS)),
        kind=kind,
        name=name,
        he=he,
        friend_kind=friend_kind,
        friend=rng.choice(friends),
        friend_he=friend_he,
        thing=rng.choice(words.THINGS),
        toy=rng.choice(words.TOYS),
        color=rng.choice(words.COLORS),
    )


def slots_of(cast: Cast, rng: random.Random) -> dict[str, str]:
    """Everything a sentence can name; each lower-case slot also comes with a capital."""
    he, him, his, himself = PRONOUNS[cast.he]
    fhe, fhim, fhis, _ = PRONOUNS[cast.friend_he]
    hiding, hiding2 = rng.sample(words.HIDING, 2)
    slots = {
        "name": cast.name, "kind": cast.kind, "he": he, "him": him, "his": his,
        "himself": himself, "friend": cast.friend, "fkind": cast.friend_kind, "fhe": fhe,
        "fhim": fhim, "fhis": fhis, "thing": cast.thing, "hiding": hiding, "hiding2": hiding2,
        "a_thing": f"{with_article(cast.color)} {cast.thing}", "toy": cast.toy,
        "a_toy": f"{with_article(cast.color)} {cast.toy}",
        "a_kind": with_article(cast.kind), "a_fkind": with_article(cast.friend_kind),
        "a_adj": with_article(rng.choice(words.SIZES + words.TRAITS)),
        "home": rng.choice(words.HOMES), "hobby": rng.choice(words.HOBBIES),
        "skill": rng.choice(words.SKILLS),
        "place": rng.choice(words.PLACES), "food": rng.choice(words.FOODS),
        "fear": rng.choice(words.FEARS), "plant": rng.choice(words.FLOWERS),
        "lesson": words.LESSONS[plots.LESSON[cast.plot]], "age": str(rng.randint(3, 12)),
        "color": cast.color, "time": rng.choice(["day", "morning", "evening"]),
        "day": rng.choice(["day", "sunny day", "morning", "evening"]),
    }  # fmt: skip
    return slots | {key.capitalize(): text[0].upper() + text[1:] for key, text in slots.items()}


def tell(cast: Cast, rng: random.Random) -> str:
    """Tell one whole story about this cast."""
    openings = OPENINGS if rng.random() < 0.85 else OTHER_OPENINGS
    sentences = [rng.choice(openings)]
    if cast.kind in words.FEATURES and rng.random() < 0.5:
        sentences.append(f"{{He}} had {words.FEATURES[cast.kind]}.")
    if rng.random() < 0.5 and cast.plot not in ("fear", "lonely", "quarrel"):
        sentences.append(rng.choice(HABITS))
    sentences += plots.PLOTS[cast.plot]
    sentences.append(rng.choice(ENDINGS))
    text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), " ".join(sentences))
    return text.format(**slots_of(cast, rng))
