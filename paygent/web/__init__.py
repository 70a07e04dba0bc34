"""What the web plugins share: their options, the slot of a request, and the answer to a refused call."""
