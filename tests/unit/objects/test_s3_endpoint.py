"""Bucket addresses as people paste them, and what obstore's errors mean."""

from __future__ import annotations

import pytest
from obstore import exceptions as theirs

from fscore.domain.errors import (
    Denied,
    Exists,
    NoSpace,
    NotFound,
    SettingError,
    TransientError,
    UnavailableError,
)
from fscore.objects.s3.endpoint import Endpoint, parse_bucket
from fscore.objects.s3.errors import translate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:9000/models", Endpoint("models", "http://127.0.0.1:9000", None, virtual_host=False)),
        ("https://minio.lan/models/", Endpoint("models", "https://minio.lan", None, virtual_host=False)),
        ("minio.lan:9000/models", Endpoint("models", "http://minio.lan:9000", None, virtual_host=False)),
        (
            "https://models.s3.eu-west-1.amazonaws.com",
            Endpoint("models", "https://models.s3.eu-west-1.amazonaws.com", "eu-west-1", virtual_host=True),
        ),
        (
            "my.models.s3-us-west-2.amazonaws.com",
            Endpoint("my.models", "https://my.models.s3-us-west-2.amazonaws.com", "us-west-2", virtual_host=True),
        ),
        (
            "https://models.s3.amazonaws.com/",
            Endpoint("models", "https://models.s3.amazonaws.com", "us-east-1", virtual_host=True),
        ),
        (
            "https://s3.us-gov-west-1.amazonaws.com/models",
            Endpoint("models", "https://s3.us-gov-west-1.amazonaws.com", "us-gov-west-1", virtual_host=False),
        ),
        (
            "https://models.s3.cn-north-1.amazonaws.com.cn",
            Endpoint("models", "https://models.s3.cn-north-1.amazonaws.com.cn", "cn-north-1", virtual_host=True),
        ),
        (
            "https://models.s3.dualstack.eu-central-1.amazonaws.com",
            Endpoint(
                "models", "https://models.s3.dualstack.eu-central-1.amazonaws.com", "eu-central-1", virtual_host=True
            ),
        ),
        (
            "https://models.oss.example.com",
            Endpoint("models", "https://models.oss.example.com", None, virtual_host=True),
        ),
        ("models", Endpoint("models", None, None, virtual_host=False)),
        ("s3://my.models/", Endpoint("my.models", None, None, virtual_host=False)),
    ],
)
def test_forms_of_a_bucket(text: str, expected: Endpoint) -> None:
    assert parse_bucket(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://127.0.0.1:9000", "write http://127.0.0.1:9000/BUCKET"),
        ("http://localhost:9000/", "names no bucket"),
        ("https://s3.eu-west-1.amazonaws.com", "names no bucket"),
        ("http://host/a/b", "one path part"),
        ("s3://models/folder", "path after"),
        ("ftp://host/models", "no address"),
        ("http://key:secret@host/models", "no address"),
        ("http://host/mo%dels", "cannot be the name"),
        ("", "cannot be the name"),
        ("-x", "cannot be the name"),
    ],
)
def test_what_is_no_bucket(text: str, hint: str) -> None:
    with pytest.raises(SettingError, match=hint):
        parse_bucket(text)


def test_minio_wants_the_bucket_in_the_path() -> None:
    assert parse_bucket("http://minio.lan/models", path_style=True).bucket == "models"
    with pytest.raises(SettingError, match="names no bucket"):
        parse_bucket("http://models.minio.lan", path_style=True)


def answer(status: str, code: str = "") -> str:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>" if code else ""
    return (
        f"Generic S3 error: Error performing PUT http://h:50316/b/k in 1ms - Server returned non-2xx status code: "
        f"{status}: {body}\n\nDebug source:\nGeneric {{ status code: 200 }}"
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (theirs.GenericError(answer("503 Service Unavailable", "SlowDown")), TransientError),
        (theirs.GenericError(answer("500 Internal Server Error")), TransientError),
        (theirs.GenericError(answer("429 Too Many Requests")), TransientError),
        (theirs.GenericError(answer("400 Bad Request", "RequestTimeout")), TransientError),
        (theirs.PermissionDeniedError(answer("403 Forbidden", "RequestTimeTooSkewed")), TransientError),
        (theirs.AlreadyExistsError(answer("409 Conflict", "ConditionalRequestConflict")), TransientError),
        (
            theirs.GenericError("Generic S3 error: Error performing GET - HTTP error: error sending request"),
            TransientError,
        ),
        (theirs.GenericError("Generic S3 error: HTTP error: request or response body error"), TransientError),
        (theirs.PermissionDeniedError(answer("403 Forbidden", "SignatureDoesNotMatch")), Denied),
        (theirs.UnauthenticatedError(answer("401 Unauthorized")), Denied),
        (FileNotFoundError(answer("404 Not Found", "NoSuchKey")), NotFound),
        (FileNotFoundError(answer("404 Not Found", "NoSuchBucket")), SettingError),
        (theirs.GenericError(answer("301 Moved", "PermanentRedirect")), SettingError),
        (theirs.PreconditionError(answer("412 Precondition Failed")), Exists),
        (theirs.AlreadyExistsError(answer("409 Conflict")), Exists),
        (theirs.GenericError(answer("403 Forbidden", "QuotaExceeded")), NoSpace),
        (theirs.GenericError(answer("507 Insufficient Storage")), NoSpace),
        (theirs.GenericError(answer("501 Not Implemented", "NotImplemented")), UnavailableError),
        (theirs.GenericError(answer("400 Bad Request", "InvalidDigest")), UnavailableError),
    ],
)
def test_what_their_errors_mean(error: Exception, kind: type[Exception]) -> None:
    found = translate(error, "put of 'k' in http://h/b")
    assert type(found) is kind
    assert "put of 'k' in http://h/b" in str(found)
    assert "\n" not in str(found)
