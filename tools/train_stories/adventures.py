"""Holds more plots, written as those in ``plots.py``: small adventures, from the race to the
wish."""

ADVENTURES: dict[str, list[str]] = {
    "race": [
        "One {day}, there was a big race near {place}. {Name} and {friend} the {fkind} were in it.",
        '"[I am the fastest of all|I will win for sure]," said {friend}. {Name} said nothing.',
        '"Ready, set, go!" [They ran and ran.|They ran like the wind.]',
        "[Halfway there|Near the end], {friend} fell and hurt {fhis} leg. {Name} [stopped|"
        "turned back] at once.",
        '"[Why did you stop|Why did you come back]?" asked {friend}. "You could win!"',
        '"[A friend is better than a prize|You need me more]," said {name}.',
        "They walked to the end together, and everyone [clapped|cheered] for them.",
    ],
    "sick": [
        "One {day}, {name} went to see {his} friend {friend} the {fkind}. {Fhe} was sick in bed.",
        '"[I feel so weak|My head hurts], and I am so [sad|bored]," said {friend}.',
        "{Name} wanted to help. {He} went to {place} and picked {food} [and flowers|for {fhim}].",
        "Then {he} made hot soup and [told funny stories|sang a funny song].",
        "{Friend} laughed and laughed. [Soon {fhe} felt better.|The next day, {fhe} was well.]",
        '"You are the best [doctor|nurse] of all," said {friend}.',
    ],
    "sleep": [
        "One night, {name} could not sleep. The moon was [big and bright|round and white].",
        "{He} [closed {his} eyes|turned left and right], but sleep did not come. So {he} went out.",
        "Near {place}, {he} saw {friend} the {fkind}, who was [awake too|looking at the sky].",
        '"[Can you not sleep|Why are you awake]?" asked {friend}. "Let us count the stars."',
        '"One, two, three, four," they counted. The [wind was soft|night was warm].',
        "Before they came to [twenty|one hundred], {name} was fast asleep.",
    ],
    "wish": [
        "One night, a star fell from the sky. It fell [near|close to] {place}.",
        '"[You may have one wish|Make a wish]," said the star in a [soft|tiny] voice.',
        "{Name} thought of {a_thing}. Then {he} thought of {his} friend {friend} the {fkind}.",
        '{Friend} was [poor|far away] and very sad. "[Please make {friend} happy|I wish that '
        '{friend} could smile again]," said {name}.',
        "The star [shone|danced], and soon {friend} came running with {a_thing} in {fhis} arms.",
        '"[Look what I found|It came from the sky]!" said {friend}. "[Let us play|Play with me]!"',
        "{Name} [smiled at the sky|looked up and smiled]. It was the best wish of all.",
    ],
    "egg": [
        "One {day}, {name} found a big {color} egg {hiding}. It was [cold|all alone].",
        '"[Whose egg is this|Who lost this egg]?" {he} asked. But no one knew.',
        "So {he} kept it warm, [day and night|for three days and three nights].",
        "Crack! The egg [broke open|opened]. Out came a tiny [bird|dragon|duck]!",
        '"[Hello|Good morning]!" it said. {Name} called it {friend}.',
        "{Friend} grew [bigger every day|big and strong], and they [went everywhere together|"
        "played every {time}].",
    ],
    "snow": [
        "One morning, the whole world was white. [It was snow!|Snow was everywhere!]",
        "{Name} [ran outside|put on a hat and ran outside]. {He} saw {friend} the {fkind} there.",
        '"[It is so cold|My feet are so cold]," said {friend}. "I do not like snow."',
        '"[Come and see|Wait and see]," said {name}. "Snow can be fun!"',
        "They made a [big snowman|tall snow castle] near {place}, and gave it {a_thing}.",
        'Then they drank warm milk and ate {food}. "[Now I like snow|Snow is fun]!" said {friend}.',
    ],
    "quarrel": [
        "{Name} and {friend} the {fkind} [always played together|were good friends].",
        'But one {day}, they both wanted the same {toy}. "It is mine!" said {name}. '
        '"No, it is mine!" said {friend}.',
        "They pulled and pulled until the {toy} [broke|fell into the mud].",
        "{Friend} [ran|went] home. [Oh no!|{Fhe} was angry.]",
        "{Name} sat alone near {place}. [It was no fun to play alone.|It was very quiet.]",
        'So {he} went to {friend} and said, "[I am sorry|I was wrong]. [You are my friend|'
        'I miss you]."',
        '"I am sorry too," said {friend}. [They hugged|They shook hands], and they [made|found] '
        "{a_toy} for two.",
    ],
    "dinner": [
        "One {day}, {name} wanted to make a big dinner. But there was [only one pot|no food left].",
        '{He} went to {friend} the {fkind}. "[Do you have some|Can you spare some] {food}?" '
        "{he} asked.",
        '"[Yes, I do|Of course]," said {friend}. "May I [help you|come too]?"',
        "They [cut and mixed|washed and cut], and {friend} [sang a song|told jokes]. Soon it "
        "[smelled so good|was ready].",
        "Everyone from {place} came to eat. There was [enough for all|a place for everyone].",
        '"[Food is best when we share it|This is the best dinner ever]," said {name}.',
    ],
}
