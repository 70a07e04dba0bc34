"""The engine: one bracket around each call, one wallet per user, and the rules between them."""
