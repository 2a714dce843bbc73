"""Signatures in OpenSSH's form (`ssh-keygen -Y`): made with a key of this machine, checked against known signers."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import Forbidden, Invalid, Refused

TIMEOUT_S = 60.0
"""Seconds that a person may take to unlock a key."""


def sign(content: bytes, key: Path, namespace: str) -> str:
    """Return the signature of `content` by a private key (or by the agent, for a public one).

    Raises `Invalid` when the key cannot be used, `Refused` where OpenSSH is not installed.
    """
    if not key.exists():
        raise Invalid(f"there is no key {key}", hint="make one: ssh-keygen -t ed25519 -f KEY")
    done = _ssh_keygen(["sign", "-q", "-f", str(key), "-n", namespace], content)
    if done.returncode:
        raise Invalid(f"{key} cannot sign: {_last_line(done.stderr)}", hint="a private key of OpenSSH is wanted")
    return done.stdout.decode()


def verify(content: bytes, signature: str, signers: Path, namespace: str) -> str:
    """Return who signed `content`, as the allowed-signers file `signers` names them.

    Raises `Forbidden` for content that was altered, for a signer who is not in the file and for a signature
    made for another purpose, `Refused` where OpenSSH is not installed.
    """
    if not signers.is_file():
        raise Forbidden(
            "no signers are trusted here yet", hint=f"write them into {signers} on the server: NAME ssh-ed25519 AAAA…"
        )
    with tempfile.TemporaryDirectory(prefix="atoll-") as folder:
        place = Path(folder) / "signature"
        place.write_text(signature)
        common = ["-s", str(place), "-f", str(signers)]
        found = _ssh_keygen(["find-principals", *common], content)
        names = found.stdout.decode(errors="replace").split("\n")[0].split(",")
        if found.returncode or not names[0]:
            raise Forbidden(
                "it is signed by nobody who is trusted here", hint=f"trusted signers are in {signers} on the server"
            )
        done = _ssh_keygen(["verify", *common, "-I", names[0], "-n", namespace], content)
    if done.returncode:
        raise Forbidden(
            f"the signature by {names[0]} is not valid: the content was altered, or it was signed for another purpose",
            hint=f"sign it again: ssh-keygen -Y sign -f KEY -n {namespace} FILE",
        )
    return names[0]


def _ssh_keygen(words: Sequence[str], content: bytes) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *words], input=content, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise Refused("ssh-keygen is not installed here", hint="install OpenSSH's client") from error
    except subprocess.TimeoutExpired as error:
        raise Refused("ssh-keygen did not end", hint="a key with a passphrase is best held by ssh-agent") from error


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "unknown reason"
