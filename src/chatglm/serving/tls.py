"""TLS: a certificate and its key from PEM files, read again when they are renewed."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any

from chatglm.errors import InputError

__all__ = ["tls_context"]

log = logging.getLogger("chatglm.serving")

_LOOK = 10.0  # seconds between two checks whether the files have changed


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """What a server needs to speak TLS 1.2 and 1.3.

    Args:
        certificate: PEM file with the server's certificate and, after it, those of its issuers.
        key: PEM file with its private key, without a password; None: it is in the file of the certificate.

    Raises:
        InputError: a file cannot be read, is not of this kind, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, key)
    seen, looked, failed = _stamp(certificate, key), time.monotonic(), ""

    def look(*_: Any) -> None:
        """Called at a handshake: a renewed certificate is used from the next handshake on."""
        nonlocal seen, looked, failed
        if time.monotonic() - looked < _LOOK:
            return
        looked = time.monotonic()
        try:
            stamp = _stamp(certificate, key)
            if stamp != seen:
                # First on trial: a pair that does not match would take the former key away from the context in use.
                _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
                _load(context, certificate, key)
                seen, failed = stamp, ""
                log.info("the renewed certificate %s is in use", certificate)
        except (InputError, OSError) as error:  # the file may be incomplete
            if str(error) != failed:
                failed = str(error)
                log.error("the former certificate stays in use: %s", error)

    context.sni_callback = look
    return context


def _stamp(certificate: Path, key: Path | None) -> Any:
    found = (certificate.stat(), (key or certificate).stat())
    return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    files = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key else "")
    for option, file in (("--tls-cert", certificate), ("--tls-key", key or certificate)):
        try:
            with file.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            raise InputError(f"{option} {file}: cannot be read ({error.strerror})") from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(f"{files}: the key does not belong to the certificate") from None
        missing = "" if key else "; if the key is in another file, add --tls-key FILE"
        raise InputError(
            f"{files}: expected a certificate and its private key in PEM form ({error.reason or error}){missing}"
        ) from None
    except _PasswordError:
        raise InputError(
            f"{files}: the key has a password; write it without one (openssl pkey -in KEY -out NEW)"
        ) from None


class _PasswordError(Exception):
    pass


def _no_password() -> str:
    """Refuse keys with a password; without this, OpenSSL would ask for it on the terminal."""
    raise _PasswordError
