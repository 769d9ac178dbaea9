"""SkippedRecords: the records of one raw shard that are left out because they cannot be read, and how many may be."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class SkippedRecords:
    """One per raw shard; `records` says of each record where it stands and what is wrong with it."""

    label: str  # the raw shard, as messages name it
    max_bad_records: int = 0
    records: list[str] = field(default_factory=list)
    within: str = ""  # member of an archive

    def add(self, place: str, problem: str) -> None:
        """Note the record at `place`; ValueError where max_bad_records are noted already."""
        if len(self.records) >= self.max_bad_records:
            skipped = f" after {len(self.records)} that were skipped" if self.records else ""
            raise ValueError(
                f"{self.label}, {place} {problem}{skipped}; repair or remove it, or let --max_bad_records drop more than "
                f"{self.max_bad_records}"
            )
        self.records.append(f"{self.within}{place} {problem}")

    def inside(self, member: str) -> "SkippedRecords":
        """Return the same list for a member of an archive."""
        return replace(self, label=f"{self.label}, {member}", within=f"{self.within}{member}, ")
