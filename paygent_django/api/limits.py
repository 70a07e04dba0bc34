"""How much one request may ask for."""

BODY_MAX = 10 * 1024 * 1024  # bytes
BATCH_MAX = 5000  # items
