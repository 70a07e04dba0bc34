"""Additions that a project puts into ``INSTALLED_APPS`` if it wants them."""
