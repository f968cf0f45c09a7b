"""Messages hold no secrets; damage is a sentence that names the file."""

import pickle

import pytest

from wsisr.errors import BuildError, SlideError, damage_is_clear, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:s3cret@host:9/a.svs?X-Amz-Signature=ab", "https://***@host:9/a.svs"),
        ("s3:/key:secret@bucket/a.tif: no such file", "s3:/***@bucket/a.tif: no such file"),
        ("at 'https://host/a?sig=1&x=2', then", "at 'https://host/a', then"),
        ("https://h/a?t=1 and https://b@h/c", "https://h/a and https://***@h/c"),
        ("scans/a@b.tif: what?", "scans/a@b.tif: what?"),
    ],
)
def test_no_message_holds_a_login_or_a_signature(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    error = pickle.loads(pickle.dumps(SlideError(text)))  # noqa: S301 - our own
    assert str(error) == shown


@pytest.mark.parametrize(
    "fault",
    [KeyError("root"), OverflowError("big"), AttributeError("x"), RecursionError(), EOFError()],
)
def test_damage_is_one_sentence_with_the_file(fault: Exception) -> None:
    refused = pytest.raises(BuildError, match=r"r\.json\.gz is damaged .*copy it again\.")
    with refused, damage_is_clear("r.json.gz", BuildError, "copy it again"):
        raise fault


def test_errors_with_words_of_their_own_and_faults_of_ours_pass() -> None:
    with pytest.raises(SlideError, match=r"^mine$"), damage_is_clear("f", BuildError, "copy it"):
        raise SlideError("mine")
    with pytest.raises(AssertionError), damage_is_clear("f", BuildError, "copy it"):
        raise AssertionError
