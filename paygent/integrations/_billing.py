"""What the callbacks share: who pays, whether the SDK's own seam counts the call, and how one is settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from paygent._shelter import Sheltered
from paygent._users import known_user
from paygent.context import Payer, checked_metadata, checked_session_id, current_payer
from paygent.core.usage import Usage
from paygent.instrumentation import is_instrumented
from paygent.meter import active
from paygent.meter.call import Call

if TYPE_CHECKING:
    from paygent.client import Paygent


class Answer(NamedTuple):
    """
    What a framework says of a finished call.

    ``usage`` is ``None`` where it reports none; ``output_bytes`` is then what the estimate is made of.
    ``is_free`` says that no provider was asked, or that another call reported the usage of this one.
    """

    usage: Usage | None = None
    output_bytes: int = 0
    model: str | None = None
    tools: tuple[str, ...] = ()
    is_free: bool = False


class Billing:
    """On whose account the calls of one callback go."""

    def __init__(
        self, pg: Paygent, user_id: object, session_id: object, metadata: Mapping[str, Any] | None
    ) -> None:
        self.meter = pg._meter  # noqa: SLF001  # the engine behind the public object
        self._user_id = known_user(user_id)
        self._session_id = checked_session_id(session_id)
        self._metadata = checked_metadata(metadata)

    def payer(self, *, through_sdk: bool) -> Payer | None:
        """
        Who pays for a call about to be made, or made just now; ``None``: it is not ours to count.

        Args:
            through_sdk: Whether the call goes through the OpenAI or Anthropic SDK.

        Raises:
            PaygentLimitExceeded: Nobody pays, and ``init(unattributed="block")``.
        """
        context = current_payer()
        if context is not None and (context.exempt or context.metered):
            return None
        if context is not None and through_sdk and self._is_seen():
            return None
        payer = Payer(self._user_id, self._session_id, None, self._metadata)
        return self.meter.payer(payer.within(context))

    def _is_seen(self) -> bool:
        """Whether the patched SDK counts what is called in this context."""
        return is_instrumented() and active.get() is self.meter and self.meter.payer(None) is not None

    def settle(self, call: Call, read: Callable[[], Answer]) -> None:
        """Settle *call* by what *read* finds; what cannot be read is settled by an estimate."""
        answer = Answer()
        with Sheltered(self.meter, "reading a framework's result"):
            answer = read()
        usage = answer.usage
        if answer.is_free:
            call.fail(None)
        elif usage is None or usage.input_tokens + usage.output_tokens == 0:
            call.finish_estimated(usage, answer.output_bytes, answer.model, answer.tools)
        else:
            call.finish(usage, answer.model, answer.tools)
