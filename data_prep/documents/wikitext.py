"""Articles of WikiText: a line ` = Title = ` between blank lines begins one; ` = = Section = = ` does not.

WikiText puts a space around every line. These spaces are dropped, as every tokenizer of words drops them.
"""

from collections.abc import Iterator
from itertools import chain, pairwise

from data_prep.documents.document_rules import Parts


def group_articles(lines: Iterator[str], blank_line: str) -> Parts:
    """Yield (text, whether it ends its document); memory holds two lines.

    Blank lines within an article are kept. Each of those before a title adds `blank_line` to the article before it.
    """
    num_blank, is_open = 1, False  # a title may be the first line
    for line, following in pairwise(chain((line.strip() for line in lines), [""])):
        if not line:
            num_blank += 1
            continue
        if is_open and num_blank and not following and is_title(line):
            yield blank_line * num_blank, True
            is_open = False
        yield "\n" * (num_blank + 1) + line if is_open else line, False
        num_blank, is_open = 0, True


def is_title(line: str) -> bool:
    """Whether a line without spaces around it is `= Title =`; a section has several signs, as in `= = Section = =`."""
    starts, ends = line.startswith("= "), line.endswith(" =")
    return len(line) > 4 and starts and ends and not (line.startswith("= = ") and line.endswith(" = ="))
