import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time

import httpcore
import pytest
from django.test import override_settings
from hooks import Receiver

from paygent_django import webhooks
from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.webhooks import guard, sending

LOOPBACK = override_settings(PAYGENT_WEBHOOK_NETWORKS=["127.0.0.0/8"])
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "255.255.255.255", "224.0.0.1", "198.18.0.1", "192.0.2.1", "240.0.0.1", "::1", "::", "fe80::1",
    "fc00::1",
    "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused(address):
    """Loopback, private, link-local, metadata and reserved addresses, also those that IPv6 carries."""
    assert not guard.is_allowed(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(guard.TargetError):
        guard.check_url(f"http://{host}/")


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_a_public_address_is_taken(address):
    """What everybody can reach is a target."""
    assert guard.is_allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "//example.com/", "http:///x", "example.com", "",
        "http://user:pass@example.com/", "http://example.com:22/", "http://example.com:99999/", "http://localhost/",
        "http://a.internal/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://exa mple.com/",
        "http://ex\u00e4mple.com/", "http://example.com/\n", "http://" + "a" * 2100,
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_web_server_is_refused(url):
    """Other schemes, credentials, ports of other services, and odd ways to write a private address."""
    with pytest.raises(guard.TargetError):
        guard.check_url(url)


@pytest.mark.parametrize(
    "url", ["https://example.com/hooks?x=1", "http://example.com:8080/", "https://1.1.1.1/"]
)
def test_an_address_of_a_web_server_is_taken(url):
    """What can be told from the text alone is right."""
    guard.check_url(url)


def named(monkeypatch, *addresses):
    """The DNS answers with these, one after the other."""
    answers = list(addresses)

    def getaddrinfo(host, port, **_):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(guard.socket, "getaddrinfo", getaddrinfo)


def test_a_name_that_leads_home_is_refused(monkeypatch):
    """The addresses of a name are checked, all of them."""
    for addresses in (["127.0.0.1"], ["1.1.1.1", "10.0.0.1"]):
        named(monkeypatch, addresses)
        with pytest.raises(guard.TargetError):
            guard.resolve("example.com", 443)


def test_an_answer_that_changes_changes_nothing(monkeypatch):
    """The connection goes to the address that was checked; the name is not asked for again."""
    named(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    connected = []

    def connect(self, host, port, *_):
        connected.append(host)
        raise httpcore.ConnectError("nobody is there")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(httpcore.ConnectError):
        guard.GuardedBackend(5.0).connect_tcp("example.com", 80)
    assert connected == ["93.184.216.34"]


def test_a_socket_of_this_machine_is_refused():
    """No path of the HTTP library leads to a local service."""
    with pytest.raises(guard.TargetError):
        guard.GuardedBackend(5.0).connect_unix_socket("/var/run/docker.sock")


def delivery(url, body=None):
    endpoint = WebhookEndpoint(url=url)
    return WebhookDelivery(endpoint=endpoint, event="test", body=body or {})


def test_a_private_target_is_not_knocked_at():
    """An address that came into the database on another way is still not sent to."""
    with Receiver.listening() as receiver:
        outcome = sending.send(delivery(receiver.url))
    assert (outcome.delivered, receiver.received) == (False, [])
    assert "private" in outcome.error


def test_a_redirect_is_not_followed():
    """An answer that points home is a failed try, and nobody goes there."""
    with LOOPBACK, Receiver.listening() as receiver, Receiver.listening() as home:
        receiver.statuses, receiver.location = [302], home.url
        outcome = sending.send(delivery(receiver.url))
    assert (outcome.status, outcome.delivered, home.received) == (302, False, [])


def test_an_answer_that_trickles_ends(monkeypatch):
    """A receiver that sends a byte now and then does not keep the sender beyond its deadline."""
    monkeypatch.setattr(sending, "IN_ALL_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener, LOOPBACK:
        stop = threading.Event()

        def trickle():
            connection = listener.accept()[0]
            with connection:
                connection.sendall(b"HTTP/1.1 ")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"2")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        outcome = sending.send(delivery(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        stop.set()  # not before: nobody else ends what trickles
        thread.join(60)
    assert not outcome.delivered


def test_a_delivery_proves_who_sent_it():
    """The signature fits the secret, the body and the time, and nothing else."""
    with LOOPBACK, Receiver.listening() as receiver:
        sent = delivery(receiver.url, {"user_id": "é 💥"})
        assert sending.send(sent).delivered
    headers, body = receiver.received[0]
    secret, now_s = sent.endpoint.secret, time.time()
    assert webhooks.verify(secret, headers["Paygent-Signature"], body, now_s)
    assert not webhooks.verify("whsec_other", headers["Paygent-Signature"], body, now_s)
    assert not webhooks.verify(secret, headers["Paygent-Signature"], body + b" ", now_s)
    assert not webhooks.verify(secret, headers["Paygent-Signature"], body, now_s + 301)
    for odd in ("", "t=,v1=", "t=1", "v1=x", "t=é,v1=é", "t=" + "9" * 40 + ",v1=x"):
        assert not webhooks.verify(secret, odd, body, now_s)
    assert (headers["Paygent-Delivery"], headers["Paygent-Event"]) == (str(sent.uuid), "test")


def test_nothing_is_left_to_be_loaded_by_the_first_delivery(tmp_path):
    """What looks up an address is there before a thread delivers: a fork may come while it is loaded."""
    code = (
        "import sys, django; django.setup(); import paygent_django.webhooks.sending;"
        "print('encodings.idna' in sys.modules)"
    )
    environment = {
        "HOME": str(tmp_path),
        "PAYGENT_DATABASE": f"sqlite:///{tmp_path}/d.db",
        "DJANGO_SETTINGS_MODULE": "paygent_django.server.settings",
    }
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "True"
