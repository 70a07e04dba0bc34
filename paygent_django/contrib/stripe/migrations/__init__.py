"""Tables of what Stripe has said."""
