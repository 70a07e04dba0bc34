"""Carrying the user along: into other threads, and into the messages of task queues."""

from paygent.propagation._notes import NOTE, note, noted_payer
from paygent.propagation._threads import hint, patch_threads, propagate, unpatch_threads

__all__ = ["NOTE", "hint", "note", "noted_payer", "patch_threads", "propagate", "unpatch_threads"]
