"""The JSON of the REST API, for both of its ends."""
