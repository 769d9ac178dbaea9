"""SkippedRecords: the records of one raw shard that cannot be read, up to the number that may be skipped."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class SkippedRecords:
    """One instance per raw shard."""

    label: str  # the raw shard, as messages name it
    max_bad_records: int = 0
    option: int | float = 0  # --max_bad_records as it was given, from which max_bad_records follows
    records: list[str] = field(default_factory=list)  # place and problem of each
    within: str = ""  # the member of an archive, as a prefix of the places in it

    def add(self, place: str, problem: str) -> None:
        """Add the record at `place`; ValueError if there already are max_bad_records."""
        if len(self.records) >= self.max_bad_records:
            skipped = f" after {len(self.records)} skipped records" if self.records else ""
            raise ValueError(
                f"{self.label}, {place} {problem}{skipped}; repair or remove it, or raise --max_bad_records above "
                f"{self.option or self.max_bad_records}"
            )
        self.records.append(f"{self.within}{place} {problem}")

    def inside(self, member: str) -> "SkippedRecords":
        """Return a view of the same records for a member of an archive."""
        return replace(self, label=f"{self.label}, {member}", within=f"{self.within}{member}, ")
