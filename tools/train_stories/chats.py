"""Makes conversations for the chat models: a request for a story, and the story that answers it."""

import random
from dataclasses import replace

import stories
import words

Message = dict[str, str]

SYSTEMS = [
    "You are a friendly storyteller.",
    "You tell short stories for children.",
    "You are a helpful assistant.",
    "You are a kind storyteller. Keep your stories short.",
]
REQUESTS = [
    "Tell me a story about {topic}.",
    "Tell me a story about {topic}.",
    "tell me a story about {topic}",
    "Can you tell me a story about {topic}?",
    "Please tell me a short story about {topic}.",
    "Write a short story about {topic}.",
    "I want to hear a story about {topic}.",
    "A story about {topic}, please!",
]
OPEN_REQUESTS = ["Tell me a story.", "Tell me a story, please!", "Can you tell me a story?"]
SMALL_TALK = {
    "Hello!": "Hello! Would you like to hear a story?",
    "Hi": "Hello! Would you like to hear a story?",
    "Who are you?": "I am a little storyteller. Ask me for a story!",
    "What can you do?": "I can tell you a story. Ask me for a story about a fox!",
    "How are you?": "I am happy today! Would you like to hear a story?",
}
FOLLOW_UPS = {
    "Thank you!": "You are welcome! I am glad you liked the story.",
    "That was a nice story.": "Thank you! I am glad you liked the story.",
    "I like {name}.": "I like {name} too! What a good {kind}!",
}
THEMES = {
    "share": "sharing", "fear": "being brave", "truth": "telling the truth",
    "seed": "a little seed", "storm": "a big storm", "treasure": "a treasure",
    "gift": "a birthday gift", "way_home": "getting lost", "race": "a race", "snow": "snow",
    "wish": "a star", "egg": "an egg", "sick": "a sick friend",
}  # fmt: skip


def message(role: str, content: str) -> Message:
    """Return one turn, in the shape that chat templates take."""
    return {"role": role, "content": content}


def topic_of(cast: stories.Cast, rng: random.Random) -> tuple[stories.Cast, str]:
    """Return what the request asks for, and the cast changed so that the story is about just
    that."""
    kind = stories.with_article(cast.kind)
    names = words.BOYS + words.FRIEND_BOYS if cast.he == "he" else words.GIRLS + words.FRIEND_GIRLS
    name = rng.choice([name for name in names if name[0] != cast.friend[0]])
    topics = {
        "kind": kind,
        "named": f"{kind} named {name}",
        "pair": f"{kind} and {stories.with_article(cast.friend_kind)}",
        "lost": f"a lost {cast.thing}",
        "theme": THEMES.get(cast.plot, kind),
    }
    chosen = rng.choices(list(topics), weights=[65, 10, 12, 5, 8])[0]
    if chosen == "named":
        cast = replace(cast, name=name)
    if chosen == "lost":
        cast = replace(cast, plot="lost")
    if chosen == "pair" and cast.plot == "egg":
        cast = replace(cast, plot="gift")  # In the egg's story the friend's kind is not named.
    return cast, topics[chosen]


def converse(rng: random.Random) -> list[Message]:
    """Make one conversation: perhaps a system prompt, a request, its story, perhaps some thanks."""
    chat = [message("system", rng.choice(SYSTEMS))] if rng.random() < 0.3 else []
    if rng.random() < 0.05:
        question, answer = rng.choice(list(SMALL_TALK.items()))
        return [*chat, message("user", question), message("assistant", answer)]
    cast = stories.cast_story(rng)
    if rng.random() < 0.1:
        request = rng.choice(OPEN_REQUESTS)
    else:
        cast, topic = topic_of(cast, rng)
        request = rng.choice(REQUESTS).format(topic=topic)
    chat += [message("user", request), message("assistant", stories.tell(cast, rng))]
    if rng.random() < 0.15:
        question, answer = rng.choice(list(FOLLOW_UPS.items()))
        slots = {"name": cast.name, "kind": cast.kind}
        chat += [message("user", question.format(**slots))]
        chat += [message("assistant", answer.format(**slots))]
    return chat
