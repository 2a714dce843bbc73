"""A few calls to the control plane of this machine, with the standard library only: `up` must start fast."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from atoll.client.profile import Profile
from atoll.errors import BY_CODE, AtollError, Unavailable


class Nearby:
    """Talks to the control plane of a profile."""

    def __init__(self, profile: Profile) -> None:
        self.url = profile.url
        self._token = profile.token
        self._ca = profile.ca

    def get(self, path: str) -> Any:
        """Return the answer to GET; raises the error the control plane tells, or `Unavailable`."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to POST, likewise."""
        return self._call("POST", path, json.dumps(body))

    def _call(self, method: str, path: str, body: str | None) -> Any:
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            value = json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(
                f"the control plane at {self.url} does not answer", hint="see `atoll up` and its log"
            ) from error
        finally:
            connection.close()
        if answer.status >= 400:
            kind = BY_CODE.get(value.get("code", ""), AtollError)
            raise kind(value.get("detail", ""), hint=value.get("hint", ""), reason=value.get("reason", ""))
        return value

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=15)
        context = ssl.create_default_context(cadata=self._ca)
        return http.client.HTTPSConnection(host, port, timeout=15, context=context)
