"""The server's certificate: loaded before the server listens, and again after a renewal."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from seedcore.core.errors import ConfigError, Fault


@dataclass(slots=True)
class Certificate:
    """The files of a certificate and its key.

    Attributes:
        certificate: PEM, followed by its chain.
        key: PEM; None if it is in the same file.
    """

    certificate: Path
    key: Path | None
    _seen: tuple[int, ...] = ()
    _context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a server.

        Raises:
            ConfigError: The files cannot be read, or do not match.
        """
        if self._context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._load(context)
            self._context = context
        return self._context

    def renew(self) -> bool:
        """Load the files again if they have changed; new connections get the new certificate.

        Raises:
            ConfigError: They cannot be read, or do not match; the old certificate stays.
        """
        if self._context is None or self._stamp() == self._seen:
            return False
        # Try them on a new context first: a key that does not match would break the one in use.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self._context)
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        seen = self._stamp()
        try:
            # An encrypted key would ask the terminal for its password.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except OSError as error:
            files = f"{self.certificate} and {self.key}" if self.key else str(self.certificate)
            detail = f"{error.strerror}" if not isinstance(error, ssl.SSLError) else f"{error.reason or error}"
            text = f"expected a certificate and its key without a password: {detail}"
            raise ConfigError((Fault(files, 0, 0, text),)) from error
        self._seen = seen

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in (self.certificate, self.key) if path is not None)
        except OSError:
            # The file may be replaced right now.
            return self._seen
