"""
The answers that clients in the field read, byte for byte: one golden file per format, one answer per code.

To take on a change that is meant: ``python tests/web/golden_answers.py``, and read the difference.
"""

import json

import openai
import pytest
from anthropic.types import ErrorResponse
from golden_answers import FORMATS, GOLDEN, NOW, answers, responder
from refusals_seen import EACH

STANDARD = {"type", "title", "status", "detail", "instance"}


@pytest.mark.parametrize("error_format", FORMATS)
def test_each_answer_is_the_golden_one(error_format):
    """Status, headers, body and last event of each code are those that the golden file holds."""
    golden = json.loads((GOLDEN / f"{error_format}.json").read_text(encoding="utf-8"))
    assert answers(error_format) == golden


def read_problem(answer):
    """A reader of RFC 9457 that forgives nothing; returns the extension members."""
    headers = dict(answer.headers)
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(answer.body))
    problem = json.loads(answer.body.decode("utf-8"), parse_constant=pytest.fail)
    assert isinstance(problem, dict)
    scheme, _, rest = problem["type"].partition("://")
    assert scheme == "https"
    assert not any(character.isspace() for character in rest)
    assert isinstance(problem["title"], str)
    assert problem["title"]
    assert type(problem["status"]) is int
    assert problem["status"] == answer.status
    assert isinstance(problem["detail"], str)
    assert "instance" not in problem or isinstance(problem["instance"], str)
    extensions = problem.keys() - STANDARD
    assert all(name.isidentifier() and len(name) >= 3 for name in extensions)  # section 3.2
    return {name: problem[name] for name in extensions}


@pytest.mark.parametrize("code", EACH)
def test_a_strict_reader_of_rfc_9457_accepts_each_answer(code):
    """Every answer is a problem document in the RFC's own terms, with the code among its extensions."""
    accept = {"accept": "application/problem+json"}
    answer = responder("problem").response(EACH[code], accept, now=NOW)
    assert read_problem(answer)["code"] == code


def test_the_title_of_a_type_never_changes():
    """One type has one title, whatever the occurrence (RFC 9457, section 3.1.3)."""
    for amounts in (True, False):
        told = responder("problem", expose_amounts=amounts).problem(EACH["period_spend"])
        assert (told["type"].rpartition("/")[2], told["title"]) == ("period_spend", "Plan limit reached")


@pytest.mark.parametrize("code", EACH)
def test_the_openai_client_reads_the_openai_body(code):
    """The OpenAI SDK finds message, type and code where it looks for them."""
    answer = responder("openai").response(EACH[code], {}, now=NOW)
    error = openai.APIError("", request=None, body=json.loads(answer.body)["error"])
    assert (error.code, error.param) == (code, None)
    assert error.type in {
        "insufficient_quota", "invalid_request_error", "rate_limit_error", "server_error"
    }  # fmt: skip


@pytest.mark.parametrize("code", EACH)
def test_the_anthropic_client_reads_the_anthropic_body(code):
    """The Anthropic SDK's own model of an error response accepts the body."""
    answer = responder("anthropic").response(EACH[code], {}, now=NOW)
    read = ErrorResponse.model_validate_json(answer.body)
    assert read.error.message == responder("anthropic").problem(EACH[code])["detail"]
