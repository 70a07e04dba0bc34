"""Instrumentation of the provider SDKs: one seam each, patched when imported, never imported by us."""

from paygent.instrumentation.registry import ProviderRegistry
from paygent.instrumentation.requests import text_bytes
from paygent.instrumentation.seam import instrument, is_instrumented, uninstrument

__all__ = ["ProviderRegistry", "instrument", "is_instrumented", "text_bytes", "uninstrument"]
