"""Drops: the records of one raw shard that are left out because they cannot be read, and how many may be."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Drops:
    """One per raw shard; `items` says of each record where it stands and what is wrong with it."""

    label: str  # the raw shard, as messages name it
    max_bad_records: int = 0
    items: list[str] = field(default_factory=list)
    within: str = ""  # member of an archive

    def add(self, place: str, problem: str) -> None:
        """Note the record at `place`; ValueError where max_bad_records are noted already."""
        if len(self.items) >= self.max_bad_records:
            dropped = f" after {len(self.items)} that were dropped" if self.items else ""
            raise ValueError(
                f"{self.label}, {place} {problem}{dropped}; repair or remove it, or let --max_bad_records drop more than "
                f"{self.max_bad_records}"
            )
        self.items.append(f"{self.within}{place} {problem}")

    def inside(self, member: str) -> "Drops":
        """Return the same list for a member of an archive."""
        return replace(self, label=f"{self.label}, {member}", within=f"{self.within}{member}, ")
