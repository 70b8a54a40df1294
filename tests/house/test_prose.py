"""Holds the rules for docstrings: the first sentence has a verb, in the imperative or third person.

A sentence is read to its first colon or semicolon; after a label, such as "Graph:", to the second.
A part has a verb if it begins with one of `BEGINNING`, or if one of `FINITE` comes before the first
relative clause.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "models", "backends", "plugins", "kernelyard", "tools", "tests/support")

BANNED = re.compile(r"(Of|What|Whether|As|The same|With|Such as)\b")
LABEL = 5  # words before a colon that may lack a verb
RELATIVE = {"that", "which", "who", "whose", "what", "where", "when", "while", "if", "as",
            "whether", "how", "why", "than"}

# Verbs that a first sentence may begin with, as "return" or "returns".
BEGINNING = frozenset(re.findall(r"\w+", """
    accumulate add advance allocate answer append apply arrange ask assign bind blame bound
    break bring build cache call capture cast catch check choose claim clean clear clone close
    collect combine come compare compile complain complete compose compute connect convert copy
    count cover create cut damage decide declare decode define describe detect dispatch divide
    draw drive drop edit embed emit empty encode end ensure estimate examine exchange execute
    exercise exit expand expect explain export fail feed fill find finish fix follow forget
    format free gather generate get give group guard hand hash hold ignore implement import
    insert inspect install iterate join judge keep launch lay let list listen load lock look
    lower make map mark match measure merge mix move multiply name need normalise note observe
    occupy offer open order overlap override overwrite pack pair parse pass patch permit permute
    pick place plan play plot point predict prefer prepack prepare print produce profile provide
    put quantise queue raise read rebuild receive reclaim record reduce refuse register reject
    release remember remove render reorder repeat replace replay report represent require
    reserve reset resolve restore restrict return reuse rotate round run sample save say scale
    schedule score search seed select send serve set settle share shift show sign simulate skip
    sort split stand start state stop store stream sum supply synchronise tabulate take tell
    test tie tile time tokenise tokenize trace train transform translate transpose try tune turn
    unify unpack update use verify view visit vote wait walk warn weigh widen wrap write yield"""))

# Words that are a verb wherever they stand; "runs" or "names" could be nouns.
FINITE = frozenset(re.findall(r"[a-z']+", """
    accepts agree agrees allows are aren't becomes begin begins belong belongs breaks can can't
    cannot carries carry comes compares compiles computes contains could decides defines
    depends did differ disagreed disagrees do does doesn't don't exists fails fit fits follows
    generates gets gives goes had happens has have holds is isn't keeps knows leave leaves lie
    lies makes may must needs prints produces raises reaches reads receives refuses rejects
    returns says shares should shows skips stands starts stays stores takes tells uses was were
    will would writes"""))


def third_person(verb: str) -> str:
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(s|x|ch|sh|o)$", verb) else "s")


STARTS = BEGINNING | {third_person(v) for v in BEGINNING} | FINITE


def has_verb(part: str) -> bool:
    words = re.findall(r"[a-z'_]+", re.sub(r"`[^`]*`", " code ", part).lower())
    if words and words[0] in STARTS:
        return True
    for word in words:
        if word in RELATIVE or word in FINITE:
            return word in FINITE
    return False


def fault(docstring: str) -> str | None:
    """Return the rule that a docstring breaks, or None."""
    text = " ".join(docstring.split())
    if found := BANNED.match(text):
        return f"begins with {found[1]!r}"
    sentence = re.split(r"(?<=[^.][.!?])\s+(?=[^a-z])", text)[0]
    parts = re.split(r"[:;]\s", sentence)
    if any(has_verb(part) for part in parts[:1 + (len(parts[0].split()) <= LABEL)]):
        return None
    return "the first sentence has no verb in the imperative or third person"


def docstrings(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text


def test_docstrings():
    files = [f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    faults = [f"{f.relative_to(ROOT)}:{line}: {bad}: {text.splitlines()[0]}"
              for f in sorted(files) for line, text in docstrings(f) if (bad := fault(text))]
    assert not faults, f"{len(faults)} docstrings break a rule:\n" + "\n".join(faults)


@pytest.mark.parametrize("bad", [
    "Of this and of earlier versions.", "What `read` found.", "Whether it holds.", "As above.",
    "The same with x doubled.", "With two numbers.", "Such as `a.b`.", "The tensors of a model.",
    "The tensors that a model holds.", "A kernel, of which two are needed.",
    "float32 [N,K]", "The weights of a model in memory: float32 is widened.", "Graph: nodes.", ""])
def test_the_rules_can_fail(bad):
    assert fault(bad)


@pytest.mark.parametrize("good", [
    "Return the tensors.", "Holds a matrix [N,K]. The rest is noun.", "A kernel is called once.",
    "Graph: declares ops.", "python -m models.run: generate text.", "Raises ShapeError."])
def test_the_rules_can_pass(good):
    assert fault(good) is None
