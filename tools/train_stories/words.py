"""Holds the word lists that the story generator chooses from. All of it is our own."""


def split(text: str) -> list[str]:
    """Return the entries of a list written as text, with bars or line ends between them."""
    return [entry.strip() for entry in text.strip().replace("\n", "|").split("|")]


def split_words(text: str) -> list[str]:
    """Return the words of a list written as text, with white space between them."""
    return text.split()


# Heroes and friends have names of their own, with other first letters: the likeliest hero is then
# never the likeliest friend too, and greedy decoding tells them apart.
GIRLS = split_words("""
Anna Bella Clara Daisy Ella Emma Fern Gina Holly Iris Ivy Jane Kate Lily Lucy Luna
""")
BOYS = split_words("""
Adam Ben Bruno Charlie Dan Eli Felix Finn George Harry Hugo Jack Jasper Joe Leo Louis
""")
FRIEND_GIRLS = split_words("""
Maya Mia Molly Nina Nora Olive Penny Pippa Poppy Rose Ruby Sara Sophie Tess Willow Zoe
""")
FRIEND_BOYS = split_words("""
Max Milo Ned Noah Oliver Oscar Otto Pip Ravi Sam Simon Theo Tim Toby Tom Will
""")

FEATURES = {
    "ant": "six quick legs", "badger": "a striped face", "bat": "thin black wings",
    "bear": "thick brown fur", "beaver": "a flat tail", "bee": "a tiny yellow coat",
    "bird": "bright feathers", "bunny": "a fluffy white tail", "butterfly": "soft blue wings",
    "camel": "a big round hump", "cat": "soft whiskers", "chick": "yellow feathers",
    "cow": "a gentle voice", "crab": "two strong claws", "crow": "shiny black feathers",
    "deer": "long thin legs", "dog": "a happy tail", "donkey": "long gray ears",
    "dragon": "shiny green scales", "duck": "orange feet", "elephant": "a long gray trunk",
    "fairy": "wings as thin as paper", "fox": "a bushy red tail",
    "frog": "long green legs", "ghost": "a soft white glow", "giraffe": "a very long neck",
    "goat": "two little horns", "goose": "wide white wings", "hedgehog": "hundreds of tiny spikes",
    "hen": "warm brown feathers", "horse": "a long dark mane", "kangaroo": "strong back legs",
    "kitten": "tiny pink paws", "koala": "round fluffy ears", "lamb": "curly white wool",
    "lion": "a golden mane", "lizard": "a long quick tail", "mole": "a soft pink nose",
    "monkey": "long clever arms", "monster": "purple fur", "mouse": "a long thin tail",
    "otter": "smooth wet fur", "owl": "big round eyes",
    "panda": "black and white fur", "parrot": "red and green feathers", "penguin": "small wings",
    "pig": "a curly tail", "pony": "a brown mane", "puppy": "floppy ears", "rabbit": "soft ears",
    "raccoon": "a striped tail", "robot": "two bright lights for eyes", "sheep": "thick warm wool",
    "snail": "a round brown shell", "snake": "smooth green skin", "spider": "eight thin legs",
    "squirrel": "a fluffy tail", "swan": "a long white neck", "tiger": "orange and black stripes",
    "turtle": "a hard green shell", "unicorn": "a silver horn",
    "wolf": "thick gray fur", "zebra": "black and white stripes",
}  # fmt: skip

# Each with the pronoun that it fixes, if it fixes one.
PEOPLE = {
    "boy": "he", "girl": "she", "prince": "he", "princess": "she", "king": "he", "queen": "she",
    "baker": "", "farmer": "", "painter": "", "sailor": "", "gardener": "", "nurse": "",
    "wizard": "he", "witch": "she", "mermaid": "she",
    "knight": "", "pirate": "",
}  # fmt: skip

OTHER_HEROES = split_words("""
acorn airplane apple ball balloon banana bell boat book bottle broom bucket bus button cactus
camera candle carrot cart chair clock cloud coat coin cookie crayon cup dinosaur doll dolphin
donut drum eagle falcon feather flower fork gorilla guitar hamster hat hippo jellyfish kettle
key kite ladder lamp leaf lemon marble mirror moon mushroom pancake peacock peanut pebble pencil
piano pillow potato pumpkin puppet rainbow raindrop rocket sandwich scarecrow seagull seed
shadow shark shell shoe snowflake snowman sock spoon star stone submarine taxi teapot tent
toaster tomato toy tractor train tree truck trumpet tugboat wagon walrus
""")

SIZES = ["little", "small", "young", "tiny"]
TRAITS = ["kind", "brave", "clever", "happy", "gentle", "shy", "curious", "cheerful", "quiet"]
COLORS = ["red", "blue", "green", "yellow", "golden", "silver", "purple", "white"]

THINGS = split_words("""
ball bell book boat button drum hat kite lamp map ring scarf spoon star whistle
basket blanket crown flute wagon
""")

TOYS = split_words("ball boat drum kite wagon flute whistle")

FOODS = split_words("apples berries carrots cherries cookies nuts pears pies plums")

HOMES = split("""
in a small house near the forest | in a quiet village | at the edge of a big forest
by a wide river | at the foot of a tall hill | beside a blue lake | near the sea
on a sunny farm | under an old oak tree | in a green valley | at the end of a long road
""")

PLACES = split("""
the forest | the garden | the meadow | the river | the hill | the old bridge | the lake
the field | the big tree | the pond | the beach | the market
""")

HIDING = split("""
under a bush | behind a rock | in the tall grass | under the bed | inside an old log
next to the well | behind the door | at the top of a tree
""")

HOBBIES = split("""
sing | dance | paint | climb trees | pick flowers | look at the stars | play in the rain
bake bread | read books | jump in puddles | count the clouds | tell jokes
""")

SKILLS = split("""
swim | whistle | dance | sing | fly a kite | ride a bike | bake a cake | play the drum
climb a tree | skate | row a boat | paint a picture
""")

FEARS = split("""
the dark | the thunder | deep water | high places | the wind | loud noises | strangers
the big forest
""")

FLOWERS = split_words("rose tulip sunflower daisy pumpkin bean apple cherry lemon")

LESSONS = {
    "sharing": "sharing makes everyone happy", "kindness": "a kind heart makes many friends",
    "courage": "being brave means trying even when you are afraid",
    "honesty": "it is always best to tell the truth",
    "patience": "good things come to those who wait",
    "practice": "you can learn anything if you keep trying",
    "friendship": "a good friend is the best treasure of all",
    "trying": "it is good to try new things",
    "helping": "when we help each other, no problem is too big",
}  # fmt: skip
