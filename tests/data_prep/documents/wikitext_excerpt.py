"""Two articles in WikiText's layout, and what a reader should make of them."""

# A space around every line, blank lines around headings only, two levels of sections, split hyphens and numbers, rare
# words as <unk>, a formula that looks like a title, and a title that contains an equals sign.
LINES = """

= The Lighthouse of <unk> =

The lighthouse was built in 1 @,@ 843 . Its lamp burnt oil .
A second paragraph follows , with a well @-@ known <unk> .

= = Construction = =

Work began late :
= 3 + 4 =
as the book says .

= = = Lamp = = =

It was replaced twice .


= 0 = 1 ( song ) =

A song of 2 @.@ 5 minutes .
""".split("\n")[1:-1]
ROWS = [f" {line} \n" if line else "" for line in LINES]  # the hub's .parquet
TEXT = "".join(f" {line} \n" if line else " \n" for line in LINES)  # wiki.train.tokens
LIGHTHOUSE, SONG = ("\n".join(LINES[1:15]), "\n".join(LINES[17:]))
