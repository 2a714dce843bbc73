"""Server configuration: file, environment, and mistakes."""

from pathlib import Path

import pytest

from atoll.errors import Invalid
from atoll.host.config import ServerConfig, split_listen


def _load(tmp_path: Path, text: str, **environ: str) -> ServerConfig:
    file = tmp_path / "server.toml"
    file.write_text(text)
    return ServerConfig.load(file, environ)


def test_file_and_environment_and_defaults(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        '[server]\nlisten = "0.0.0.0:1"\nnames = ["a"]\n[times]\nsettle_s = 3\n',
        ATOLL_SERVER__PUBLIC_URL="https://fed.example.com",
        ATOLL_AGENT__ENABLED="false",
        ATOLL_TIMES__BACKOFF_S="1.5",
        ATOLL_HOME="/x",
    )
    assert (config.server.listen, config.server.names, config.server.apps_domain) == ("0.0.0.0:1", ("a",), "localhost")
    assert config.server.public_url == "https://fed.example.com"
    assert not config.agent.enabled
    assert (config.times.settle_s, config.times.backoff_s) == (3.0, 1.5)
    assert ServerConfig.load(None, {}) == ServerConfig()


@pytest.mark.parametrize(
    ("text", "environ", "message", "hint"),
    [
        ("[servr]\n", {}, "unknown section [servr]", "'server'"),
        ('[server]\nlisen = "x"\n', {}, "unknown configuration key server.lisen", "'listen'"),
        ("[server]\nlisten = 8700\n", {}, "server.listen must be a text", "8700"),
        ('[server]\nlisten = "8700"\n', {}, "not HOST:PORT", "127.0.0.1:8700"),
        ("[times]\nsettle_s = -1\n", {}, "times.settle_s must be a number above 0", ""),
        ("[tls]\ncertificate = 'a'\n", {}, "belong together", ""),
        ("[clouds]\nproxy = 'proxy:3128'\n", {}, "clouds.proxy 'proxy:3128' is not a URL", "http://"),
        ("[log]\nlevel = 'loud'\n", {}, "log.level", "debug"),
        ("server = 1\n", {}, "must be a section", ""),
        ("[server\n", {}, "is not a TOML file", ""),
        ("", {"ATOLL_SERVER__LISEN": "x"}, "unknown configuration key ATOLL_SERVER__LISEN", "'listen'"),
        ("", {"ATOLL_SERVR__LISTEN": "x"}, "unknown section [servr]", "'server'"),
        ("", {"ATOLL_AGENT__ENABLED": "maybe"}, "ATOLL_AGENT__ENABLED must be true or false", ""),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, environ: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        _load(tmp_path, text, **environ)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read the configuration"):
        ServerConfig.load(tmp_path / "none.toml", {})


def test_split_listen() -> None:
    assert split_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_listen("[::1]:8700") == ("::1", 8700)
    for wrong in ("", "host", ":1", "host:x", "host:70000"):
        with pytest.raises(Invalid):
            split_listen(wrong)
