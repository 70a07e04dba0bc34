"""Paygent for Django: who pays for the calls of a request, and the 429 when the plan is spent."""
