"""What finished calls teach of those to come: how text becomes tokens, and how long answers get."""

from __future__ import annotations

from typing import Final

LEARNED_AFTER: Final = 8
SIZES_KEPT: Final = 64
USERS_MODELS_MAX: Final = 8
TOKENS_PER_BYTE_MIN: Final = 0.05
_WIDTH: Final = 4  # bytes of one size


class OutputSizes:
    """
    The 95th percentile (nearest rank) of the last 64 answers that no cap of their call cut short.

    An answer above it counts at once: what was under-estimated must not be under-estimated again. The sizes
    are packed into bytes: every user has some, and what cannot change can be read while other threads learn.
    """

    __slots__ = ("_last", "_p95", "calls", "model")

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.calls = 0
        self._p95 = 0
        self._last = b""

    def learn(self, output_tokens: int) -> None:
        """Note the size of one answer."""
        packed = output_tokens.to_bytes(_WIDTH, "big")
        last = self._last = (self._last + packed)[-SIZES_KEPT * _WIDTH :]
        self.calls += 1
        if output_tokens > self._p95 or not self.calls % LEARNED_AFTER:
            # In this order of bytes, packed sizes sort like the sizes.
            seen = sorted([last[at : at + _WIDTH] for at in range(0, len(last), _WIDTH)])
            self._p95 = int.from_bytes(seen[-(-len(seen) * 95 // 100) - 1], "big")

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


def sizes_of(sizes: tuple[OutputSizes, ...], model: str) -> OutputSizes | None:
    """One user's answers of *model*."""
    for found in sizes:
        if found.model == model:
            return found
    return None


def with_new(sizes: tuple[OutputSizes, ...], model: str) -> tuple[OutputSizes, ...]:
    """*sizes* and, at their end, a new one for *model*; few are kept, since users choose the names."""
    return (*sizes[1 - USERS_MODELS_MAX :], OutputSizes(model))
