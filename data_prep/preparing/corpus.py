"""The corpus to prepare: the parts of a recipe, or text to train on and, perhaps, text to hold out."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawShard
from data_prep.preparing.held_out_text import check_held_out
from data_prep.shards.mixture import MIXTURE_NAME, check_epochs, write_mixture
from data_prep.tokenizing.corpus_recipe import CorpusPart, read_corpus_recipe

TRAIN, VALID = "train", "valid"  # names of the parts of a corpus without a recipe
VALID_MIXTURE = "valid.yaml"
RECIPE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Corpus:
    """What to prepare."""

    parts: list[CorpusPart]
    raw: Path  # folder to which the inputs of the parts are relative

    def find_raw_shards(self, output: Path) -> dict[str, list[RawShard]]:
        """Return the raw shards of each part by its name; files in `output` are none, wherever it lies.

        ValueError or FileNotFoundError if a part has none, and ValueError for held-out text that is trained on too.
        """
        found = {part.name: part.find_raw_shards(self.raw, leave_out=output) for part in self.parts}
        held_out = {part.name for part in self.held_out}
        check_held_out(
            {name: shards for name, shards in found.items() if name not in held_out},
            {name: shards for name, shards in found.items() if name in held_out},
        )
        return found

    @property
    def held_out(self) -> list[CorpusPart]:
        """The parts that are prepared but not trained on."""
        epochs = check_epochs("the recipe", {part.name: part.epochs for part in self.parts})
        return [part for part in self.parts if not epochs[part.name]]

    def write_mixtures(self, output: Path) -> None:
        """Write mixture.yaml, the data to train on, and valid.yaml if there are several parts to validate on."""
        write_mixture(output / MIXTURE_NAME, {part.name: part.epochs for part in self.parts})
        if len(self.held_out) > 1:
            write_mixture(output / VALID_MIXTURE, {part.name: 1 for part in self.held_out})

    def validation_data(self, output: Path) -> Path | None:
        """Return the folder or mixture to validate on; None if no part is held out."""
        if len(self.held_out) > 1:
            return output / VALID_MIXTURE
        return output / self.held_out[0].name if self.held_out else None


def read_corpus(inputs: list[str], *, raw: str | None, valid: list[str], rules: DocumentRules) -> Corpus:
    """Read the recipe that `inputs` name; without a recipe, `inputs` and `valid` are raw text under `rules`.

    ValueError if options for the one are given with the other.
    """
    recipes = [each for each in inputs if each.endswith(RECIPE_SUFFIXES)]
    if not recipes:
        if raw is not None:
            raise ValueError(f"--raw {raw} is for recipes, but {inputs[0]} is none; give the whole path of the text")
        parts = [CorpusPart(TRAIN, inputs, rules)]
        return Corpus(parts + ([CorpusPart(VALID, valid, rules, epochs=0)] if valid else []), Path())
    if len(inputs) > 1 or valid or rules != DocumentRules():
        raise ValueError(
            f"{recipes[0]} is a recipe, which names all text, held-out text and document rules; give it alone, with "
            "--raw DIR"
        )
    if not Path(recipes[0]).is_file():
        raise FileNotFoundError(f"{recipes[0]} is not a file; give a recipe, such as one of data_prep/corpora/")
    return Corpus(read_corpus_recipe(recipes[0]), Path(raw or ""))
