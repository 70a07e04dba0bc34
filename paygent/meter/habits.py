"""What finished calls teach of those to come: how text becomes tokens, and how long answers get."""

from __future__ import annotations

from array import array
from typing import Final

LEARNED_AFTER: Final = 8
SIZES_KEPT: Final = 64
USERS_MODELS_MAX: Final = 8
TOKENS_PER_BYTE_MIN: Final = 0.05


class OutputSizes:
    """
    The 95th percentile (nearest rank) of the last 64 answers that no cap of their call cut short.

    An answer above it counts at once: what was under-estimated must not be under-estimated again.
    """

    __slots__ = ("_last", "_p95", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self._p95 = 0
        self._last = array("I")

    def learn(self, output_tokens: int) -> None:
        """Note the size of one answer."""
        last = self._last
        if len(last) < SIZES_KEPT:
            last.append(output_tokens)
        else:
            last[self.calls % SIZES_KEPT] = output_tokens
        self.calls += 1
        if output_tokens > self._p95 or not self.calls % LEARNED_AFTER:
            seen = sorted(last)  # whose length stands still while other threads learn
            self._p95 = seen[-(-len(seen) * 95 // 100) - 1]

    @property
    def estimate(self) -> int | None:
        """The output to reserve; ``None`` before enough answers were seen."""
        return self._p95 if self.calls >= LEARNED_AFTER else None


class Habits:
    """What finished calls of one model teach: input tokens per byte, and the sizes of answers."""

    __slots__ = ("output", "tokens_per_byte")

    def __init__(self) -> None:
        self.tokens_per_byte = 0.25
        self.output = OutputSizes()

    def learn_input(self, input_bytes: int, input_tokens: int) -> None:
        """
        Note what the input of one call came to.

        More tokens than bytes are not those of the text: a stored conversation, a file, a picture. They say
        nothing of the next call, least of all of another user's.
        """
        if 0 < input_tokens <= input_bytes:
            ratio = max(TOKENS_PER_BYTE_MIN, input_tokens / input_bytes)
            self.tokens_per_byte += (ratio - self.tokens_per_byte) * 0.1


def sizes_of(sizes: dict[str, OutputSizes], model: str) -> OutputSizes:
    """One user's answers of *model*; few are kept, since users choose the names."""
    found = sizes.get(model)
    if found is None:
        if len(sizes) >= USERS_MODELS_MAX:
            sizes.clear()
        found = sizes[model] = OutputSizes()
    return found
