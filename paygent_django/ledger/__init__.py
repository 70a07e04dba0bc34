"""The ledger in a Django project's own database."""

from paygent_django.ledger.store import DjangoLedger, Posted, from_url

__all__ = ["DjangoLedger", "Posted", "from_url"]
