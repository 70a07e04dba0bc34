"""The errors and warnings, at the address users of the field expect them."""

from paygent.core.errors import (
    PaygentAuthInvalid,
    PaygentBackendUnreachable,
    PaygentLimitExceeded,
    PaygentUnavailable,
)

__all__ = ["PaygentAuthInvalid", "PaygentBackendUnreachable", "PaygentLimitExceeded", "PaygentUnavailable"]
