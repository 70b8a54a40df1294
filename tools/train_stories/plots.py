"""The plots: each is a list of sentences, told with slots ``{like_this}`` and choices ``[a|b]``.

A plot starts after the opening and ends before the lesson; ``LESSON`` names the lesson that fits.
Slots ``{he} {him} {his}`` speak of the hero, ``{fhe} {fhim} {fhis}`` of the friend; a leading
capital letter in the slot gives a capital in the text.
"""

from adventures import ADVENTURES

PLOTS: dict[str, list[str]] = {
    "lost": [
        "{Name} had {a_thing}, and {he} [loved it very much|took it everywhere].",
        "One day, the {thing} was gone. [{Name} was very sad.|{Name} began to cry.]",
        "{He} looked {hiding2}, but it was not there.",
        'Then {friend} the {fkind} came by. "[Why are you sad|What is wrong]?" {fhe} asked.',
        '"I lost my {thing}," said {name}. "[Do not worry|Do not cry]," said {friend}. '
        '"I will help you look."',
        "They [looked and looked|looked everywhere]. At last, {friend} found the {thing} {hiding}.",
        '{Name} [was so happy|jumped for joy]. "Thank you, {friend}!" {he} said.',
    ],
    "rescue": [
        "One {day}, {name} [went for a walk|was walking] near {place}.",
        'Suddenly, {he} heard a [small|soft] voice. "Help! Please help me!"',
        "It was {a_fkind} named {friend}. "
        "{Fhe} was [stuck in the mud|caught in a net|stuck in a hole].",
        '"[I will help you|Do not be afraid]," said {name}. {He} found a long [stick|rope] and '
        "pulled with all {his} might.",
        '[Pop!|At last,] {friend} was free. "Thank you, {name}!" said {friend}. "You saved me."',
        "Then they [sat in the sun and ate {food}|walked home and ate {food}] together.",
    ],
    "fear": [
        "But {name} had a secret. {He} was afraid of {fear}.",
        "One {day}, {his} friend {friend} the {fkind} was lost near {place}.",
        "To find {fhim}, {name} had to face {fear} all alone.",
        '{His} heart beat fast. "[I can do this|I must be brave]," {he} said to {himself}.',
        "{He} took a deep breath and [went on, one step at a time|walked on, slowly and bravely].",
        'Soon {he} found {friend}. "You came for me!" said {friend}. "You are so brave!"',
        "{Name} smiled. {Fear} did not seem so bad anymore.",
    ],
    "share": [
        "One {day}, {name} [found|had] a big basket of {food}. "
        "It [smelled so good|looked so good].",
        '"[I will eat it all|This is all for me]," said {name}.',
        "Then {he} saw {friend} the {fkind}. {Fhe} looked [tired and hungry|sad and hungry].",
        '"I have nothing to eat today," said {friend}.',
        "{Name} thought for a moment. Then {he} gave half of the {food} to {friend}.",
        "They sat down near {place} and ate together. [They laughed and told stories.|"
        "It was the best meal of all.]",
    ],
    "learn": [
        "More than anything, {name} wanted to {skill}. But it was very hard.",
        "The first time {he} tried, {he} [fell down|made a big mess]. [Everyone laughed.|"
        "{He} felt very sad.]",
        '"I will never learn to {skill}," {he} said.',
        'But {his} friend {friend} the {fkind} said, "[Try again|Do not give up]. '
        'I will help you."',
        "So every {time}, they went to {place} and tried again and again.",
        "[One day|After many days], {name} could {skill}! {He} was very proud.",
        '"You did it!" [said|cried] {friend}, and gave {him} a big hug.',
    ],
    "truth": [
        "{His} friend {friend} the {fkind} had {a_toy}. "
        "{Name} [asked to play|wanted to play] with it.",
        '"Yes, but please be careful," said {friend}.',
        "{Name} ran and jumped. Then {he} fell, and the {toy} broke!",
        "{He} was afraid that {friend} would be angry. {He} wanted to hide it {hiding}.",
        'But {he} [went back and told the truth|told {friend} the truth]. "I broke your {toy}. '
        'I am sorry," {he} said.',
        '"Thank you for telling me," said {friend}. "We can fix it together."',
        "They worked all day, and soon the {toy} was [as good as new|better than before].",
    ],
    "lonely": [
        "{Name} was new there, and {he} had no one to play with. {He} felt [lonely|very alone].",
        "One {day}, {he} sat near {place} and [began to sing|sang] a [sad|quiet] song.",
        '{A_fkind} named {friend} heard {him}. "What a pretty song!" said {friend}.',
        '"[Would you like to play|Do you want to play] with me?" asked {name}. '
        '"Yes!" said {friend}.',
        "They played with {a_toy} until the sun went down.",
        "{Name} was not lonely anymore. [The next day, they played again.|{He} had a friend.]",
    ],
    "seed": [
        "One {day}, {name} found a tiny seed near {place}. {He} [put it in the ground|planted it].",
        "Every {time}, {he} gave it water. But nothing grew.",
        '"Why does it not grow?" {he} asked {his} friend {friend} the {fkind}.',
        '"[Just wait|Give it time]," said {friend}. "A seed needs sun, water, and love."',
        "So {name} waited. It rained, and the sun came out.",
        "[Then one day|At last], there was a [beautiful|lovely] {plant} plant!",
        "{Name} [danced around it|clapped and laughed]. {He} and {friend} were very happy.",
    ],
    "storm": [
        "One {day}, a big storm came. The wind blew and the rain fell hard.",
        "{Name} was warm and dry at home. Then {he} heard a knock at the door.",
        'It was {friend} the {fkind}. "[My house is gone|The wind took my roof]," {fhe} said. '
        '"May I come in?"',
        '"Of course!" said {name}. {He} gave {fhim} a warm blanket and some {food}.',
        "All night, they told stories and listened to the rain.",
        "In the morning, the sun was shining. {Name} helped {friend} [build a new house|"
        "fix the house].",
    ],
    "gift": [
        "Tomorrow was the birthday of {his} friend {friend} the {fkind}. {Name} had no gift.",
        '"I have no money," {he} thought. "What can I do?"',
        "{He} went to {place} and [thought and thought|sat down to think]. Then {he} had an idea.",
        "{He} worked all night and made {a_thing}, all by {himself}.",
        "The next day, {name} gave the {thing} to {friend}.",
        '"[This is the best gift ever|I love it]!" said {friend}. "You made it just for me!"',
        "They ate {food} and danced until the moon came up.",
    ],
    "way_home": [
        "One {day}, {name} went too far and [got lost|could not find the way home].",
        "The sun went down. It was cold, and {name} was [scared|afraid].",
        'Then {he} met {a_fkind} named {friend}. "[Are you lost|Where do you live]?" '
        "asked {friend}.",
        '"I live near {place}," said {name}. "But I do not know the way."',
        '"[Follow me|Come with me]," said {friend}. "I know [every path|the way]."',
        "They walked under the stars, and {friend} sang a happy song.",
        "Soon {name} was home. {He} gave {friend} some {food} to say thank you.",
    ],
    "treasure": [
        "One {day}, {name} found an old map near {place}. It [showed|led to] a treasure!",
        '{He} ran to {his} friend {friend} the {fkind}. "Come with me!" {he} said.',
        "They [walked over the hills|crossed the river] and dug a deep hole.",
        "At last, they found a box. Inside was {a_thing}.",
        '"There is only one," said {friend}. "[Who will keep it|Who should have it]?"',
        '"We will share it," said {name}. "You can have it today, and I will have it tomorrow."',
        "{Friend} smiled, and they went home, [hand in hand|side by side].",
    ],
} | ADVENTURES

LESSON = {
    "lost": "helping", "rescue": "kindness", "fear": "courage", "share": "sharing",
    "learn": "practice", "truth": "honesty", "lonely": "friendship", "seed": "patience",
    "storm": "kindness", "gift": "friendship", "way_home": "helping", "treasure": "sharing",
    "race": "friendship", "sick": "kindness", "sleep": "friendship", "wish": "kindness",
    "egg": "patience", "snow": "trying", "quarrel": "friendship", "dinner": "sharing",
}  # fmt: skip
