"""`atoll relay run`: enrols this machine with a token where it has not, then becomes the relay."""

import argparse
import os
import sys

from atoll.cli.output import note
from atoll.errors import Invalid
from federation.relay.home import About, RelayHome
from tunnel.asking import ask, pinned_ca, verified
from tunnel.identity import make_key_and_csr
from tunnel.jointoken import JoinToken, token_hash


def run(args: argparse.Namespace) -> int:
    """Be a relay in the foreground. Reads `token listen home`; raises `AtollError`."""
    home = RelayHome(args.home)
    # Taken out of the environment: the relay is not to inherit it.
    inherited = os.environ.pop("ATOLL_RELAY_TOKEN", "")
    text = args.token or inherited
    about = home.about()
    if text and (about is None or about.token != token_hash(JoinToken.parse(text).secret)):
        about = enrol(home, JoinToken.parse(text))
        note(f"enrolled as relay {about.name}; from now on no token is needed")
    if about is None:
        raise Invalid(
            f"this machine is no relay: there is no identity in {home.path}",
            hint="run `atoll relay create NAME --url URL` on the control plane's side and pass its token with --token",
        )
    command = [sys.executable, "-m", "federation.relay", "--home", str(home.path), "--listen", args.listen]
    # A fresh program image: what enrolling loaded would weigh on the relay for ever.
    os.execv(sys.executable, command)


def enrol(home: RelayHome, token: JoinToken) -> About:
    """Use up a token and keep the identity that it gives, for a key made here. Raises `AtollError`."""
    ca_pem = pinned_ca(token.url, token)
    request = {"secret": token.secret, "csr": make_key_and_csr(home.path)}
    answer = ask(token.url, "POST", "/v1/relays:enrol", verified(ca_pem), request)
    about = About(
        relay=str(answer["relay"]),
        name=str(answer["name"]),
        url=str(answer["url"]),
        control=token.url,
        token=token_hash(token.secret),
    )
    home.enrolled(about, ca=str(answer["ca"]), certificate=str(answer["certificate"]))
    return about
