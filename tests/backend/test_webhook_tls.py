"""Webhooks over HTTPS: to a receiver with a certificate for its address, from a trusted authority."""

import ssl

import pytest
import trustme
from django.test import override_settings
from hooks import Receiver

from paygent_django import webhooks
from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.webhooks import sending


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority that this machine trusts, for the time of the test."""
    authority = trustme.CA()
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    sending._context.cache_clear()
    yield authority
    sending._context.cache_clear()


def outcome(receiver):
    delivery = WebhookDelivery(
        endpoint=WebhookEndpoint(url=receiver.url), event="test", body={"user_id": "ada"}
    )
    with override_settings(PAYGENT_WEBHOOK_NETWORKS=["127.0.0.0/8"]):
        return sending.send(delivery), delivery.endpoint.secret


def certified(authority, address):
    """What a server at *address* shows."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(address).configure_cert(tls)
    return tls


def test_a_delivery_goes_over_https(authority):
    """A receiver with a certificate that holds has the signed message."""
    with Receiver.listening(certified(authority, "127.0.0.1")) as receiver:
        told, secret = outcome(receiver)
    assert told.delivered
    headers, body = receiver.received[0]
    assert webhooks.verify(
        secret, headers["Paygent-Signature"], body, int(headers["Paygent-Signature"][2:12])
    )


@pytest.mark.parametrize("address", ["127.0.0.9", "example.com"])
def test_another_ones_certificate_is_refused(authority, address):
    """Nothing is sent to a receiver that shows the certificate of another address."""
    with Receiver.listening(certified(authority, address)) as receiver:
        told, _ = outcome(receiver)
    assert not told.delivered
    assert "certificate" in told.error
    assert receiver.received == []


@pytest.mark.usefixtures("authority")
def test_a_certificate_of_an_unknown_authority_is_refused():
    """Nothing is sent to a receiver whose certificate nobody vouches for."""
    with Receiver.listening(certified(trustme.CA(), "127.0.0.1")) as receiver:
        told, _ = outcome(receiver)
    assert not told.delivered
    assert "certificate" in told.error
    assert receiver.received == []
