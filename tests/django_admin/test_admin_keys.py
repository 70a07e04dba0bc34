"""Addresses with a key that no database can hold."""

import pytest

BEYOND = str(10**20 - 1)


@pytest.mark.parametrize(
    "page", [f"usageevent/{BEYOND}/refund/", f"enduser/{BEYOND}/do/grant/", f"webhookendpoint/{BEYOND}/test/"]
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_key_beyond_64_bits_is_not_found(boss, project, page, method):
    """Such a key is that of no row: a redirect or a refusal of the method, and no error."""
    answer = getattr(boss, method)(f"/admin/paygent_django/{page}")
    assert answer.status_code in (302, 404, 405)
