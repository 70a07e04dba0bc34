"""Paygent for Flask: who pays for the calls of a request, and the 429 when the plan is spent."""
