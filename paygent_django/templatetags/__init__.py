"""Template tags: ``{% load paygent %}``."""
