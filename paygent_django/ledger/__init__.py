"""The ledger in a Django project's own database."""

from paygent_django.ledger._events import Posted
from paygent_django.ledger.store import DjangoLedger, from_url

__all__ = ["DjangoLedger", "Posted", "from_url"]
