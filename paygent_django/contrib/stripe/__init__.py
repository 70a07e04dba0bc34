"""Stripe tells Paygent who is on which plan, and for which billing period: see docs/stripe.md."""
