"""An answer's text as it grows: what of it may be shown already. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.models.sampling import EMPTY_THOUGHT


@dataclass
class Shown:
    """Text that grows, up to the first stop that is complete; an empty thought that it begins with is left out.

    What may turn out to be the beginning of either is held back until that is known.

    Attributes:
        stops: Texts that end it; none of them is shown.
        stopped: One of them was there.
    """

    stops: Sequence[str] = ()
    stopped: bool = False
    _held: str = ""
    _begun: bool = False

    def add(self, text: str) -> str:
        """Return what can be shown now that this has come."""
        if self.stopped:
            return ""
        self._held += text
        if not self._begun and self._held != EMPTY_THOUGHT and EMPTY_THOUGHT.startswith(self._held):
            return ""
        self._begin()
        keep = max((_overlap(self._held, stop) for stop in self.stops), default=0)
        return self._taken(len(self._held) - keep)

    def rest(self) -> str:
        """Return what was held back, now that no more comes."""
        self._begin()
        return self._taken(len(self._held))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._held = self._held.removeprefix(EMPTY_THOUGHT)

    def _taken(self, end: int) -> str:
        """Return the held text up to a stop, or else up to `end`, and hold what is after it."""
        found = [(at + len(stop), at) for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        shown, self._held = self._held[:end], self._held[end:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text are the beginning of a stop."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
